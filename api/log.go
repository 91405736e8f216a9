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
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
)

const maxLoggedPath = 200

// log writes the line of the request, if it is to have one. Of what the client sent the line holds only the method, the path and
// values that have been checked: no image and no prompt.
func (r *request) log(took time.Duration) {
	s, status, now := r.server, r.ctx.Response.StatusCode(), time.Now()
	log, background, level := s.svc.Log, context.Background(), slog.LevelInfo
	failed := r.fault.err != nil && r.fault.status >= 500
	if failed {
		level = slog.LevelWarn
	}
	if !log.Enabled(background, level) {
		return
	}
	logged, leftOut := false, uint64(0)
	switch lines := &r.watched.lines; {
	case r.fault.err != nil: // also of an item of a batch that is answered with 200
		logged, leftOut = lines.failed(r.fault.status, now)
	case status >= fasthttp.StatusBadRequest:
		logged, leftOut = lines.failed(status, now)
	default:
		logged = lines.answered(int(s.logEvery.Load()))
	}
	if !logged {
		s.unlogged.Add(1)
		return
	}
	attrs := make([]slog.Attr, 0, 14)
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
		slog.Int("status", status),
		slog.Float64("ms", millis(took)),
		slog.Int("bytes_in", r.size),
		slog.Int("bytes_out", sent),
		slog.String("request_id", r.id),
		slog.String("client", clientOf(r.rules.clientAddress(r.ctx))),
	)
	if key := r.keyName(); key != "" {
		attrs = append(attrs, slog.String("key", key))
	}
	if id := traceID(r.ctx.Request.Header.PeekAll("Traceparent")); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	attrs = append(attrs, r.stageAttrs())
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
	if leftOut > 0 {
		attrs = append(attrs, slog.Uint64("unlogged", leftOut))
	}
	log.LogAttrs(background, level, "request", attrs...)
}

// clientOf is the field "client" of the log: an address, or "local" for a Unix socket.
func clientOf(ip netip.Addr) string {
	if !ip.IsValid() {
		return "local"
	}
	return ip.String()
}

// stageAttrs is a group of the times of the stages that the request has passed, in milliseconds. slog leaves an empty group out.
func (r *request) stageAttrs() slog.Attr {
	times := make([]slog.Attr, 0, 2*len(r.result.Times)+3)
	r.eachTiming(func(name, suffix string, d time.Duration) {
		if d > 0 {
			times = append(times, slog.Float64(name+suffix, millis(d)))
		}
	})
	return slog.Attr{Key: "stages", Value: slog.GroupValue(times...)}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// traceID returns the trace-id in the header "traceparent" of a request (W3C Trace Context); "" if there is no such header, more
// than one, or one that is not valid.
func traceID(sent [][]byte) string {
	const version, id, parent, flags, end = 0, 3, 36, 53, 55 // where each begins; before all but the first is a "-"
	if len(sent) != 1 || len(sent[0]) < end {
		return ""
	}
	h := sent[0]
	switch v := h[version : version+2]; {
	case !isHex(v), string(v) == "ff", string(v) == "00" && len(h) > end, len(h) > end && h[end] != '-':
		return ""
	case h[id-1] != '-', h[parent-1] != '-', h[flags-1] != '-', !isHex(h[flags:end]):
		return ""
	case !isID(h[id : parent-1]), !isID(h[parent : flags-1]):
		return ""
	}
	return string(h[id : parent-1])
}

// isID says that b is hexadecimal and not all zeros.
func isID(b []byte) bool { return isHex(b) && len(bytes.Trim(b, "0")) > 0 }

// isHex says that b is hexadecimal in lower case.
func isHex(b []byte) bool { return len(bytes.Trim(b, "0123456789abcdef")) == 0 }

// requestID returns the request id that the client sent if it is fit to be echoed and logged, or else a new one.
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

// serverLog is the log of fasthttp, which writes about single connections.
type serverLog struct {
	log   *slog.Logger
	lines lines
}

func (l *serverLog) Printf(format string, args ...any) {
	if logged, leftOut := l.lines.ended(time.Now()); logged {
		l.log.Warn("http: "+fmt.Sprintf(format, args...), "unlogged", leftOut)
	}
}
