package api

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
)

const (
	headerRequestID = "X-Request-Id"
	headerTimeout   = "X-Request-Timeout-Ms"
	headerWarning   = "X-Clip-Warning"
	exchangeKey     = "exchange"
)

// exchange is one request and its answer, as far as the log is concerned.
type exchange struct {
	id       string
	start    time.Time
	unread   bool  // method and path are not known
	received int   // bytes of the body
	whole    bool  // the body was read to its end
	asking   bool  // the client waits to hear whether the body is wanted
	wanted   bool  // it is; otherwise the answer is there
	err      error // why it failed; nil: it did not
	outcome  outcome
}

// handle is what runs for every request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	x := s.begin(ctx)
	s.route(ctx)
	c := connOf(ctx)
	if ctx.Request.IsBodyStream() && !x.whole || s.stopping.Load() || c != nil && c.last.Load() {
		ctx.SetConnectionClose()
		linger(ctx)
	}
	s.log(ctx, x)
}

// expect runs before handle for a request with "Expect: 100-continue". What the head of the
// request is enough for, such as most refusals, is answered here, so that the body is never
// sent. Otherwise it returns 100 and leaves the request to handle. The server closes the
// connection after any other status, because the client may have sent the body all the same.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	x := s.begin(ctx)
	x.asking = true
	s.route(ctx)
	if x.wanted {
		return fasthttp.StatusContinue
	}
	linger(ctx)
	s.log(ctx, x)
	return ctx.Response.StatusCode()
}

// begin makes the exchange of a request.
func (s *Server) begin(ctx *fasthttp.RequestCtx) *exchange {
	x := &exchange{id: requestID(&ctx.Request.Header), start: time.Now()}
	ctx.SetUserValue(exchangeKey, x)
	s.setHeaders(ctx, x.id)
	ctx.Response.Header.Set(fasthttp.HeaderXContentTypeOptions, "nosniff")
	return x
}

// setHeaders sets the headers that every answer has.
func (s *Server) setHeaders(ctx *fasthttp.RequestCtx, id string) {
	ctx.Response.Header.Set(headerRequestID, id)
	if s.svc.Warning != "" {
		ctx.Response.Header.Set(headerWarning, s.svc.Warning)
	}
}

// surplus says that the request came on a connection that is one too many.
func surplus(ctx *fasthttp.RequestCtx) bool {
	c := connOf(ctx)
	return c != nil && c.surplus
}

// route runs the handler of the path and contains its panics.
func (s *Server) route(ctx *fasthttp.RequestCtx) {
	defer func() {
		if v := recover(); v != nil {
			s.answerError(ctx, &pipeline.PanicError{Stage: "api", Value: v, Stack: debug.Stack()})
		}
	}()
	if ambiguous(&ctx.Request.Header) {
		s.answerError(ctx, fail(errMalformed, "The request has both Content-Length and Transfer-Encoding"))
		return
	}
	if surplus(ctx) && string(ctx.Path()) != "/health" {
		s.answerError(ctx, errTooManyConns)
		return
	}
	answered, err := s.screen(ctx)
	if err != nil {
		s.answerError(ctx, err)
		return
	}
	if !answered {
		s.router.Handler(ctx)
	}
}

// exchangeOf returns what begin has made.
func exchangeOf(ctx *fasthttp.RequestCtx) *exchange {
	return ctx.UserValue(exchangeKey).(*exchange)
}

// answerError answers with an error.
func (s *Server) answerError(ctx *fasthttp.RequestCtx, err error) {
	x := exchangeOf(ctx)
	x.err, x.outcome = err, outcomeOf(err)
	writeError(ctx, x.id, x.outcome)
}

// unreadable answers a request that could not be read far enough to get to handle. The server
// closes the connection after it.
func (s *Server) unreadable(ctx *fasthttp.RequestCtx, err error) {
	kind := readError(err)
	if crowdedOut(ctx) && errors.Is(kind, errReadTimeout) {
		kind = errTooManyConns // too little has come in the little time it had
	}
	x := &exchange{id: newRequestID(), start: time.Now(), unread: true, err: err, outcome: outcomeOf(kind)}
	ctx.Response.Reset()
	s.setHeaders(ctx, x.id)
	writeError(ctx, x.id, x.outcome)
	linger(ctx)
	s.log(ctx, x)
}

// refusal is a whole answer to a connection that there is no room for.
func (s *Server) refusal() []byte { return refusal(errTooManyConns, s.svc.Warning) }

// refusal is a whole answer, with status 503, to a connection that gets no further.
func refusal(err error, warning string) []byte {
	o, id := outcomeOf(err), newRequestID()
	body := appendError(nil, o, id)
	b := []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n")
	if warning != "" {
		b = append(b, headerWarning+": "+warning+"\r\n"...)
	}
	b = append(b, headerRequestID+": "+id+"\r\nRetry-After: "...)
	b = strconv.AppendInt(b, int64(o.retry), 10)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, body...)
}

// log writes the line of the request: no image, no prompt, nothing else that a client wrote but
// method and path.
func (s *Server) log(ctx *fasthttp.RequestCtx, x *exchange) {
	level := slog.LevelInfo
	if x.outcome.status >= 500 {
		level = slog.LevelWarn
	}
	background := context.Background()
	if !s.svc.Log.Enabled(background, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	if !x.unread {
		const maxPath = 200
		path := ctx.Path()
		attrs = append(attrs,
			slog.String("method", string(ctx.Method())),
			slog.String("path", string(path[:min(len(path), maxPath)])),
		)
	}
	attrs = append(attrs,
		slog.Int("status", ctx.Response.StatusCode()),
		slog.Float64("ms", float64(time.Since(x.start).Microseconds())/1000),
		slog.Int("bytes_in", x.received),
		slog.Int("bytes_out", len(ctx.Response.Body())),
		slog.String("request_id", x.id),
	)
	if x.err != nil {
		attrs = append(attrs, slog.String("code", x.outcome.code))
		var panicked *pipeline.PanicError
		if x.outcome.status >= 500 {
			attrs = append(attrs, slog.String("error", x.err.Error()))
		}
		if errors.As(x.err, &panicked) {
			level = slog.LevelError
			attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
		}
	}
	s.svc.Log.LogAttrs(background, level, "request", attrs...)
}

// requestID is the one that the client sent, when it is fit to be echoed and logged.
func requestID(h *fasthttp.RequestHeader) string {
	const longest = 128
	sent := h.Peek(headerRequestID)
	if len(sent) == 0 || len(sent) > longest {
		return newRequestID()
	}
	for _, c := range sent {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("-_.:/+=@~", c) < 0 {
			return newRequestID()
		}
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
