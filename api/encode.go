package api

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"hailoclip/cache"
	"hailoclip/stages/clip"
)

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

// answer answers a request that was worked on with fields and what every good answer ends with. A header says what took
// how long.
func (s *Server) answer(ctx *fasthttp.RequestCtx, x *exchange, w *work, fields func(b []byte, took time.Duration) []byte) {
	start := time.Now()
	setJSON(ctx, func(b []byte) []byte {
		b = fields(append(b, '{'), start.Sub(w.began))
		b = append(b, `,"model":`...)
		b = appendString(b, s.svc.Engine.Model())
		b = append(b, `,"request_id":`...)
		b = appendString(b, x.id)
		return append(b, '}')
	})
	serverTiming(ctx, w, time.Since(start))
}

// appendClassification appends the fields of an answer of /v1/classify.
func appendClassification(b []byte, prompts []string, r *clip.Result, logitScale float64, took time.Duration) []byte {
	b = append(b, `"classifications":[`...)
	for i, m := range r.Matches {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"text":`...)
		b = appendString(b, prompts[m.Prompt])
		b = append(b, `,"score":`...)
		b = appendFloat(b, m.Score)
		b = append(b, `,"rank":`...)
		b = strconv.AppendInt(b, int64(i+1), 10)
		b = append(b, `,"cosine":`...)
		b = appendFloat(b, m.Cosine)
		b = append(b, `,"probability":`...)
		b = appendFloat(b, m.Probability)
		if r.Prompts.Rows[m.Prompt].Truncated {
			b = append(b, `,"truncated":true`...)
		}
		b = append(b, '}')
	}
	b = append(b, `],"inference_time_ms":`...)
	b = appendMillis(b, took)
	b = append(b, `,"logit_scale":`...)
	return appendFloat(b, logitScale)
}

// appendEmbedding appends the fields of an answer of /v1/embed/image, and with text of /v1/embed/text.
func appendEmbedding(b []byte, vector []float32, text *cache.Vector, took time.Duration) []byte {
	b = append(b, `"embedding":[`...)
	for i, v := range vector {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(v), 'g', -1, 32)
	}
	b = append(b, `],"dimension":`...)
	b = strconv.AppendInt(b, int64(len(vector)), 10)
	if text != nil {
		b = append(b, `,"tokens":`...)
		b = strconv.AppendInt(b, int64(text.Tokens), 10)
		b = append(b, `,"truncated":`...)
		b = strconv.AppendBool(b, text.Truncated)
	}
	b = append(b, `,"inference_time_ms":`...)
	return appendMillis(b, took)
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
