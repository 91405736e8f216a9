package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// What can be wrong with a request, or with the moment it came. The errors of the other
// packages that a handler can meet are in outcomes, below.
var (
	errMalformed       = errors.New("malformed HTTP request")
	errInvalidJSON     = errors.New("invalid JSON")
	errInvalidRequest  = errors.New("invalid request")
	errInvalidImage    = errors.New("invalid image")
	errInvalidPrompts  = errors.New("invalid prompts")
	errNotFound        = errors.New("not found")
	errMethod          = errors.New("method not allowed")
	errReadTimeout     = errors.New("the request did not arrive in time")
	errBodyTooLarge    = errors.New("the body is too large")
	errBodyMemory      = errors.New("no memory is left for bodies")
	errMediaType       = errors.New("unsupported media type")
	errHeaderTooLarge  = errors.New("the headers are too large")
	errNotReady        = errors.New("the service is not ready")
	errStopping        = errors.New("the service is stopping")
	errTooManyConns    = errors.New("too many connections")
	errGone            = errors.New("the client is gone")
	errOrigin          = errors.New("origin not allowed")
	errHost            = errors.New("host not allowed")
	errInternalFailure = errors.New("internal error")
)

// outcome is what a client gets for an error.
type outcome struct {
	err    error
	status int
	code   string // stable: clients compare it
	text   string // the sentence; "" means that the error's own text is made for the client, ": " at the end that it follows
	retry  int    // seconds for Retry-After; 0 means none
}

// outcomes is the one place where errors become statuses. The first one that errors.Is counts,
// so that what explains another error comes before it.
var outcomes = []outcome{
	{errMalformed, 400, "malformed_request", "", 0},
	{errInvalidJSON, 400, "invalid_json", "", 0},
	{errInvalidRequest, 400, "invalid_request", "", 0},
	{errInvalidPrompts, 400, "invalid_prompts", "", 0},
	{errInvalidImage, 400, "invalid_image", "", 0},
	{decode.ErrNotImage, 400, "invalid_image", "", 0},
	{decode.ErrTruncated, 400, "invalid_image", "", 0},
	{decode.ErrCorrupt, 400, "invalid_image", "", 0},
	{resize.ErrTooExtreme, 400, "invalid_image", "", 0},
	{errOrigin, 403, "origin_not_allowed", "", 0},
	{errHost, 403, "host_not_allowed", "", 0},
	{errNotFound, 404, "not_found", "", 0},
	{errMethod, 405, "method_not_allowed", "", 0},
	{errReadTimeout, 408, "read_timeout", "The request did not arrive in time", 0},
	{errBodyTooLarge, 413, "body_too_large", "", 0},
	{decode.ErrTooManyPixels, 413, "image_too_large", "", 0},
	{decode.ErrTooMuchMemory, 413, "image_too_large", "", 0},
	{errMediaType, 415, "unsupported_media_type", "", 0},
	{decode.ErrUnsupportedFormat, 415, "unsupported_image", "", 0},
	{errBodyMemory, 429, "queue_full", "Too many large requests at once, try again later", 1},
	{pipeline.ErrQueueFull, 429, "queue_full", "The queue is full, try again later", 1},
	{pipeline.ErrSuperseded, 429, "queue_full", "A newer image has taken the place of this one", 1},
	{decode.ErrBusy, 429, "queue_full", "The queue is full, try again later", 1},
	{cache.ErrBusy, 429, "queue_full", "Too many prompts wait to be encoded, try again later", 1},
	{errGone, 499, "client_gone", "The client has closed the connection", 0}, // for the log
	{errHeaderTooLarge, 431, "header_too_large", "", 0},
	{errNotReady, 503, "not_ready", "", 5},
	{errStopping, 503, "stopping", "The service is stopping", 5},
	{pipeline.ErrClosed, 503, "stopping", "The service is stopping", 5},
	{cache.ErrClosed, 503, "stopping", "The service is stopping", 5},
	{hailo.ErrClosed, 503, "stopping", "The service is stopping", 5},
	{hailo.ErrDeviceLost, 503, "unavailable", "The encoder is not available: ", 5},
	{errTooManyConns, 503, "too_many_connections", "Too many connections, try again later", 1},
	{pipeline.ErrDeadline, 504, "deadline_exceeded", "The deadline passed before the answer was ready", 0},
	{context.DeadlineExceeded, 504, "deadline_exceeded", "The deadline passed before the answer was ready", 0},
	{context.Canceled, 504, "deadline_exceeded", "The deadline passed before the answer was ready", 0},
	{cache.ErrEncode, 500, "encode_failed", "Failed to encode text", 0},
	{clip.ErrEncodeText, 500, "encode_failed", "Failed to encode text", 0},
	{hailo.ErrEncode, 500, "encode_failed", "Failed to encode image", 0},
	{errInternalFailure, 500, "internal_error", internalSentence, 0},
}

const internalSentence = "Internal error, see the service's log for this request_id"

// outcomeOf is total: what nobody listed is an internal error.
func outcomeOf(err error) outcome {
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			if o.text == "" {
				o.text = sentence(err)
			} else if strings.HasSuffix(o.text, ": ") {
				o.text += err.Error()
			}
			return o
		}
	}
	return outcomeOf(errInternalFailure)
}

// sentence is the error's text with a capital letter, unless it begins with the name of a field.
func sentence(err error) string {
	text := err.Error()
	word, _, _ := strings.Cut(text, " ")
	if text == "" || strings.ContainsAny(word, "_[") {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// failure is an error whose text is for the client.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// fail makes an error of a kind that is in outcomes. The text is shown to the client.
func fail(kind error, format string, args ...any) error {
	return &failure{kind: kind, text: fmt.Sprintf(format, args...)}
}

// readError says what kind of error it is that came up while a request was read.
func readError(err error) error {
	var netErr net.Error
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("%w: %w", errReadTimeout, err)
	case errors.As(err, &small):
		return fail(errHeaderTooLarge, "The request line and the headers are too large")
	default:
		return fail(errMalformed, "The request is not valid HTTP or its body is incomplete")
	}
}

// writeError makes the answer for an error.
func writeError(ctx *fasthttp.RequestCtx, id string, o outcome) {
	ctx.SetStatusCode(o.status)
	if o.retry > 0 {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(o.retry))
	}
	setJSON(ctx, func(b []byte) []byte { return appendError(b, o, id) })
}
