package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/clip"
)

// health serves /health: 200 while the service can serve, 503 when it cannot.
func (s *Server) health(ctx *fasthttp.RequestCtx) {
	answer := struct {
		Service string `json:"service"`
		clip.Health
		Uptime  int64  `json:"uptime_seconds"`
		Version string `json:"version"`
	}{"hailo-clip", s.svc.Engine.Health(), int64(time.Since(s.start).Round(time.Second) / time.Second), s.svc.Version}
	if s.stopping.Load() {
		answer.State, answer.Reason = clip.Unhealthy, outcomeOf(errStopping).text
	}
	if answer.State == clip.Unhealthy {
		ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	s.answerJSON(ctx, answer)
}

// stats serves /v1/stats: counters since the start, of which a measurement takes the difference.
func (s *Server) stats(ctx *fasthttp.RequestCtx) { s.answerJSON(ctx, s.svc.Engine.Stats()) }

// answerJSON answers with what is true for the moment.
func (s *Server) answerJSON(ctx *fasthttp.RequestCtx, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		s.answerError(ctx, fmt.Errorf("%w: %w", errInternalFailure, err))
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
