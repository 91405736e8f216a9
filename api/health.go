package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/clip"
)

// health serves /health: 200 while the service can serve, 503 when it cannot.
func (s *Server) health(ctx *fasthttp.RequestCtx) {
	h, mode := s.svc.Engine.Health(), "real"
	if h.Simulated {
		mode = "simulated"
	}
	if s.stopping.Load() {
		h.State, h.Reason = clip.Unhealthy, outcomeOf(errStopping).text
	}
	if h.State == clip.Unhealthy {
		ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	setJSON(ctx, func(b []byte) []byte {
		field := func(name, value string) {
			b = append(append(append(b, `,"`...), name...), `":`...)
			b = appendString(b, value)
		}
		optional := func(name, value string) {
			if value != "" {
				field(name, value)
			}
		}
		b = append(b, `{"service":"hailo-clip"`...)
		field("status", h.State.String())
		if h.State != clip.Healthy {
			optional("reason", h.Reason)
		}
		field("model", h.Model)
		b = append(b, `,"model_loaded":`...)
		b = strconv.AppendBool(b, h.ModelLoaded)
		optional("model_reason", h.ModelWhy)
		field("backend", h.Backend)
		field("runtime_mode", mode)
		optional("backend_reason", h.BackendWhy)
		b = append(b, `,"uptime_seconds":`...)
		b = strconv.AppendInt(b, int64(time.Since(s.start).Round(time.Second)/time.Second), 10)
		field("version", s.svc.Version)
		return append(b, '}')
	})
}

// stats serves /v1/stats: counters since the start, of which a measurement takes the difference.
func (s *Server) stats(ctx *fasthttp.RequestCtx) {
	body, err := json.Marshal(s.svc.Engine.Stats())
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
