package api

import (
	"bytes"
	"cmp"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/rawjson"
	"hailoclip/pipeline"
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
	b = rawjson.AppendString(b, o.text)
	b = append(b, `,"code":`...)
	b = rawjson.AppendString(b, o.code)
	b = append(b, `,"request_id":`...)
	b = rawjson.AppendString(b, id)
	return append(b, '}')
}

// result returns what writes the answer of a request that the engine has answered: fields, what every good answer ends with, and
// the header Server-Timing.
func result(fields func(b []byte, r *request, took time.Duration) []byte) func(*request) error {
	return func(r *request) error {
		start := time.Now()
		err := r.answerBuilt(func(b []byte) []byte {
			return appendEnd(fields(append(b, '{'), r, start.Sub(r.arrived)), r, start)
		})
		r.serverTiming(time.Since(start))
		return err
	}
}

// appendEnd appends what every good answer ends with. start is when the writing of the answer began.
func appendEnd(b []byte, r *request, start time.Time) []byte {
	if r.timings {
		r.took = time.Since(start)
		b = appendTimings(b, r.eachTiming)
	}
	b = append(b, `,"model":`...)
	b = rawjson.AppendString(b, r.server.svc.Engine.Model())
	b = append(b, `,"request_id":`...)
	b = rawjson.AppendString(b, r.id)
	return append(b, '}')
}

// timing is called with the time of a stage. The name of the stage is name and suffix, which is "" or "-wait".
type timing func(name, suffix string, d time.Duration)

// eachTiming calls do for read (the JSON and base64 of the request), fetch (of an image from elsewhere), text (the vectors of the
// prompts), the stages of eachStage and answer (the JSON of the answer), in this order.
func (r *request) eachTiming(do timing) {
	do("read", "", r.read)
	if r.coming > 0 {
		do("fetch", "", r.coming)
	}
	do("text", "", r.result.TextTime)
	eachStage(r.result.Times[:], do)
	do("answer", "", r.took)
}

// eachStage calls do for the times of an image in the line: queue (the wait for the first stage), and for each stage its work
// and, from the second on, before it "-wait": in the queue and while its batch was gathered. An image that was encoded elsewhere
// has waited for none of them.
func eachStage(times []pipeline.StageTime, do timing) {
	waits := times[0].Stage != clip.StageElsewhere
	for i, stage := range times {
		if stage.Stage == "" { // a text needs none
			break
		}
		switch {
		case !waits:
		case i == 0:
			do("queue", "", stage.Wait)
		default:
			do(stage.Stage, "-wait", stage.Wait)
		}
		do(stage.Stage, "", stage.Work)
	}
}

// appendTimings appends the object "timings", in milliseconds, of the times that each reports.
func appendTimings(b []byte, each func(timing)) []byte {
	b = append(b, `,"timings":{`...)
	separator := `"`
	each(func(name, suffix string, d time.Duration) {
		b = append(append(b, separator...), name...)
		if suffix != "" {
			b = append(append(b, '_'), suffix[1:]...)
		}
		b = appendMillis(append(b, `":`...), d)
		separator = `,"`
	})
	return append(b, '}')
}

// appendImageTimings appends the timings of one image of a batch, if the request asks for timings.
func (r *request) appendImageTimings(b []byte, times []pipeline.StageTime) []byte {
	if !r.timings {
		return b
	}
	return appendTimings(b, func(do timing) { eachStage(times, do) })
}

// serverTiming sets the header Server-Timing to the times of eachTiming, in milliseconds. answer is how long the writing of the
// answer took, unless the body has said that already.
func (r *request) serverTiming(answer time.Duration) {
	r.took = cmp.Or(r.took, answer)
	var space [512]byte
	b := space[:0]
	r.eachTiming(func(name, suffix string, d time.Duration) {
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = append(append(b, name...), suffix...)
		b = appendMillis(append(b, ";dur="...), d)
	})
	r.ctx.Response.Header.SetBytesV("Server-Timing", b)
}

// appendClassification appends the fields of an answer of /v1/classify.
func appendClassification(b []byte, r *request, took time.Duration) []byte {
	return appendScoring(appendMatches(b, r.texts, &r.result), r, took)
}

// appendScoring appends what the classifications of a request have in common; r.result has the set.
func appendScoring(b []byte, r *request, took time.Duration) []byte {
	scale := r.server.svc.Engine.LogitScale()
	if set := r.result.Set; set != nil {
		b = append(rawjson.AppendString(append(b, `,"prompt_set":`...), set.Name), `,"etag":`...)
		b = append(rawjson.AppendString(b, set.ETag), `,"score_source":`...)
		b = append(rawjson.AppendString(b, set.ScoreSource), `,"temperature":`...)
		b = rawjson.AppendFloat(b, cmp.Or(set.Scoring.Temperature, 1))
		scale = set.Scoring.LogitScale
	}
	b = append(b, `,"inference_time_ms":`...)
	b = appendMillis(b, took)
	b = append(b, `,"logit_scale":`...)
	return rawjson.AppendFloat(b, scale)
}

// appendMatches appends what one image was found to show: of texts, or of the labels of the set that has answered.
func appendMatches(b []byte, texts []string, r *clip.Result) []byte {
	set := r.Set
	if set != nil {
		texts = set.Names
	}
	b = append(b, `"classifications":[`...)
	for i, m := range r.Matches {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"text":`...)
		b = rawjson.AppendString(b, texts[m.Label])
		b = append(b, `,"score":`...)
		b = rawjson.AppendFloat(b, m.Score)
		b = append(b, `,"rank":`...)
		b = strconv.AppendInt(b, int64(i+1), 10)
		b = append(b, `,"cosine":`...)
		b = rawjson.AppendFloat(b, m.Cosine)
		b = append(b, `,"probability":`...)
		b = rawjson.AppendFloat(b, m.Probability)
		if set != nil && set.Thresholds[m.Label] != nil {
			b = append(b, `,"above_threshold":`...)
			b = strconv.AppendBool(b, m.Score >= set.Thresholds[m.Label].Enter)
		}
		if set != nil && set.Truncated[m.Label] || set == nil && r.Prompts.Rows[m.Label].Truncated {
			b = append(b, `,"truncated":true`...)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	if set != nil {
		b = append(b, `,"matched":`...)
		b = strconv.AppendBool(b, r.Reason == "")
		if r.Reason != "" {
			b = append(b, `,"reason":`...)
			b = rawjson.AppendString(b, string(r.Reason))
		}
	}
	return b
}

// appendEmbedding appends the fields of an answer of /v1/embed/image, and of /v1/embed/text, where there is a text.
func appendEmbedding(b []byte, r *request, took time.Duration) []byte {
	b = appendVector(b, r.result.Embedding, r.vectors)
	b = append(b, `,"dimension":`...)
	b = strconv.AppendInt(b, int64(len(r.result.Embedding)), 10)
	if r.result.Prompts != nil {
		b = append(b, `,"tokens":`...)
		b = strconv.AppendInt(b, int64(r.result.Prompts.Rows[0].Tokens), 10)
		b = append(b, `,"truncated":`...)
		b = strconv.AppendBool(b, r.result.Prompts.Rows[0].Truncated)
	}
	b = append(b, `,"inference_time_ms":`...)
	return appendMillis(b, took)
}

// appendMillis appends d in milliseconds, to the microsecond.
func appendMillis(b []byte, d time.Duration) []byte {
	us := d.Round(time.Microsecond).Microseconds()
	if us < 0 || us >= 1e9 {
		return rawjson.AppendFloat(b, float64(us)/1000)
	}
	// As appendFloat does, for a fraction of its time: every answer has a dozen of them.
	b = strconv.AppendInt(b, us/1000, 10)
	if part := us % 1000; part > 0 {
		b = append(b, '.', byte('0'+part/100), byte('0'+part/10%10), byte('0'+part%10))
		b = bytes.TrimRight(b, "0")
	}
	return b
}
