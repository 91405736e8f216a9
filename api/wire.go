package api

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	headerRequestID = "X-Request-Id"
	headerTimeout   = "X-Request-Timeout-Ms"
	headerWarning   = "X-Clip-Warning"
)

// ambiguous says that the request has two lengths. A server before this one may have taken the
// other, so that what follows would be read as a request of somebody else.
func ambiguous(h *fasthttp.RequestHeader) bool {
	if h.ContentLength() != -1 { // not chunked
		return false
	}
	lower, length := bytes.ToLower(h.RawHeaders()), []byte("content-length")
	return bytes.HasPrefix(lower, length) || bytes.Contains(lower, append([]byte("\n"), length...))
}

// timeout is how long the client is ready to wait, at most limit.
func timeout(h *fasthttp.RequestHeader, limit time.Duration) (time.Duration, error) {
	sent := h.Peek(headerTimeout)
	if len(sent) == 0 {
		return limit, nil
	}
	ms, err := strconv.ParseInt(string(sent), 10, 64)
	if errors.Is(err, strconv.ErrRange) && ms > 0 {
		return limit, nil
	}
	if err != nil || ms < 1 {
		return 0, fail(errInvalidRequest, headerTimeout+" must be a number of milliseconds, an integer of at least 1")
	}
	return min(limit, time.Duration(min(ms, limit.Milliseconds()+1))*time.Millisecond), nil
}

// serverTiming says in a response header where the time went, in milliseconds: read (JSON and
// base64), text (vectors of the prompts), queue (in front of the line), then for each stage of
// the line its name and, but for the first, name-wait (in the queue before it and while its
// batch was gathered), and last answer (its JSON).
func (r *request) serverTiming(answer time.Duration) {
	var space [512]byte
	b := space[:0]
	metric := func(name, suffix string, d time.Duration) {
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = append(append(b, name...), suffix...)
		b = appendMillis(append(b, ";dur="...), d)
	}
	metric("read", "", r.read)
	metric("text", "", r.result.TextTime)
	for i, stage := range r.result.Times {
		if stage.Stage == "" { // a text needs none
			break
		}
		if i == 0 {
			metric("queue", "", stage.Wait)
		} else {
			metric(stage.Stage, "-wait", stage.Wait)
		}
		metric(stage.Stage, "", stage.Work)
	}
	metric("answer", "", answer)
	r.ctx.Response.Header.SetBytesV("Server-Timing", b)
}
