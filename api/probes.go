package api

import (
	"slices"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/clip"
)

// probePaths are answered also where there is no room for the connection.
var probePaths = []string{"/health", "/healthz", "/readyz"}

func isProbe(path string) bool { return slices.Contains(probePaths, path) }

// healthz serves /healthz: the process answers.
func (s *Server) healthz(r *request) error {
	return r.answerText([]byte(`{"status":"ok"}`), nil)
}

// Readiness is what /readyz answers, with 200 for Ready and 503 for all others.
type Readiness string

// Values of Readiness.
const (
	Ready       Readiness = "ready" // the known image is encoded as it should be, perhaps not by the device, and requests are served
	NotStarted  Readiness = "starting"
	Stopping    Readiness = "stopping"
	Unavailable Readiness = "unavailable" // the device is lost, or fails its probe, and nothing stands in; or a whole stage is stuck
)

// readyz serves /readyz.
func (s *Server) readyz(r *request) error {
	state, health := Ready, s.svc.Engine.Health()
	switch {
	case s.Draining():
		state, health.Reason = Stopping, errStopping.text
	case health.State == clip.Unhealthy:
		state = Unavailable
	}
	if state != Ready {
		r.ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	return r.answerJSON(struct {
		State  Readiness `json:"status"`
		Reason string    `json:"reason,omitempty"`
	}{state, health.Reason})
}
