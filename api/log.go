package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hailoclip/pipeline"
)

// log writes the line of the request: no image, no prompt, nothing else that a client wrote but method and path.
func (r *request) log() {
	log, background, level := r.server.svc.Log, context.Background(), slog.LevelInfo
	failed := r.fault.err != nil && r.fault.status >= 500
	if failed {
		level = slog.LevelWarn
	}
	if !log.Enabled(background, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	if r.state != headless {
		const maxPath = 200
		path := r.ctx.Path()
		attrs = append(attrs,
			slog.String("method", string(r.ctx.Method())),
			slog.String("path", string(path[:min(len(path), maxPath)])),
		)
	}
	attrs = append(attrs,
		slog.Int("status", r.ctx.Response.StatusCode()),
		slog.Float64("ms", float64(time.Since(r.start).Microseconds())/1000),
		slog.Int("bytes_in", len(r.body)),
		slog.Int("bytes_out", len(r.ctx.Response.Body())),
		slog.String("request_id", r.id),
	)
	if err := r.fault.err; err != nil {
		attrs = append(attrs, slog.String("code", r.fault.code))
		if failed {
			attrs = append(attrs, slog.String("error", err.Error()))
		}
		var panicked *pipeline.PanicError
		if errors.As(err, &panicked) {
			level = slog.LevelError
			attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
		}
	}
	log.LogAttrs(background, level, "request", attrs...)
}

// serverLog takes what fasthttp has to say; it is about single connections.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.log.Warn("http: " + fmt.Sprintf(format, args...))
}
