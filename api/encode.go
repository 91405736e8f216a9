package api

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"hailoclip/cache"
	"hailoclip/stages"
)

// answerWork is setJSON for a request with work in it, with a header that says what took how long.
func answerWork(ctx *fasthttp.RequestCtx, w *work, build func([]byte) []byte) {
	start := time.Now()
	setJSON(ctx, build)
	serverTiming(ctx, w, time.Since(start))
}

// setJSON builds the body of the answer in the buffer that the response already has.
func setJSON(ctx *fasthttp.RequestCtx, build func([]byte) []byte) {
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SwapBody(build(ctx.Response.SwapBody(nil)[:0]))
}

// appendError appends {"error": ..., "code": ..., "request_id": ...}.
func appendError(b []byte, o outcome, id string) []byte {
	b = append(b, `{"error":`...)
	b = appendString(b, o.text)
	b = append(b, `,"code":`...)
	b = appendString(b, o.code)
	b = append(b, `,"request_id":`...)
	b = appendString(b, id)
	return append(b, '}')
}

// classification is the answer of /v1/classify.
type classification struct {
	prompts    []string
	vectors    []cache.Vector // of the prompts
	matches    []stages.Match
	logitScale float64
	inference  time.Duration
	model, id  string
}

func (c *classification) appendJSON(b []byte) []byte {
	b = append(b, `{"classifications":[`...)
	for i, m := range c.matches {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"text":`...)
		b = appendString(b, c.prompts[m.Prompt])
		b = append(b, `,"score":`...)
		b = appendFloat(b, m.Score)
		b = append(b, `,"rank":`...)
		b = strconv.AppendInt(b, int64(i+1), 10)
		b = append(b, `,"cosine":`...)
		b = appendFloat(b, m.Cosine)
		b = append(b, `,"probability":`...)
		b = appendFloat(b, m.Probability)
		if c.vectors[m.Prompt].Truncated {
			b = append(b, `,"truncated":true`...)
		}
		b = append(b, '}')
	}
	b = append(b, `],"inference_time_ms":`...)
	b = appendMillis(b, c.inference)
	b = append(b, `,"logit_scale":`...)
	b = appendFloat(b, c.logitScale)
	return appendTail(b, c.model, c.id)
}

// embedding is the answer of /v1/embed/image and /v1/embed/text.
type embedding struct {
	vector    []float32
	text      bool // has tokens and truncated
	tokens    int
	truncated bool
	inference time.Duration
	model, id string
}

func (e *embedding) appendJSON(b []byte) []byte {
	b = append(b, `{"embedding":[`...)
	for i, v := range e.vector {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(v), 'g', -1, 32)
	}
	b = append(b, `],"dimension":`...)
	b = strconv.AppendInt(b, int64(len(e.vector)), 10)
	if e.text {
		b = append(b, `,"tokens":`...)
		b = strconv.AppendInt(b, int64(e.tokens), 10)
		b = append(b, `,"truncated":`...)
		b = strconv.AppendBool(b, e.truncated)
	}
	b = append(b, `,"inference_time_ms":`...)
	b = appendMillis(b, e.inference)
	return appendTail(b, e.model, e.id)
}

// appendTail appends what ends every good answer.
func appendTail(b []byte, model, id string) []byte {
	b = append(b, `,"model":`...)
	b = appendString(b, model)
	b = append(b, `,"request_id":`...)
	b = appendString(b, id)
	return append(b, '}')
}

// finite says whether JSON can carry the numbers.
func finite[F float32 | float64](numbers ...F) bool {
	for _, n := range numbers {
		if n-n != 0 { // infinite or not a number
			return false
		}
	}
	return true
}

// appendFloat appends the shortest number that reads back as f, which must be finite.
func appendFloat(b []byte, f float64) []byte { return strconv.AppendFloat(b, f, 'g', -1, 64) }

// appendMillis appends d in milliseconds, to the microsecond.
func appendMillis(b []byte, d time.Duration) []byte {
	return appendFloat(b, math.Round(float64(d)/float64(time.Microsecond))/1000)
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD; U+2028 and
// U+2029 are escaped, because JavaScript once took them for line ends.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	plain := 0 // s[plain:i] needs no escape and is not appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[plain:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			plain = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[plain:i]...), `\ufffd`...)
			plain = i + size
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[plain:i]...), `\u202`...)
			b = append(b, hex[r&15])
			plain = i + size
		}
		i += size
	}
	b = append(b, s[plain:]...)
	return append(b, '"')
}
