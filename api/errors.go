package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/api/compat"
	"hailoclip/api/rawjson"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// kind is a kind of error, and what a client gets for it: an error of that kind is it, or wraps it. Errors of other
// packages have theirs in kinds.
type kind struct {
	status int
	code   string // stable: clients compare it
	text   string // the sentence; "" means that the error's own text is made for the client, ": " at the end that it follows
	retry  int    // seconds for Retry-After; 0 means none
}

func (k *kind) Error() string { return cmp.Or(k.text, k.code) }

// What can be wrong with a request, or with the moment it came.
var (
	errMalformed       = &kind{400, "malformed_request", "", 0}
	errInvalidJSON     = &kind{400, "invalid_json", "", 0}
	errInvalidRequest  = &kind{400, "invalid_request", "", 0}
	errInvalidPrompts  = &kind{400, "invalid_prompts", "", 0}
	errInvalidImage    = &kind{400, "invalid_image", "", 0}
	errNotFetched      = &kind{400, "invalid_image", "The image could not be fetched from image_url", 0} // why is none of the caller's business
	errUnauthorized    = &kind{401, "unauthorized", "", 0}
	errRevoked         = &kind{401, "unauthorized", "The key has been revoked", 0} // of what had begun with it
	errMayNot          = &kind{403, "not_allowed", "", 0}
	errConfiguration   = &kind{400, "invalid_configuration", "", 0} // to be loaded again
	errOrigin          = &kind{403, "origin_not_allowed", "", 0}
	errHost            = &kind{403, "host_not_allowed", "", 0}
	errNotFound        = &kind{404, "not_found", "", 0}
	errMethod          = &kind{405, "method_not_allowed", "", 0}
	errReadTimeout     = &kind{408, "read_timeout", "The request did not arrive in time", 0}
	errBodyTooLarge    = &kind{413, "body_too_large", "", 0}
	errImageTooLarge   = &kind{413, "image_too_large", "", 0}
	errMediaType       = &kind{415, "unsupported_media_type", "", 0}
	errBodyMemory      = &kind{429, "queue_full", "Too many large requests at once, try again later", 1}
	errQueueFull       = &kind{429, "queue_full", "The queue is full, try again later", 1}
	errKeyBusy         = &kind{429, "queue_full", "As much goes on with this key as may at once, try again later", 1}
	errUpgrade         = &kind{426, "upgrade_required", "", 0}
	errNotUTF8         = &kind{400, "invalid_json", "", 0} // of a message of text, which a WebSocket ends by
	errHeaderTooLarge  = &kind{431, "header_too_large", "", 0}
	errGone            = &kind{499, "client_gone", "The client has closed the connection", 0} // for the log
	errInternalFailure = &kind{500, "internal_error", internalSentence, 0}
	errEncodeText      = &kind{500, "encode_failed", "Failed to encode text", 0}
	errNoImage         = &kind{503, "unavailable", "The source gives no image, see the service's log for this request_id", 5}
	errNotReady        = &kind{503, "not_ready", "", 5}
	errStopping        = &kind{503, "stopping", "The service is stopping", 5}
	errUpstream        = &kind{503, "unavailable", "The server for what this one does not do has failed, see compat.immich.upstream", 5}
	errLoop            = &kind{503, "unavailable", "The request has come from here: compat.immich.upstream leads back", 5}
	errTooManyConns    = &kind{503, "too_many_connections", "Too many connections, try again later", 1}
	errDeadline        = &kind{504, "deadline_exceeded", "The deadline passed before the answer was ready", 0}
)

const internalSentence = "Internal error, see the service's log for this request_id"

// kinds says what errors of other packages mean. The first one that errors.Is counts, so that what explains another
// error comes before it.
var kinds = []struct {
	err error
	*kind
}{
	{rawjson.ErrInvalid, errInvalidJSON},
	{compat.ErrRequest, errInvalidRequest},
	{compat.ErrModel, &kind{404, "model_not_found", "", 0}},
	{compat.ErrUnavailable, &kind{503, "unavailable", "", 5}},
	{decode.ErrNotImage, errInvalidImage},
	{decode.ErrTruncated, errInvalidImage},
	{decode.ErrCorrupt, errInvalidImage},
	{resize.ErrTooExtreme, errInvalidImage},
	{stages.ErrRegion, errInvalidRequest},
	{decode.ErrTooManyPixels, errImageTooLarge},
	{decode.ErrTooMuchMemory, errImageTooLarge},
	{decode.ErrUnsupportedFormat, &kind{415, "unsupported_image", "", 0}},
	{pipeline.ErrDisplaced, errQueueFull},
	{pipeline.ErrQueueFull, errQueueFull},
	{pipeline.ErrSuperseded, &kind{429, "queue_full", "A newer image has taken the place of this one", 1}},
	{decode.ErrBusy, errQueueFull},
	{cache.ErrBusy, &kind{429, "queue_full", "Too many prompts wait to be encoded, try again later", 1}},
	{pipeline.ErrClosed, errStopping},
	{cache.ErrClosed, errStopping},
	{hailo.ErrClosed, errStopping},
	{clip.ErrNoSet, &kind{404, "prompt_set_not_found", "", 0}},
	{clip.ErrSetNotReady, &kind{409, "prompt_set_not_ready", "", 1}},
	{clip.ErrManaged, &kind{409, "managed_by_configuration", "", 0}},
	{clip.ErrSetsFull, &kind{409, "prompt_sets_full", "", 0}},
	{clip.ErrPrecondition, &kind{412, "precondition_failed", "", 0}},
	{clip.ErrSetsLost, &kind{503, "unavailable", "", 5}},
	{clip.ErrSetsAway, &kind{503, "fleet_unavailable", "", 5}},
	{source.ErrNoImages, errInvalidImage},
	{stream.ErrNoStream, &kind{404, "stream_not_found", "", 0}},
	{stream.ErrNoSource, &kind{404, "source_not_found", "", 0}},
	{stream.ErrEnded, &kind{404, "stream_not_found", "", 0}},
	{stream.ErrFed, &kind{409, "stream_busy", "", 0}},
	{stream.ErrPlaced, &kind{409, "stream_busy", "", 0}},
	{stream.ErrStreamsFull, &kind{429, "queue_full", "", 5}},
	{stream.ErrListenersFull, &kind{429, "queue_full", "", 5}},
	{stream.ErrStopping, errStopping},
	{stream.ErrLost, &kind{503, "unavailable", "", 5}},
	{event.ErrNoEvent, &kind{404, "event_not_found", "", 0}},
	{event.ErrLost, &kind{503, "unavailable", "", 5}},
	{hailo.ErrDeviceLost, &kind{503, "unavailable", "The encoder is not available: ", 5}},
	{pipeline.ErrDeadline, errDeadline},
	{context.DeadlineExceeded, errDeadline},
	{context.Canceled, errDeadline},
	{cache.ErrEncode, errEncodeText},
	{clip.ErrEncodeText, errEncodeText},
	{hailo.ErrEncode, &kind{500, "encode_failed", "Failed to encode image", 0}},
}

// outcome is what a client gets for an error.
type outcome struct {
	*kind
	err  error
	text string // the sentence
}

// outcomeOf is total: what nobody listed is an internal error.
func outcomeOf(err error) outcome {
	o := outcome{kind: errInternalFailure, err: err}
	var fault sets.Fault
	var address *source.Error
	switch {
	case errors.As(err, &o.kind):
	case errors.As(err, &fault):
		o.kind = errInvalidRequest
	case errors.As(err, &address): // that a definition has
		o.kind = errInvalidRequest
	default:
		for _, k := range kinds {
			if errors.Is(err, k.err) {
				o.kind = k.kind
				break
			}
		}
	}
	switch o.text = o.kind.text; {
	case fault.Field != "":
		o.text = strings.ReplaceAll(err.Error(), "\n", "; ") // there may be several, and fields keep their names
	case o.text == "":
		o.text = sentence(err)
	case strings.HasSuffix(o.text, ": "):
		o.text += err.Error()
	}
	return o
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
	kind *kind
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// fail makes an error of a kind. The text is shown to the client.
func fail(kind *kind, format string, args ...any) error {
	return &failure{kind: kind, text: fmt.Sprintf(format, args...)}
}

// readError says what kind of error it is that came up while a request was read.
func (c *conn) readError(err error) error {
	var netErr net.Error
	var small *fasthttp.ErrSmallBuffer
	late := c.late.Load() || errors.As(err, &netErr) && netErr.Timeout()
	switch place := c.place(); {
	case late && (place == overLimit || place == evicted): // too little has come in the little time it had
		return fmt.Errorf("%w: %w", errTooManyConns, err)
	case late:
		return fmt.Errorf("%w: %w", errReadTimeout, err)
	case errors.As(err, &small):
		return fail(errHeaderTooLarge, "The request line and the headers are too large")
	default:
		return fail(errMalformed, "The request is not valid HTTP or its body is incomplete")
	}
}

// writeError makes the answer for an error. body appends its body and returns its status.
func writeError(ctx *fasthttp.RequestCtx, o outcome, body func(b []byte) ([]byte, int)) {
	if o.status == fasthttp.StatusUnauthorized {
		ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, `Bearer realm="hailo-clip"`)
	}
	if o.retry > 0 {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(o.retry))
	}
	setJSON(ctx, func(b []byte) []byte {
		b, status := body(b)
		ctx.SetStatusCode(status)
		return b
	})
}
