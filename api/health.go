package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// What Health.Status can be.
const (
	Healthy   = "healthy"
	Degraded  = "degraded"  // serves, but slower or elsewhere than it should
	Unhealthy = "unhealthy" // cannot serve
)

// Health is how the service is doing.
type Health struct {
	Status      string // Healthy, Degraded or Unhealthy
	Reason      string // a sentence for a person; "" when healthy
	ModelLoaded bool
	Backend     string // "npu", "cpu" or "sim"
	RuntimeMode string // "real" or "simulated"
	Why         string // why this backend, a sentence for a person; may be ""
	ModelWhy    string // why this model, and what it is not good for; a sentence for a person, may be ""
}

// health serves /health: 200 while the service can serve, 503 when it cannot.
func (s *Server) health(ctx *fasthttp.RequestCtx) {
	h := s.svc.Health()
	if s.stopping.Load() {
		h.Status, h.Reason = Unhealthy, outcomeOf(errStopping).text
	}
	if h.Status == Unhealthy {
		ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	setJSON(ctx, func(b []byte) []byte {
		field := func(name, value string) {
			b = append(append(append(b, `,"`...), name...), `":`...)
			b = appendString(b, value)
		}
		b = append(b, `{"service":"hailo-clip"`...)
		field("status", h.Status)
		if h.Reason != "" && h.Status != Healthy {
			field("reason", h.Reason)
		}
		field("model", s.svc.Model)
		if h.ModelLoaded {
			b = append(b, `,"model_loaded":true`...)
		} else {
			b = append(b, `,"model_loaded":false`...)
		}
		if h.ModelWhy != "" {
			field("model_reason", h.ModelWhy)
		}
		field("backend", h.Backend)
		field("runtime_mode", h.RuntimeMode)
		if h.Why != "" {
			field("backend_reason", h.Why)
		}
		b = append(b, `,"uptime_seconds":`...)
		b = strconv.AppendInt(b, int64(time.Since(s.start).Round(time.Second)/time.Second), 10)
		field("version", s.svc.Version)
		return append(b, '}')
	})
}

// stats serves /v1/stats: counters since the start, of which a measurement takes the difference.
func (s *Server) stats(ctx *fasthttp.RequestCtx) {
	body, err := json.Marshal(s.svc.Stats())
	if err != nil {
		s.answerError(ctx, fmt.Errorf("%w: stats: %w", errInternalFailure, err))
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(body)
}

//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI serves the description of the interface.
func (s *Server) openAPI(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.SetContentType("application/yaml")
	ctx.Response.SetBody(openAPIDocument)
}
