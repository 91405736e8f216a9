package api

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
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
