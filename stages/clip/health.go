package clip

import (
	"fmt"

	"hailoclip/hailo"
	"hailoclip/pipeline"
)

// State says whether an engine can serve.
type State uint8

// States.
const (
	Healthy   State = iota
	Degraded        // serves, but slower or elsewhere than it should
	Unhealthy       // cannot serve
)

func (s State) String() string { return [...]string{"healthy", "degraded", "unhealthy"}[s] }

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Health is how an engine is doing, for people. The reasons are sentences, which may be "".
type Health struct {
	State       State  `json:"status"`
	Reason      string `json:"reason,omitempty"` // "" when healthy
	Model       string `json:"model"`
	ModelLoaded bool   `json:"model_loaded"`
	ModelWhy    string `json:"model_reason,omitempty"` // why this model, and what it is not good for
	Backend     string `json:"backend"`                // npu, cpu or sim
	RuntimeMode string `json:"runtime_mode"`           // real or simulated
	BackendWhy  string `json:"backend_reason,omitempty"`
}

// State returns Health().State. It is called before every request: it does not block and allocates nothing.
func (e *Engine) State() State {
	state, _, _ := e.state()
	return state
}

// Health returns the state with its reasons. It does not block.
func (e *Engine) Health() Health {
	state, status, stuck := e.state()
	info := e.parts.Images.Info()
	h := Health{
		State: state, Reason: status.Reason(), Model: e.Model(), ModelLoaded: status.Ready, ModelWhy: e.parts.ModelWhy,
		Backend: info.Backend, RuntimeMode: "real", BackendWhy: e.parts.BackendWhy,
	}
	if info.Simulated {
		h.RuntimeMode = "simulated"
	}
	if err := e.sets.fileError(); err != nil && h.Reason == "" {
		h.Reason = err.Error()
	}
	if status.Ready && stuck.Workers > 0 {
		h.Reason = fmt.Sprintf("%d workers of the stage %s are stuck: they work on images whose deadline has passed", stuck.Workers, stuck.Stage)
	}
	return h
}

// Stuck is pipeline.Pipeline.Stuck of the engine's line.
func (e *Engine) Stuck() (found pipeline.Stuck, ok bool) { return e.line.Stuck() }

func (e *Engine) state() (state State, status hailo.Status, stuck pipeline.Stuck) {
	status = e.parts.Images.Status()
	stuck, _ = e.line.Stuck()
	switch {
	case !status.Ready, stuck.All:
		state = Unhealthy
	case status.Degraded, stuck.Workers > 0, e.sets.fileError() != nil:
		state = Degraded
	}
	return state, status, stuck
}
