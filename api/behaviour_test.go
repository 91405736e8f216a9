package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/stream/event"
	"hailoclip/hailo"
	"hailoclip/stages/clip"
)

// three prompts, of which the second is what the image shows.
var threePrompts = []string{"a photo of a dog", goodImage, "a photo of a cat"}

func TestClassify(t *testing.T) {
	s := serve(t, nil)
	r := s.post(t, "/v1/classify", classifyBody(goodImage, `,"top_k":2`, threePrompts...))
	var a classifyAnswer
	r.into(t, &a)
	if r.status != 200 || len(a.Classifications) != 2 || a.Model != testModel || a.LogitScale != testLogitScale {
		t.Fatalf("got %d %s", r.status, r.body)
	}
	best := a.Classifications[0]
	if best.Text != goodImage || best.Rank != 1 || math.Abs(best.Cosine-1) > 1e-5 || best.Score != best.Probability || best.Score < 0.99 {
		t.Errorf("first is %+v", best)
	}
	if second := a.Classifications[1]; second.Rank != 2 || second.Score > best.Score {
		t.Errorf("second is %+v", second)
	}
	if a.InferenceTimeMS == nil || *a.InferenceTimeMS < 0 || a.RequestID == "" || a.RequestID != r.header.Get("X-Request-Id") {
		t.Errorf("header X-Request-Id %q with %s", r.header.Get("X-Request-Id"), r.body)
	}
	for _, metric := range []string{"read;dur=", "text;dur=", "queue;dur=", "decode;dur=", "encode-wait;dur=", "encode;dur=", "answer;dur="} {
		if !strings.Contains(r.header.Get("Server-Timing"), metric) {
			t.Errorf("Server-Timing %q lacks %q", r.header.Get("Server-Timing"), metric)
		}
	}
}

// likeGoodImage returns a text whose cosine with goodImage is beyond the bound, which must be a small one: two random
// directions in 512 dimensions are all but at right angles.
func likeGoodImage(bound float64) string {
	for i := 0; ; i++ {
		if text := fmt.Sprint("text ", i); dot(testVector(text), testVector(goodImage))/bound > 1 {
			return text
		}
	}
}

// TestNoThresholdCutsNothing: neither one prompt with a negative cosine nor, without softmax, many. Without it the score
// is the cosine.
func TestNoThresholdCutsNothing(t *testing.T) {
	negative := likeGoodImage(-0.01)
	for softmax, prompts := range map[bool][]string{true: {negative}, false: {goodImage, negative}} {
		s := serve(t, func(_ *Config, svc *Service) {
			svc.Engine = testEngine(t, newDevice(), func(c *clip.Config, _ *clip.Parts) { c.ApplySoftmax = softmax })
		})
		for more, want := range map[string]int{"": len(prompts), `,"threshold":null`: len(prompts), `,"threshold":0`: len(prompts) - 1} {
			var a classifyAnswer
			s.post(t, "/v1/classify", classifyBody(goodImage, more, prompts...)).into(t, &a)
			if len(a.Classifications) != want {
				t.Errorf("softmax %v%s: %d matches of %d prompts, want %d", softmax, more, len(a.Classifications), len(prompts), want)
			}
			for _, c := range a.Classifications {
				if !softmax && c.Score != c.Cosine {
					t.Errorf("score %v is not the cosine %v", c.Score, c.Cosine)
				}
			}
		}
	}
}

// TestAccepted has every row of the specification that is answered with 200.
func TestAccepted(t *testing.T) {
	s := serve(t, nil)
	image, all := b64(goodImage), strings.Join(threePrompts, `","`)
	body := func(image string) string { return fmt.Sprintf(`{"image":"%s","prompts":["%s"]}`, image, all) }
	cases := []struct {
		name, body string
		want       []string // texts; nil means all three
		headers    []string
	}{
		{name: "plain base64", body: body(image)},
		{name: "data URI", body: body("data:image/jpeg;base64," + image)},
		{name: "data URI with another MIME type and parameters", body: body("DATA:text/plain;charset=x;BASE64," + image)},
		{name: "data URI without a MIME type", body: body("data:;base64," + image)},
		{name: "line breaks and spaces", body: body(" " + image[:5] + `\r\n` + image[5:7] + `\t ` + image[7:] + `\n`)},
		{name: "missing padding", body: body(strings.TrimRight(image, "="))},
		{name: "escaped slashes and letters", body: body(`\u` + fmt.Sprintf("%04x", image[0]) + strings.ReplaceAll(image[1:], "/", `\/`))},
		{name: "unknown fields", body: `{"x":{"y":[1,2,{}]},"image":"` + image + `","prompts":["` + all + `"],"z":null}`},
		{name: "field names in another case", body: `{"IMAGE":"` + image + `","Prompts":["` + all + `"]}`},
		{name: "a field twice: the last one", body: `{"image":5,"prompts":["x"],"image":"` + image + `","prompts":["` + all + `"]}`},
		{name: "white space around everything", body: " \r\n\t{ \"image\" : \"" + image + "\" , \"prompts\" : [ \"" + all + "\" ] } \n"},
		{name: "top_k missing is 3", body: body(image)},
		{name: "top_k null is 3", body: classifyBody(goodImage, `,"top_k":null`, threePrompts...)},
		{name: "top_k 2.0 is an integer", body: classifyBody(goodImage, `,"top_k":2.0`, threePrompts[1], threePrompts[1], "x"), want: []string{goodImage, goodImage}},
		{name: "top_k 1e0 is an integer", body: classifyBody(goodImage, `,"top_k":1e0`, threePrompts...), want: []string{goodImage}},
		{name: "top_k above the number of prompts", body: classifyBody(goodImage, `,"top_k":1e300`, threePrompts...)},
		{name: "a byte order mark", body: "\xef\xbb\xbf" + body(image)},
		{name: "white space in a data URI's head", body: body("data:image/png ; base64 ," + image)},
		{name: "white space at the end of a prompt does not count", body: classifyBody(goodImage, "", "x"+strings.Repeat(" ", 3000)), want: []string{"x" + strings.Repeat(" ", 3000)}},
		{name: "threshold null cuts nothing", body: classifyBody(goodImage, `,"threshold":null`, threePrompts...)},
		{name: "threshold filters on score", body: classifyBody(goodImage, `,"threshold":0.5`, threePrompts...), want: []string{goodImage}},
		{name: "threshold 1 filters all", body: classifyBody("another", `,"threshold":1`, threePrompts...), want: []string{}},
		{name: "duplicate prompts are kept, in input order", body: classifyBody(goodImage, "", "same", goodImage, "same"), want: []string{goodImage, "same", "same"}},
		{name: "top_k cuts after the order", body: classifyBody(goodImage, `,"top_k":1`, threePrompts...), want: []string{goodImage}},
		{name: "charset", body: body(image), headers: []string{"Content-Type", "application/json; charset=utf-8"}},
		{name: "media type in capitals", body: body(image), headers: []string{"Content-Type", "Application/JSON"}},
		{name: "+json", body: body(image), headers: []string{"Content-Type", "application/vnd.api+json;charset=UTF-8"}},
		{name: "missing content type", body: body(image), headers: []string{"Content-Type", ""}},
		{name: "identity coding", body: body(image), headers: []string{"Content-Encoding", "identity"}},
		{name: "image_url null", body: classifyBody(goodImage, `,"image_url":null`, threePrompts...)},
		{name: "timeout longer than ours", body: body(image), headers: []string{headerTimeout, "99999999999999999999"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := s.post(t, "/v1/classify", c.body, c.headers...)
			var a classifyAnswer
			r.into(t, &a)
			got := a.texts()
			if c.want == nil {
				c.want = threePrompts
				slices.Sort(got)
				c.want = slices.Sorted(slices.Values(c.want))
			}
			if r.status != 200 || !slices.Equal(got, c.want) {
				t.Errorf("got %d %s, want %q", r.status, r.body, c.want)
			}
		})
	}
}

// One prompt: its softmax is always 1, so its score is the cosine.
func TestOnePromptScoresItsCosine(t *testing.T) {
	s := serve(t, nil)
	image := likeGoodImage(0.01)
	var a classifyAnswer
	s.post(t, "/v1/classify", classifyBody(image, "", goodImage)).into(t, &a)
	if c := a.Classifications[0]; c.Score != c.Cosine || c.Score > 0.5 || c.Probability != 1 {
		t.Errorf("got %+v", c)
	}
}

// TestRefused has every row of the specification that is not answered with 200, except those
// about time, which are in limits_test.go. They are for /v1/classify, if they name no other path.
func TestRefused(t *testing.T) {
	s := serve(t, nil)
	image := b64(goodImage)
	withImage := func(image string) string { return `{"image":` + image + `,"prompts":["x"]}` }
	withPrompts := func(prompts string) string { return `{"image":"` + image + `","prompts":` + prompts + `}` }
	with := func(more string) string { return classifyBody(goodImage, more, "x", "y") }
	many := strings.Repeat(`"x",`, 1000) + `"x"`
	const noPrompts = "Missing or invalid 'prompts' array"
	cases := []struct {
		name, body string
		status     int
		code       string
		sentence   string
		headers    []string
	}{
		{"image missing", `{"prompts":["x"]}`, 400, "invalid_image", "Missing 'image'", nil},
		{"image null", withImage(`null`), 400, "invalid_image", "Missing 'image'", nil},
		{"image empty", withImage(`""`), 400, "invalid_image", "Missing 'image'", nil},
		{"image a number", withImage(`5`), 400, "invalid_image", "must be a string", nil},
		{"image an object", withImage(`{"a":1}`), 400, "invalid_image", "must be a string", nil},
		{"image only spaces", withImage(`"   "`), 400, "invalid_image", "'image' is empty", nil},
		{"image an empty data URI", withImage(`"data:image/png;base64,"`), 400, "invalid_image", "'image' is empty", nil},
		{"junk in base64", withImage(`"AAAA!AAA"`), 400, "invalid_image", `not valid base64: unexpected "!" at character 5`, nil},
		{"cut base64", withImage(`"AAAAA"`), 400, "invalid_image", "not valid base64", nil},
		{"too little padding", withImage(`"QUJDRA="`), 400, "invalid_image", "not valid base64", nil},
		{"data after padding", withImage(`"QQ==QQ=="`), 400, "invalid_image", `unexpected "Q" at character 5`, nil},
		{"data URI without a comma", withImage(`"data:image/png;base64"`), 400, "invalid_image", "without a comma", nil},
		{"data URI not base64", withImage(`"data:image/svg+xml,<svg/>"`), 400, "invalid_image", "not base64", nil},
		{"not an image", withImage(`"` + b64(notAnImage) + `"`), 400, "invalid_image", "Not an image: starts with", nil},
		{"truncated JPEG", withImage(`"` + b64(truncatedImage) + `"`), 400, "invalid_image", "Truncated image: BMP", nil},
		{"UTF-16 with a mark", "\xff\xfe{\x00}\x00", 400, "invalid_json", "UTF-16: send JSON as UTF-8", nil},
		{"UTF-16, big-endian", "\x00{\x00}", 400, "invalid_json", "UTF-16", nil},
		{"UTF-32", "{\x00\x00\x00}\x00\x00\x00", 400, "invalid_json", "UTF-32", nil},
		{"invalid UTF-8 in a prompt", "{\"image\":\"" + image + "\",\"prompts\":[\"caf\xe9\"]}", 400, "invalid_json", "not valid UTF-8, at byte", nil},
		{"invalid UTF-8 where nobody looks", "{\"image\":\"" + image + "\",\"prompts\":[\"x\"],\"y\":{\"\xed\xa0\x80\":1}}", 400, "invalid_json", "not valid UTF-8", nil},
		{"image_url", `{"image_url":"http://x/y.jpg","prompts":["x"]}`, 400, "invalid_request", "image_url is not supported, send the image", nil},
		{"image_url and nothing else", `{"image_url":"http://x/y.jpg"}`, 400, "invalid_request", "image_url is not supported, send the image", nil},
		{"image_url beside an image", with(`,"image_url":{"url":1}`), 400, "invalid_request", "image_url is not supported, send the image", nil},
		{"too many pixels", withImage(`"` + b64(hugeImage) + `"`), 413, "image_too_large", "20000 x 20000", nil},
		{"unsupported format", withImage(`"` + b64(avifImage) + `"`), 415, "unsupported_image", "AVIF (accepted: JPEG", nil},

		{"prompts missing", `{"image":"` + image + `"}`, 400, "invalid_prompts", noPrompts, nil},
		{"prompts null", withPrompts(`null`), 400, "invalid_prompts", noPrompts, nil},
		{"prompts a string", withPrompts(`"a, b"`), 400, "invalid_prompts", noPrompts, nil},
		{"prompts an object", withPrompts(`{"a":"b"}`), 400, "invalid_prompts", noPrompts, nil},
		{"prompts empty", withPrompts(`[ ]`), 400, "invalid_prompts", noPrompts, nil},
		{"a prompt a number", withPrompts(`["a, [\"b\"]",["c"],"d"]`), 400, "invalid_prompts", "prompts[1] is empty or not a string", nil},
		{"a prompt null", withPrompts(`["a","b",null]`), 400, "invalid_prompts", "prompts[2] is empty or not a string", nil},
		{"a prompt false", withPrompts(`[false]`), 400, "invalid_prompts", "prompts[0] is empty or not a string", nil},
		{"a prompt empty", withPrompts(`["a",""]`), 400, "invalid_prompts", "prompts[1] is empty", nil},
		{"a prompt only spaces", withPrompts(`["a"," \t\n\u00a0","b"]`), 400, "invalid_prompts", "prompts[1] is empty", nil},
		{"too many prompts", withPrompts(`[` + many + `]`), 400, "invalid_prompts", "1001, at most 1000", nil},
		{"a prompt too long", withPrompts(`["a","` + strings.Repeat("x", 2049) + `"]`), 400, "invalid_prompts", "prompts[1] is too long: 2049 bytes, at most 2048", nil},

		{"top_k zero", with(`,"top_k":0`), 400, "invalid_request", "'top_k'", nil},
		{"top_k negative", with(`,"top_k":-1`), 400, "invalid_request", "'top_k'", nil},
		{"top_k 2.5", with(`,"top_k":2.5`), 400, "invalid_request", "'top_k'", nil},
		{"top_k a string", with(`,"top_k":"3"`), 400, "invalid_request", "'top_k'", nil},
		{"top_k true", with(`,"top_k":true`), 400, "invalid_request", "'top_k'", nil},
		{"top_k an array", with(`,"top_k":[1]`), 400, "invalid_request", "'top_k'", nil},
		{"top_k beyond any number", with(`,"top_k":1e999`), 400, "invalid_request", "'top_k'", nil},
		{"threshold below 0", with(`,"threshold":-0.1`), 400, "invalid_request", "'threshold'", nil},
		{"threshold above 1", with(`,"threshold":1.001`), 400, "invalid_request", "'threshold'", nil},
		{"threshold a string", with(`,"threshold":"0.5"`), 400, "invalid_request", "'threshold'", nil},
		{"threshold false", with(`,"threshold":false`), 400, "invalid_request", "'threshold'", nil},

		{"empty body", "", 400, "invalid_json", "The body is empty", nil},
		{"blank body", " \n", 400, "invalid_json", "The body is empty", nil},
		{"cut JSON", `{"image":"`, 400, "invalid_json", "The body is not valid JSON: unexpected end of JSON input", nil},
		{"text behind the object", with("") + "x", 400, "invalid_json", "The body is not valid JSON: invalid character 'x' after top-level value", nil},
		{"not JSON", `image=abc`, 400, "invalid_json", "The body is not valid JSON", nil},
		{"control character in a string", "{\"image\":\"a\nb\",\"prompts\":[\"x\"]}", 400, "invalid_json", "The body is not valid JSON", nil},
		{"broken unknown field", with(`,"y":[1,}`), 400, "invalid_json", "The body is not valid JSON", nil},
		{"an array", `["x"]`, 400, "invalid_json", "must be a JSON object", nil},
		{"a string", `"x"`, 400, "invalid_json", "must be a JSON object", nil},
		{"null", ` null `, 400, "invalid_json", "must be a JSON object", nil},
		{"form", `a=b`, 415, "unsupported_media_type", "application/json", []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{"multipart", `--x--`, 415, "unsupported_media_type", "application/json", []string{"Content-Type", "multipart/mixed; boundary=x"}},
		{"text", with(""), 415, "unsupported_media_type", "application/json", []string{"Content-Type", "text/plain; charset=utf-8"}},
		{"gzip", with(""), 415, "unsupported_media_type", "Content-Encoding", []string{"Content-Encoding", "gzip"}},
		{"body too large", withImage(`"` + strings.Repeat("A", 1<<20) + `"`), 413, "body_too_large", "larger than 1048576 bytes", nil},
		{"timeout not a number", with(""), 400, "invalid_request", headerTimeout, []string{headerTimeout, "soon"}},
		{"timeout zero", with(""), 400, "invalid_request", headerTimeout, []string{headerTimeout, "0"}},
		{"timeout negative", with(""), 400, "invalid_request", headerTimeout, []string{headerTimeout, "-99999999999999999999"}},
		{"timeout a fraction", with(""), 400, "invalid_request", headerTimeout, []string{headerTimeout, "1.5"}},

		{"device lost", withImage(`"` + b64(lostDevice) + `"`), 503, "unavailable", "device lost", nil},
		{"device lost for the prompts", withPrompts(`["` + unavailableText + `"]`), 503, "unavailable", "brought back", nil},
		{"encoder fails", withImage(`"` + b64(failingImage) + `"`), 500, "encode_failed", "Failed to encode image", nil},
		{"text encoder fails", withPrompts(`["` + unencodableText + `"]`), 500, "encode_failed", "Failed to encode text", nil},
		{"a stage panics", withImage(`"` + b64(panickingImage) + `"`), 500, "internal_error", "request_id", nil},
		{"the text encoder panics", withPrompts(`["` + panickingText + `"]`), 500, "encode_failed", "Failed to encode text", nil},
		{"a number that JSON cannot carry", withImage(`"` + b64(notFiniteImage) + `"`), 500, "encode_failed", "Failed to encode image", nil},

		{"embed/image: image missing", `{"text":"x"}`, 400, "invalid_image", "Missing 'image'", nil},
		{"embed/image: image not base64", `{"image":"?"}`, 400, "invalid_image", "not valid base64", nil},
		{"embed/image: image not finite", `{"image":"` + b64(notFiniteImage) + `"}`, 500, "encode_failed", "Failed to encode image", nil},
		{"embed/text: text missing", `{}`, 400, "invalid_request", "Missing or invalid 'text'", nil},
		{"embed/text: text null", `{"text":null}`, 400, "invalid_request", "Missing or invalid 'text'", nil},
		{"embed/text: text a number", `{"text":1}`, 400, "invalid_request", "Missing or invalid 'text'", nil},
		{"embed/text: text an array", `{"text":["x"]}`, 400, "invalid_request", "Missing or invalid 'text'", nil},
		{"embed/text: text empty", `{"text":""}`, 400, "invalid_request", "Missing or invalid 'text'", nil},
		{"embed/text: text only spaces", `{"text":" \u2003 "}`, 400, "invalid_request", "Missing or invalid 'text'", nil},
		{"embed/text: text too long", `{"text":"` + strings.Repeat("é", 1025) + `"}`, 400, "invalid_request", "2050 bytes, at most 2048", nil},
		{"embed/text: text encoder fails", `{"text":"` + unencodableText + `"}`, 500, "encode_failed", "Failed to encode text", nil},
		{"embed/text: text not finite", `{"text":"` + notFiniteText + `"}`, 500, "encode_failed", "Failed to encode text", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path, _, other := strings.Cut(c.name, ": ")
			if !other {
				path = "classify"
			}
			s.post(t, "/v1/"+path, c.body, c.headers...).wantError(t, c.status, c.code, c.sentence)
		})
	}
	// Nothing of all this has hurt the service, and nothing is stuck in the line.
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
}

// TestPanicOfAHandler: it is an internal error, in the form that every error has.
func TestPanicOfAHandler(t *testing.T) {
	s := newService(t, nil)
	s.rules.Load().router.GET("/panics", func(*fasthttp.RequestCtx) { panic("a secret") })
	var ctx fasthttp.RequestCtx
	ctx.Request.SetRequestURI("/panics")
	s.handle(&ctx)
	if body := string(ctx.Response.Body()); ctx.Response.StatusCode() != 500 || !strings.Contains(body, internalSentence) {
		t.Errorf("%d %s", ctx.Response.StatusCode(), body)
	}
	if log := s.log.String(); !strings.Contains(log, "a secret") || !strings.Contains(log, "behaviour_test.go") {
		t.Error("the log does not show panic and stack")
	}
}

func TestInternalErrorsAreNotShown(t *testing.T) {
	s := serve(t, nil)
	r := s.post(t, "/v1/classify", classifyBody(failingImage, "", "x"))
	if strings.Contains(string(r.body), "/dev/") {
		t.Errorf("the answer shows %s", r.body)
	}
	if !strings.Contains(s.log.String(), "/dev/h1x-0") {
		t.Error("the log does not show the reason")
	}
	s.post(t, "/v1/classify", classifyBody(panickingImage, "", "x"))
	if log := s.log.String(); !strings.Contains(log, "the stage panics") || !strings.Contains(log, "service_test.go") {
		t.Error("the log does not show panic and stack")
	}
}

func TestEmbed(t *testing.T) {
	s := serve(t, nil)
	words, few, most := strings.Repeat("word ", 100), 6, 77
	no, yes := false, true
	for _, c := range []struct {
		path, body, of string
		tokens         *int
		truncated      *bool
	}{
		{"image", `{"image":"` + b64(goodImage) + `","prompts":5,"top_k":"x"}`, goodImage, nil, nil},
		{"text", `{"text":"a \u00fc < \ud83d\ude00"}`, "a ü < 😀", &few, &no},
		{"text", `{"text":"` + words + `"}`, words, &most, &yes},
	} {
		var a struct {
			Embedding       []float32 `json:"embedding"`
			Dimension       int       `json:"dimension"`
			Model           string    `json:"model"`
			RequestID       string    `json:"request_id"`
			InferenceTimeMS float64   `json:"inference_time_ms"`
			Tokens          *int      `json:"tokens"`
			Truncated       *bool     `json:"truncated"`
		}
		r := s.post(t, "/v1/embed/"+c.path, c.body)
		r.into(t, &a)
		if r.status != 200 || a.Dimension != testDimension || a.Model != testModel || a.RequestID == "" || !slices.Equal(a.Embedding, testVector(c.of)) ||
			!reflect.DeepEqual(a.Tokens, c.tokens) || !reflect.DeepEqual(a.Truncated, c.truncated) {
			t.Errorf("%.100s: got %d %.200s", c.body, r.status, r.body)
		}
	}
	var a classifyAnswer
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "short", words)).into(t, &a)
	for _, c := range a.Classifications {
		if c.Truncated != (c.Text == words) {
			t.Errorf("truncated is %v for %q", c.Truncated, c.Text)
		}
	}
}

func expectHealth(t *testing.T, s *service, status, reason string) {
	t.Helper()
	var got struct{ Status, Reason string }
	if r := s.do(t, http.MethodGet, "/health", ""); json.Unmarshal(r.body, &got) != nil || got.Status != status || got.Reason != reason {
		t.Errorf("%s", r.body)
	}
}

func TestHealth(t *testing.T) {
	npu, cpu := hailo.Info{Backend: "npu"}, hailo.Info{Backend: "cpu", Simulated: true}
	uptime := regexp.MustCompile(`,"uptime_seconds":\d+,`)
	for _, c := range []struct {
		device        hailo.Status
		info          hailo.Info
		why, modelWhy string
		status        int
		want          map[string]any
	}{
		{hailo.Status{Ready: true}, npu, "", "", 200, map[string]any{"status": "healthy", "model_loaded": true}},
		{hailo.Status{Ready: true}, cpu, "no chip", "built in", 200, map[string]any{"status": "healthy", "model_loaded": true,
			"backend": "cpu", "runtime_mode": "simulated", "backend_reason": "no chip", "model_reason": "built in"}},
		{hailo.Status{Ready: true, Degraded: true, Why: hailo.Because("on the CPU")}, npu, "", "", 200,
			map[string]any{"status": "degraded", "reason": "on the CPU", "model_loaded": true}},
		{hailo.Status{Why: hailo.Because("device lost")}, npu, "", "", 503,
			map[string]any{"status": "unhealthy", "reason": "device lost", "model_loaded": false}},
	} {
		d := newDevice()
		s := serve(t, func(_ *Config, svc *Service) {
			svc.Engine = testEngine(t, d, func(_ *clip.Config, p *clip.Parts) { p.BackendWhy, p.ModelWhy = c.why, c.modelWhy })
		})
		d.status.Store(&c.device)
		d.info.Store(&c.info)
		if c.want["status"] == "healthy" {
			expectHealth(t, s, "degraded", event.ErrLost.Error()) // what streams are kept in
		}
		s.svc.Lost = nil
		r := s.do(t, http.MethodGet, "/health", "")
		want := map[string]any{"service": "hailo-clip", "model": testModel, "version": "1.2.3", "backend": "npu", "runtime_mode": "real", "image_digest": "y", "image_preparation": s.svc.Engine.Preparation()}
		maps.Copy(want, c.want)
		var got map[string]any
		if err := json.Unmarshal(uptime.ReplaceAll(r.body, []byte(",")), &got); err != nil || r.status != c.status || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got %d %s, want %v", err, r.status, r.body, want)
		}
		head := s.do(t, http.MethodHead, "/health", "")
		if head.status != c.status || len(head.body) != 0 || !uptime.Match(r.body) {
			t.Errorf("HEAD: %d %q; GET: %s", head.status, head.body, r.body)
		}
	}
}

func TestNotReady(t *testing.T) {
	s := serve(t, nil)
	s.lose("no device")
	for _, path := range []string{"/v1/classify", "/v1/embed/image", "/v1/embed/text"} {
		s.post(t, path, classifyBody(goodImage, "", "x")).wantError(t, 503, "not_ready", "no device")
	}
}

func TestPathsAndMethods(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "/nowhere", ""}, {"GET", "/health/", ""}, {"GET", "/HEALTH", ""}, {"POST", "/v1/classify/..", ""}, {"GET", "/v1/classify%00", ""},
		{"GET", "/v1/embed/text", "OPTIONS, POST"}, {"DELETE", "/v1/embed/text", "OPTIONS, POST"}, {"BREW", "/v1/embed/image", "OPTIONS, POST"},
		{"POST", "/health", "GET, HEAD, OPTIONS"},
	} {
		r := s.do(t, c.method, c.path, "")
		if c.allow == "" {
			r.wantError(t, 404, "not_found", "")
		} else {
			r.wantError(t, 405, "method_not_allowed", "")
		}
		if got := r.header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	if r := s.do(t, "HEAD", "/v1/classify", ""); r.status != 405 || len(r.body) != 0 {
		t.Errorf("HEAD: %d %q", r.status, r.body)
	}
	if r := s.do(t, "OPTIONS", "/v1/classify", ""); r.status != 200 || r.header.Get("Allow") != "GET, OPTIONS, POST" {
		t.Errorf("OPTIONS: %d, Allow %q", r.status, r.header.Get("Allow"))
	}
}

func TestRequestID(t *testing.T) {
	s := serve(t, nil)
	seen := map[string]bool{}
	for sent, kept := range map[string]bool{
		"": false, "0b6ab65c-7f0b-4ba9-9f0c-2f8f4f2a7a11": true, "abc+/=_-.:@~": true, strings.Repeat("x", 128): true,
		strings.Repeat("x", 129): false, `a"b`: false, "a b": false, "ä": false,
	} {
		r := s.do(t, "GET", "/nowhere", "", headerRequestID, sent)
		r.wantError(t, 404, "not_found", "")
		got := r.header.Get(headerRequestID)
		if (got == sent) != kept || seen[got] {
			t.Errorf("sent %q, got %q", sent, got)
		}
		seen[got] = true
	}
}

func TestLog(t *testing.T) {
	s := serve(t, nil)
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "a secret prompt"), headerRequestID, "the-good-one")
	s.post(t, "/v1/classify", `{"image":"c2VjcmV0","prompts":["a secret prompt",1]}`, headerRequestID, "the-bad-one")
	unread := only(t, s.send(t, "nonsense\r\n\r\n")).header.Get(headerRequestID)
	s.stop()
	lines := map[string]map[string]any{}
	for line := range strings.Lines(s.log.String()) {
		var l map[string]any
		noError(t, json.Unmarshal([]byte(line), &l))
		id, _ := l["request_id"].(string)
		lines[id] = l
	}
	if len(lines) != 4 { // the HTTP library has a line of its own about the last one
		t.Fatalf("%d lines: %s", len(lines), s.log)
	}
	nonsense := lines[unread]
	_, method := nonsense["method"]
	_, path := nonsense["path"]
	if method || path || nonsense["code"] != "malformed_request" { // not GET /
		t.Errorf("%v", nonsense)
	}
	good, bad := lines["the-good-one"], lines["the-bad-one"]
	if good["method"] != "POST" || good["path"] != "/v1/classify" || good["status"] != 200.0 || good["code"] != nil ||
		good["bytes_in"] != float64(len(classifyBody(goodImage, "", "a secret prompt"))) || good["bytes_out"].(float64) < 100 {
		t.Errorf("%v", good)
	}
	if bad["status"] != 400.0 || bad["code"] != "invalid_prompts" {
		t.Errorf("%v", bad)
	}
	if log := s.log.String(); strings.Contains(log, "secret") || strings.Contains(log, b64(goodImage)) {
		t.Errorf("the log has what only the client should see: %s", log)
	}
}

// TestParallel makes requests that share buffers and checks that nobody gets another's answer.
func TestParallel(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.RequestTimeout = time.Minute })
	t.Run("clients", func(t *testing.T) {
		for client := range 8 {
			t.Run(fmt.Sprint(client), func(t *testing.T) {
				t.Parallel()
				for i := range 40 {
					mine := fmt.Sprintf("image %d of %d %s", i, client, strings.Repeat("#", (i*7919)%50_000))
					var a classifyAnswer
					r := s.post(t, "/v1/classify", classifyBody(mine, "", "x", fmt.Sprintf("%.40s", mine), "y"))
					if r.status == http.StatusTooManyRequests {
						continue
					}
					r.into(t, &a)
					if r.status != 200 || len(a.Classifications) != 3 {
						t.Fatalf("%d %s", r.status, r.body)
					}
					want := testVector(mine[:min(len(mine), testSize*testSize*3-2)])
					for _, c := range a.Classifications {
						cosine := dot(testVector(c.Text), want)
						if math.Abs(cosine-c.Cosine) > 1e-5 {
							t.Fatalf("%q: cosine %v, want %v", c.Text, c.Cosine, cosine)
						}
					}
				}
			})
		}
	})
	for _, stage := range s.svc.Engine.Stats().Stages {
		if stage.Queued != 0 || stage.Busy != 0 {
			t.Errorf("left behind: %+v", stage)
		}
	}
}
