package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// shown is an image and the label that it is said to show.
type shown struct{ label, image string }

// forms makes of images a form, with its type, and lines of JSON.
func forms(t testing.TB, images ...shown) (contentType, form, lines string) {
	t.Helper()
	var parts []string
	var b strings.Builder
	for _, i := range images {
		parts = append(parts, i.label, string(imageFile(i.image)))
		fmt.Fprintf(&b, "{\"label\":%s,\"image\":%q}\n", must(json.Marshal(i.label)), b64(i.image))
	}
	contentType, form = formOf(t, parts...)
	return contentType, form, b.String()
}

// evaluate has a set evaluated by a form, which must work.
func (s *service) evaluate(t testing.TB, path string, images ...shown) (a evaluationAnswer) {
	t.Helper()
	contentType, form, _ := forms(t, images...)
	r := s.do(t, "POST", path, form, "Content-Type", contentType)
	r.wantOK(t)
	r.into(t, &a)
	return a
}

const evaluated = `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"größe","prompts":["a dog"],"threshold":{"enter":0.9,"exit":0.1}},{"name":"a \"cow\"","prompts":["a cow"]},
	{"name":"street","prompts":["a street"],"negative":true}],"background":{"prompts":["a wall"]}}`

// labelled are images of which three have the wrong label and two cannot be read.
func labelled() (images []shown) {
	for range 6 {
		images = append(images, shown{"cat", "a cat"}, shown{"cat", "a cat"}, shown{"größe", "a dog"})
	}
	return append(images, shown{"cat", "a dog"}, shown{"cat", "a dog"}, shown{"cat", truncatedImage}, shown{"größe", "a cat"},
		shown{"street", "a street"}, shown{"background", "a wall"}, shown{"background", "a street"}, shown{"street", "a cat"}, shown{`a "cow"`, notAnImage})
}

func TestEvaluate(t *testing.T) {
	s := serve(t, nil)
	const path = "/v1/prompt-sets/pets/evaluate"
	set := s.put(t, "pets", evaluated)
	contentType, form, lines := forms(t, labelled()...)
	var a, b evaluationAnswer
	s.do(t, "POST", path, form, "Content-Type", contentType).into(t, &a)
	s.do(t, "POST", path+"?apply=false", "\n"+strings.ReplaceAll(lines, "\n", " \r\n\n"), "Content-Type", "application/x-ndjson").into(t, &b)
	if a.RequestID == b.RequestID || a.RequestID == "" {
		t.Errorf("request ids %q, %q", a.RequestID, b.RequestID)
	}
	b.RequestID = a.RequestID
	if !reflect.DeepEqual(a, b) {
		t.Errorf("a form is answered with\n%+v\nlines of JSON with\n%+v", a, b)
	}
	f := func(x float64) *float64 { return &x }
	want := evaluationAnswer{
		PromptSet: "pets", ETag: set.ETag, Images: 25, Accuracy: 21.0 / 25, Labels: []string{"cat", "größe", `a "cow"`},
		Confusion: [][]int{{12, 2, 0, 0}, {1, 6, 0, 0}, {0, 0, 0, 0}, {1, 0, 0, 3}},
		Recall:    map[string]*float64{"cat": f(12.0 / 14), "größe": f(6.0 / 7), `a "cow"`: nil},
		Precision: map[string]*float64{"cat": f(12.0 / 14), "größe": f(6.0 / 8), `a "cow"`: nil},
		Errors: []imageError{
			{20, "cat", "Truncated image: BMP: row 15 of 32: unexpected EOF", "invalid_image"},
			{26, `a "cow"`, "Not an image: starts with 6e 6f 74 20 61 6e 20 69", "invalid_image"},
		},
		ECE: a.ECE, Temperature: a.Temperature, Thresholds: a.Thresholds, Model: testModel, RequestID: a.RequestID,
	}
	if len(a.Errors) == 2 {
		want.Errors[0].Error = a.Errors[0].Error // in package decode's words
	}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("%+v, want %+v", a, want)
	}
	// As good as sure of all, of which 21 of 25 are right.
	if math.Abs(a.ECE.Before-4.0/25) > 0.001 || a.Temperature == nil || *a.Temperature < 10 || a.ECE.After == nil || *a.ECE.After > 0.05 {
		t.Errorf("%+v, temperature %v", a.ECE, a.Temperature)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(a.Thresholds)), []string{`a "cow"`, "cat", "größe"}) || a.Thresholds["cat"] != nil || a.Thresholds[`a "cow"`] != nil {
		t.Errorf("thresholds %v", a.Thresholds)
	}
	if again := s.do(t, "GET", "/v1/prompt-sets/pets", ""); again.header.Get("ETag") != `"`+set.ETag+`"` {
		t.Error("the set has changed")
	}

	// Applied.
	s.do(t, "POST", path, form, "Content-Type", contentType, "If-Match", `"x"`).wantError(t, 412, "precondition_failed", "")
	s.do(t, "POST", path+"?apply=true", form, "Content-Type", contentType, "If-Match", `"x"`).wantError(t, 412, "precondition_failed", "")
	r := s.do(t, "POST", path+"?apply=true&precision=0.7", form, "Content-Type", contentType, "If-Match", `"`+set.ETag+`"`)
	r.into(t, &a)
	if a.ETag != set.ETag || !a.Applied || a.AppliedETag == set.ETag || r.header.Get("ETag") != `"`+a.AppliedETag+`"` {
		t.Errorf("%+v, ETag %s", a, r.header.Get("ETag"))
	}
	var applied setAnswer
	s.do(t, "GET", "/v1/prompt-sets/pets", "").into(t, &applied)
	cat, dog := applied.Labels[0].Threshold, applied.Labels[1].Threshold
	if applied.ETag != a.AppliedETag || applied.Temperature != *a.Temperature || cat == nil || cat.Enter != a.Thresholds["cat"].Score || cat.Exit != cat.Enter ||
		dog.Enter != a.Thresholds["größe"].Score || dog.Exit != 0.1 || applied.Labels[2].Threshold != nil {
		t.Errorf("%+v after %+v", applied, a)
	}
	c := s.classify(t, "a cat", "pets", "")
	if c.Temperature != *a.Temperature || c.Classifications[0].AboveThreshold == nil || !*c.Classifications[0].AboveThreshold {
		t.Errorf("%+v after %+v", c, a.Thresholds["cat"])
	}
}

// TestEvaluateActivations evaluates by every activation: the confusion is that of what classify answers, and the probabilities
// of what is right are near 1.
func TestEvaluateActivations(t *testing.T) {
	s := serve(t, nil)
	for name, c := range map[string]struct {
		set       string
		threshold float64 // of the label, which all its images reach
	}{
		"softmax":       {`{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog"]}],"background":{"prompts":["a wall"]}}`, 1},
		"none":          {`{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog"]}],"background":{"prompts":["a wall"]},"activation":"none"}`, 1},
		"pair":          {`{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog"],"negation":["a wall"]}],"background":{"prompts":["a wall"]},"activation":"pair"}`, 1},
		"one":           {`{"labels":[{"name":"cat","prompts":["a cat"]}],"min_cosine":0.8}`, 1},
		"one and a low": {`{"labels":[{"name":"cat","prompts":["a cat"]}],"background":{"prompts":["a wall"]},"temperature":1000}`, 1 / (1 + math.Exp(-0.1*(1-dot(testVector("a cat"), testVector("a wall")))))},
	} {
		t.Run(name, func(t *testing.T) {
			s.put(t, "set", c.set)
			images := []shown{{"cat", "a cat"}, {"cat", "a cat"}, {"background", "a wall"}}
			a := s.evaluate(t, "/v1/prompt-sets/set/evaluate?precision=1", images...)
			confusion := [][]int{{2, 0, 0}, {0, 0, 0}, {0, 0, 1}}
			if len(a.Labels) == 1 {
				confusion = [][]int{{2, 0}, {0, 1}}
			}
			if a.Accuracy != 1 || !reflect.DeepEqual(a.Confusion, confusion) || a.Thresholds["cat"] == nil || math.Abs(a.Thresholds["cat"].Score-c.threshold) > 1e-5 {
				t.Errorf("%+v, %+v", a, a.Thresholds["cat"])
			}
			if a.Temperature != nil || a.Reason == "" || a.ECE.After != nil {
				t.Errorf("a temperature was fitted to three images: %+v", a)
			}
		})
	}
}

func TestEvaluateRefuses(t *testing.T) {
	s := serve(t, nil)
	s.put(t, "pets", evaluated)
	const path, lines = "/v1/prompt-sets/pets/evaluate", "application/x-ndjson"
	contentType, form, line := forms(t, shown{"cat", goodImage})
	empty, nothing := formOf(t)
	many, tooMany := formOf(t, slices.Repeat([]string{"cat", "x"}, maxTrial+1)...)
	for name, c := range map[string]struct {
		path, contentType, body string
		status                  int
		code, text              string
	}{
		"no set":           {"/v1/prompt-sets/x/evaluate", contentType, form, 404, "prompt_set_not_found", ""},
		"a bad name":       {"/v1/prompt-sets/%2e/evaluate", contentType, form, 400, "invalid_request", "name of a prompt set"},
		"JSON":             {path, "application/json", line, 415, "unsupported_media_type", "multipart/form-data"},
		"no form":          {path, contentType, "x", 400, "invalid_request", "boundary"},
		"an empty form":    {path, empty, nothing, 400, "invalid_request", "no images"},
		"no lines":         {path, lines, " \n\n", 400, "invalid_request", "no images"},
		"too many parts":   {path, many, tooMany, 400, "invalid_request", "1000"},
		"too many lines":   {path, lines, strings.Repeat(`{"label":"cat","image":"x"}`+"\n", maxTrial+1), 400, "invalid_request", "1000"},
		"a bad line":       {path, lines, line + "{", 400, "invalid_json", "Line 2"},
		"a line of text":   {path, lines, line + "\n\"x\"\n", 400, "invalid_json", "Line 3"},
		"no label":         {path, lines, `{"image":"x"}`, 400, "invalid_request", "label"},
		"an address":       {path, lines, `{"label":"cat","image_url":"x"}`, 400, "invalid_request", "image_url"},
		"another label":    {path, lines, line + `{"label":"cta","image":"x"}`, 400, "invalid_request", "cta"},
		"no good image":    {path, lines, `{"label":"cat","image":"%"}`, 400, "invalid_image", "None of the images"},
		"images: numbers":  {path, lines, `{"label":"cat","image":7}`, 400, "invalid_image", "None of the images"},
		"precision 0":      {path + "?precision=0", contentType, form, 400, "invalid_request", "precision"},
		"precision 1.1":    {path + "?precision=1.1", contentType, form, 400, "invalid_request", "precision"},
		"precision NaN":    {path + "?precision=NaN", contentType, form, 400, "invalid_request", "precision"},
		"precision of x":   {path + "?precision=x", contentType, form, 400, "invalid_request", "precision"},
		"apply":            {path + "?apply=yes", contentType, form, 400, "invalid_request", "apply"},
		"the device fails": {path, lines, line + fmt.Sprintf(`{"label":"cat","image":%q}`, b64(lostDevice)), 503, "unavailable", ""},
		"the stage panics": {path, lines, line + fmt.Sprintf(`{"label":"cat","image":%q}`, b64(panickingImage)), 500, "internal_error", ""},
		"too large":        {path, lines, strings.Repeat(" ", 5<<20), 413, "body_too_large", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s.do(t, "POST", c.path, c.body, "Content-Type", c.contentType).wantError(t, c.status, c.code, c.text)
		})
	}
	late, form := formOf(t, "cat", string(imageFile(waitingImage)))
	s.do(t, "POST", path, form, "Content-Type", late, headerTimeout, "50").wantError(t, 504, "deadline_exceeded", "")
	s.allReturned(t) // all is given back
}

// TestEvaluateByOneVersion changes the set while its images are classified: what was found out is not stored in the new version.
func TestEvaluateByOneVersion(t *testing.T) {
	s := serve(t, nil)
	set := s.put(t, "pets", evaluated)
	const path = "/v1/prompt-sets/pets/evaluate?apply=true"
	contentType, form, _ := forms(t, shown{"cat", heldImage}, shown{"cat", "a cat"})
	answered := make(chan reply, 1)
	go func() { answered <- s.do(t, "POST", path, form, "Content-Type", contentType) }()
	<-s.entered
	changed := s.put(t, "pets", `{"labels":[{"name":"cow"}]}`)
	s.release()
	(<-answered).wantError(t, 412, "precondition_failed", "")
	var now setAnswer
	s.do(t, "GET", "/v1/prompt-sets/pets", "").into(t, &now)
	if now.ETag != changed.ETag || now.ETag == set.ETag || now.State != clip.SetReady {
		t.Errorf("%+v", now)
	}
}

// TestEvaluationsTakeTurns: a few are made at once, and the others wait for them.
func TestEvaluationsTakeTurns(t *testing.T) {
	s := serve(t, nil)
	s.put(t, "pets", evaluated)
	contentType, form, _ := forms(t, shown{"cat", "a cat"})
	for range trialsAtOnce {
		done := must(s.trials.Take(t.Context(), fair.Caller{Address: "another"}))
		defer func() {
			done()
			s.evaluate(t, "/v1/prompt-sets/pets/evaluate", shown{"cat", "a cat"})
		}()
	}
	r := s.do(t, "POST", "/v1/prompt-sets/pets/evaluate", form, "Content-Type", contentType, headerTimeout, "20")
	r.wantError(t, 504, "deadline_exceeded", "deadline")
}
