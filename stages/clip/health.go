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

// String is the state's name in GET /health.
func (s State) String() string { return [...]string{"healthy", "degraded", "unhealthy"}[s] }

// Health is how an engine is doing, for people.
type Health struct {
	State       State
	Reason      string // a sentence; "" when healthy
	ModelLoaded bool
	Model       string
	ModelWhy    string // why this model, and what it is not good for; a sentence, may be ""
	Backend     string // "npu", "cpu" or "sim"
	BackendWhy  string // why this one; a sentence, may be ""
	Simulated   bool
}

// State is asked before every request: it does not block and builds no words.
func (e *Engine) State() State {
	state, _, _ := e.state()
	return state
}

// Health is State in words. It does not block.
func (e *Engine) Health() Health {
	state, status, stuck := e.state()
	info := e.parts.Images.Info()
	h := Health{
		State: state, Reason: status.Reason, ModelLoaded: status.Ready, Model: e.parts.Model.Name, ModelWhy: e.parts.Model.Why,
		Backend: info.Backend, BackendWhy: e.parts.BackendWhy, Simulated: info.Simulated,
	}
	if status.Ready && stuck.Workers > 0 {
		h.Reason = fmt.Sprintf("%d workers of the stage %s are stuck: they work on images whose deadline has passed", stuck.Workers, stuck.Stage)
	}
	return h
}

func (e *Engine) state() (state State, status hailo.Status, stuck pipeline.Stuck) {
	status = e.parts.Images.Status()
	stuck, _ = e.line.Stuck()
	switch {
	case !status.Ready, stuck.All:
		state = Unhealthy
	case status.Degraded, stuck.Workers > 0:
		state = Degraded
	}
	return state, status, stuck
}
