package api

import (
	"slices"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/clip"
)

// probePaths are answered also where there is no room for the connection.
var probePaths = []string{"/health", "/healthz", "/readyz"}

func isProbe(path string) bool { return slices.Contains(probePaths, path) }

// healthz serves /healthz: 200 as long as the process answers.
func (s *Server) healthz(r *request) error {
	return r.answerText([]byte(`{"status":"ok"}`), nil)
}

// readyz serves /readyz: 200 while the engine can serve requests, perhaps without the device, or else 503. The status "starting"
// is answered by Starting.
func (s *Server) readyz(r *request) error {
	health := s.svc.Engine.Health()
	answer := struct {
		Status string `json:"status"`
		Reason string `json:"reason,omitempty"`
	}{"ready", health.Reason}
	switch {
	case s.Draining():
		answer.Status, answer.Reason = "stopping", errStopping.text
	case health.State == clip.Unhealthy:
		answer.Status = "unavailable"
	}
	if answer.Status != "ready" {
		r.ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	return r.answerJSON(answer)
}
