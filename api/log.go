package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
)

const maxLoggedPath = 200

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
		path := r.ctx.Path()
		attrs = append(attrs,
			slog.String("method", string(r.ctx.Method())),
			slog.String("path", string(path[:min(len(path), maxLoggedPath)])),
		)
	}
	sent := r.ctx.Response.Header.ContentLength() // of a large answer, see answer
	if !r.ctx.Response.IsBodyStream() {
		sent = len(r.ctx.Response.Body())
	}
	attrs = append(attrs,
		slog.Int("status", r.ctx.Response.StatusCode()),
		slog.Float64("ms", float64(time.Since(r.start).Microseconds())/1000),
		slog.Int("bytes_in", r.size),
		slog.Int("bytes_out", sent),
		slog.String("request_id", r.id),
	)
	if key := r.keyName(); key != "" {
		attrs = append(attrs, slog.String("key", key))
	}
	if err := r.fault.err; err != nil {
		attrs = append(attrs, slog.String("code", r.fault.code))
		if failed {
			attrs = append(attrs, slog.String("error", err.Error()))
		}
		if panicked, ok := errors.AsType[*pipeline.PanicError](err); ok {
			level = slog.LevelError
			attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
		}
	}
	log.LogAttrs(background, level, "request", attrs...)
}

// requestID is the one that the client sent, when it is fit to be echoed and logged.
func requestID(h *fasthttp.RequestHeader) string {
	const longest, fit = 128, "-_.:/+=@~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sent := h.Peek(headerRequestID)
	if len(sent) == 0 || len(sent) > longest || len(bytes.Trim(sent, fit)) > 0 {
		return newRequestID()
	}
	return string(sent)
}

// newRequestID returns 32 random hexadecimal digits. They need not be secret.
func newRequestID() string {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64())
	return hex.EncodeToString(b[:])
}

// serverLog takes what fasthttp has to say; it is about single connections.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.log.Warn("http: " + fmt.Sprintf(format, args...))
}
