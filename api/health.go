package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/clip"
)

// health serves /health: 200 while the service can serve, 503 when it cannot.
func (s *Server) health(r *request) error {
	answer := struct {
		Service string `json:"service"`
		clip.Health
		Uptime      int64  `json:"uptime_seconds"`
		Version     string `json:"version"`
		Digest      string `json:"image_digest"`
		Preparation string `json:"image_preparation"`
	}{
		"hailo-clip", s.healthNow(), int64(time.Since(s.start).Round(time.Second) / time.Second), s.svc.Version,
		s.svc.Engine.ImageDigest(), s.svc.Engine.Preparation(),
	}
	if answer.State == clip.Unhealthy {
		r.ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	return r.answerJSON(answer)
}

// healthNow is the engine's, and that of streams and of the server itself.
func (s *Server) healthNow() clip.Health {
	h := s.svc.Engine.Health()
	if err := s.storeLost(); err != "" && h.State != clip.Unhealthy {
		h.State, h.Reason = clip.Degraded, cmp.Or(h.Reason, err)
	}
	if s.stopping.Load() {
		h.State, h.Reason = clip.Unhealthy, errStopping.text
	}
	return h
}

// storeLost says why streams and events cannot be kept; "" when they can.
func (s *Server) storeLost() string {
	switch {
	case s.svc.Hub == nil:
	case s.svc.Store != nil:
		return s.svc.Store.Stats().Lost
	case s.svc.Lost != nil:
		return s.svc.Lost.Error()
	}
	return ""
}

// stats serves /v1/stats: counters since the start, of which a measurement takes the difference.
func (s *Server) stats(r *request) error {
	return r.answerJSON(s.Stats())
}

// answerJSON answers with what is true for the moment. Where that is large it counts as a body, see answer.
func (r *request) answerJSON(value any) error {
	body, err := json.Marshal(value)
	return r.answerText(body, err)
}

// answerPlain is answerJSON for texts of callers, which would become six times as long were <, > and & written as escapes.
func (r *request) answerPlain(value any) error {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	err := to.Encode(value)
	return r.answerText(bytes.TrimRight(b.Bytes(), "\n"), err)
}

// answerText answers with JSON that could not be made if err is not nil.
func (r *request) answerText(body []byte, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", errInternalFailure, err)
	}
	r.ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	if len(body) >= largeAnswer {
		return r.counted(body)
	}
	r.ctx.Response.Header.SetContentType("application/json")
	r.ctx.Response.SetBodyRaw(body)
	return nil
}
