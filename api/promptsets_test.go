package api

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/valyala/fasthttp"

	"hailoclip/cache/sets"
	"hailoclip/stages/clip"
)

// setAnswer is a set as it is answered with.
type setAnswer = clip.SetInfo

// bySet is an answer of /v1/classify with a prompt set.
type bySet struct {
	classifyAnswer
	Classifications []struct {
		match
		AboveThreshold *bool `json:"above_threshold"`
	} `json:"classifications"` // instead of those of classifyAnswer
	Matched *bool  `json:"matched"`
	Reason  string `json:"reason"`
	setFields
}

// setFields are what an answer by a prompt set says once.
type setFields struct {
	PromptSet   string  `json:"prompt_set"`
	ETag        string  `json:"etag"`
	ScoreSource string  `json:"score_source"`
	Temperature float64 `json:"temperature"`
}

// put makes a set, which must work.
func (s *service) put(t testing.TB, name, body string, headers ...string) (a setAnswer) {
	t.Helper()
	r := s.json(t, http.MethodPut, "/v1/prompt-sets/"+name, body, headers...)
	if r.status != http.StatusOK && r.status != http.StatusCreated {
		t.Fatalf("%d %s", r.status, r.body)
	}
	r.into(t, &a)
	return a
}

// json sends JSON by any method.
func (s *service) json(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	return s.do(t, method, path, body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// classify classifies an image by a set, which must work.
func (s *service) classify(t testing.TB, image, set, more string) (a bySet) {
	t.Helper()
	body := fmt.Sprintf(`{"image":%q,"prompt_set":%q%s}`, b64(image), set, more)
	r := s.post(t, "/v1/classify", body)
	for r.status == http.StatusTooManyRequests {
		r = s.post(t, "/v1/classify", body)
	}
	r.wantOK(t)
	r.into(t, &a)
	return a
}

const pets = `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog","a puppy"],"pool":"max"}]}`

func TestPromptSets(t *testing.T) {
	s := serve(t, nil)
	made := s.json(t, "PUT", "/v1/prompt-sets/pets", pets)
	var set setAnswer
	made.into(t, &set)
	if made.status != 201 || made.header.Get("Location") != "/v1/prompt-sets/pets" || made.header.Get("ETag") != `"`+set.ETag+`"` || len(set.ETag) != 64 {
		t.Fatalf("%d %v %s", made.status, made.header, made.body)
	}
	if set.Name != "pets" || set.State != clip.SetReady || set.Encoded != 3 || set.Total != 3 || set.Model != testModel || set.ScoreSource != "text" ||
		len(set.Labels) != 2 || set.Labels[1].Pool != "max" || set.Activation != "softmax" || set.Temperature != 1 {
		t.Errorf("%s", made.body)
	}
	got := s.do(t, "GET", "/v1/prompt-sets/pets", "")
	if got.status != 200 || !bytes.Equal(got.body, made.body) || got.header.Get("ETag") != `"`+set.ETag+`"` || got.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("GET answers %d %s, PUT answered %s", got.status, got.body, made.body)
	}
	for _, tag := range []string{`"` + set.ETag + `"`, `"x", W/"` + set.ETag + `"`, "*"} {
		r := s.do(t, "GET", "/v1/prompt-sets/pets", "", "If-None-Match", tag)
		if r.status != 304 || len(r.body) > 0 || r.header.Get("ETag") != `"`+set.ETag+`"` || r.header.Get("X-Request-Id") == "" ||
			r.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("If-None-Match: %s: %d %s", tag, r.status, r.body)
		}
	}
	s.do(t, "GET", "/v1/prompt-sets/pets", "", "If-None-Match", `"other"`).wantOK(t)
	again := s.json(t, "PUT", "/v1/prompt-sets/pets", string(got.body))
	if again.status != 200 || !bytes.Equal(again.body, got.body) || again.header.Get("Location") != "" {
		t.Errorf("what GET has answered, sent back: %d %s", again.status, again.body)
	}
	changed := s.put(t, "pets", `{"labels":[{"name":"cat"}],"temperature":2}`)
	if changed.ETag == set.ETag || changed.Temperature != 2 || changed.Total != 7 {
		t.Errorf("changed: %+v", changed)
	}
	s.put(t, "a.b-C_9", pets)
	var list struct {
		Sets []clip.SetSummary `json:"prompt_sets"`
	}
	s.do(t, "GET", "/v1/prompt-sets", "").into(t, &list)
	want := []clip.SetSummary{{Name: "a.b-C_9", Labels: 2, State: "ready", ETag: list.Sets[0].ETag, Model: testModel}, {Name: "pets", Labels: 1, State: "ready", ETag: changed.ETag, Model: testModel}}
	if !slices.Equal(list.Sets, want) {
		t.Errorf("list %+v, want %+v", list.Sets, want)
	}
	if r := s.do(t, "DELETE", "/v1/prompt-sets/pets", ""); r.status != 204 || len(r.body) > 0 || r.header.Get("X-Request-Id") == "" {
		t.Errorf("DELETE: %d %s", r.status, r.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		s.do(t, method, "/v1/prompt-sets/pets", "").wantError(t, 404, "prompt_set_not_found", "pets")
	}
	s.post(t, "/v1/classify", `{"image":"`+b64(goodImage)+`","prompt_set":"pets"}`).wantError(t, 404, "prompt_set_not_found", "pets")
	s.do(t, "POST", "/v1/prompt-sets/pets", pets).wantError(t, 405, "method_not_allowed", "")
}

// TestPromptSetNames: a name is decoded once, and checked then.
func TestPromptSetNames(t *testing.T) {
	s := serve(t, nil)
	s.put(t, "%70ets", pets)
	s.do(t, "GET", "/v1/prompt-sets/pet%73", "").wantOK(t)
	for _, name := range []string{"%2570ets", "a%2Fb", "a%00", "%ff", "a%0a", ".hidden", "-x", "a%20b", "a+b", "%", "%zz", "..%2f..", "pets%2F", strings.Repeat("a", 65), "%C3%A4"} {
		for _, r := range []reply{
			s.raw(t, "GET", "/v1/prompt-sets/"+name, ""), s.raw(t, "PUT", "/v1/prompt-sets/"+name, pets), s.raw(t, "DELETE", "/v1/prompt-sets/"+name, ""),
			s.raw(t, "POST", "/v1/prompt-sets/"+name+"/examples", `{}`),
		} {
			r.wantError(t, 400, "invalid_request", "name of a prompt set")
		}
	}
	longest := strings.Repeat("a", 64)
	if s.put(t, longest, pets).Name != longest {
		t.Error("64 characters")
	}
	for _, path := range []string{"/v1/prompt-sets/", "/v1/prompt-sets/pets/", "/v1/prompt-sets/a/b", "/v1/prompt-sets//examples", "/v1/prompt-sets/pets/../pets"} {
		if r := s.raw(t, "GET", path, ""); r.status != 404 && r.status != 405 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

// raw sends a path as it is, without a look at it.
func (s *service) raw(t testing.TB, method, path, body string) reply {
	t.Helper()
	req := must(http.NewRequest(method, s.url, strings.NewReader(body)))
	req.URL.Opaque = "//" + s.addr + path
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	noError(t, err)
	return must(read(resp))
}

func TestPromptSetConditions(t *testing.T) {
	s := serve(t, nil)
	const path = "/v1/prompt-sets/pets"
	none := func(r reply) { t.Helper(); r.wantError(t, 412, "precondition_failed", "") }
	none(s.json(t, "PUT", path, pets, "If-Match", "*"))
	none(s.json(t, "PUT", path, pets, "If-Match", `"x"`))
	none(s.json(t, "PUT", path, pets, "If-Match", `"x", "y"`))
	none(s.json(t, "DELETE", path, "", "If-Match", `"x"`))
	if r := s.json(t, "PUT", path, pets, "If-None-Match", "*"); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	none(s.json(t, "PUT", path, pets, "If-None-Match", "*"))
	tag := s.do(t, "GET", path, "").header.Get("ETag")
	for _, match := range []string{"*", tag, `"x", ` + tag, tag + `,"x"`, `W/"y" , ` + tag} {
		s.json(t, "PUT", path, pets, "If-Match", match).wantOK(t)
	}
	for _, match := range []string{`"x"`, "W/" + tag, `W/"x", "y"`, `"*"`, `""`, `"", "x"`} {
		none(s.json(t, "PUT", path, pets, "If-Match", match))
		none(s.json(t, "DELETE", path, "", "If-Match", match))
		none(s.json(t, "POST", path+"/examples", `{"label":"cat","image":"`+b64(goodImage)+`"}`, "If-Match", match))
	}
	for _, match := range []string{"x", `"x`, `x"`, `"x" "y`, `"x"y`, ",", `W/x`, `*, "x"`, `"x", *`} {
		s.json(t, "PUT", path, pets, "If-Match", match).wantError(t, 400, "invalid_request", "If-Match")
		s.json(t, "GET", path, "", "If-None-Match", match).wantError(t, 400, "invalid_request", "If-None-Match")
	}
	s.json(t, "PUT", path, pets, "If-None-Match", tag).wantError(t, 400, "invalid_request", "If-None-Match")
	if r := s.json(t, "DELETE", path, "", "If-Match", tag); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestETags(t *testing.T) {
	for header, want := range map[string][]string{
		"": nil, "*": {"*"}, " * ": {"*"}, `"a"`: {"a"}, `""`: {`""`}, `"a" , "b"`: {"a", "b"}, `"a",,"b",`: {"a", "b"}, `"a b,c"`: {"a b,c"},
		`W/"a","a"`: {`W/"a"`, "a"}, `"W/"`: {"W/"},
	} {
		var h fasthttp.RequestHeader
		h.Set("If-Match", header)
		if got, err := etags(&h, "If-Match"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", header, got, err)
		}
	}
	var h fasthttp.RequestHeader
	h.Add("If-Match", `"a"`)
	h.Add("If-Match", `"b", "c"`)
	if got, err := etags(&h, "If-Match"); err != nil || !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("two headers: %q, %v", got, err)
	}
}

// TestPromptSetBodies has definitions that are wrong (more are in package sets): each is told what is, and nothing is stored.
func TestPromptSetBodies(t *testing.T) {
	s := serve(t, nil)
	many := func(n int, item string) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }
	image := `"` + b64(goodImage) + `"`
	for name, c := range map[string]struct {
		body, code, text string
		status           int
	}{
		"nothing":           {"", "invalid_json", "", 400},
		"no JSON":           {`{"labels":`, "invalid_json", "JSON", 400},
		"text behind":       {pets + "x", "invalid_json", "JSON", 400},
		"no object":         {`[]`, "invalid_request", "object", 400},
		"null":              {`null`, "invalid_request", "object", 400},
		"UTF-16":            {"\xff\xfe{\x00}\x00", "invalid_json", "UTF-16", 400},
		"not UTF-8":         {`{"labels":[{"name":"` + "\xff" + `"}]}`, "invalid_json", "UTF-8", 400},
		"half a character":  {`{"labels":[{"name":"\ud800"}]}`, "invalid_request", `\ud800`, 400},
		"no labels":         {`{}`, "invalid_request", "labels", 400},
		"labels: null":      {`{"labels":null}`, "invalid_request", "labels", 400},
		"label: text":       {`{"labels":["cat"]}`, "invalid_request", "must be an object", 400},
		"a name twice":      {`{"labels":[{"name":"a"},{"name":" a "}]}`, "invalid_request", "labels[1].name", 400},
		"too many images":   {`{"labels":[{"name":"a","images":[` + many(17, image) + `]}]}`, "invalid_request", "labels[0]", 400},
		"too many values":   {`{"labels":[],"x":[` + many(400_000, "1") + `]}`, "invalid_request", "values", 400},
		"deep":              {`{"labels":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, "invalid_json", "", 400},
		"sigmoid":           {`{"labels":[{"name":"a"}],"activation":"sigmoid"}`, "invalid_request", "activation", 400},
		"temperature: text": {`{"labels":[{"name":"a"}],"temperature":"hot"}`, "invalid_request", "temperature must be a number", 400},
		"image: no base64":  {`{"labels":[{"name":"b"},{"name":"a","images":[` + image + `,"%"]}]}`, "invalid_image", "labels[1].images[1]", 400},
		"no image":          {`{"labels":[{"name":"a","images":["` + base64.StdEncoding.EncodeToString([]byte("hello, I am a text")) + `"]}]}`, "invalid_image", "labels[0].images[0]", 400},
		"broken image":      {`{"labels":[{"name":"a"}],"background":{"images":["` + b64(truncatedImage) + `"]}}`, "invalid_image", "background.images[0]", 400},
		"huge image":        {`{"labels":[{"name":"a","images":["` + b64(hugeImage) + `"]}]}`, "image_too_large", "", 413},
		"AVIF":              {`{"labels":[{"name":"a","images":["` + b64(avifImage) + `"]}]}`, "unsupported_image", "", 415},
		"unknown example":   {`{"labels":[{"name":"a","examples":[{"id":"0123456789abcdef0123456789abcdef"}]}]}`, "invalid_request", "labels[0].examples[0]", 400},
		"too large":         {`{"labels":[{"name":"` + strings.Repeat("x", 5<<20) + `"}]}`, "body_too_large", "", 413},
	} {
		t.Run(name, func(t *testing.T) {
			s.json(t, "PUT", "/v1/prompt-sets/bad", c.body).wantError(t, c.status, c.code, c.text)
		})
	}
	s.do(t, "PUT", "/v1/prompt-sets/bad", pets, "Content-Type", "text/yaml").wantError(t, 415, "unsupported_media_type", "application/json")
	s.do(t, "GET", "/v1/prompt-sets/bad", "").wantError(t, 404, "prompt_set_not_found", "")
}

// TestLargePromptSet has as many labels as may be, of which all are told apart.
func TestLargePromptSet(t *testing.T) {
	s := serve(t, nil)
	var d sets.Definition
	for i := range sets.MaxLabels {
		d.Labels = append(d.Labels, sets.Label{Name: fmt.Sprint("label ", i), Prompts: []string{fmt.Sprint("thing ", i)}})
	}
	d.Labels[713].Prompts = []string{goodImage}
	if set := s.put(t, "large", string(must(json.Marshal(d)))); len(set.Labels) != sets.MaxLabels || set.State != clip.SetReady {
		t.Fatalf("%d labels, %s", len(set.Labels), set.State)
	}
	if a := s.classify(t, goodImage, "large", `,"top_k":5000`); len(a.Classifications) != sets.MaxLabels || a.Classifications[0].Text != "label 713" {
		t.Errorf("%d, the first is %+v", len(a.Classifications), a.Classifications[0])
	}
	if a := s.classify(t, goodImage, "large", ""); len(a.Classifications) != 3 {
		t.Errorf("%d without top_k", len(a.Classifications))
	}
}

func TestClassifyBySet(t *testing.T) {
	s := serve(t, nil)
	long := strings.Repeat("long ", 100)
	set := s.put(t, "pets", `{"labels":[
		{"name":"cat \"Tom\"","prompts":["a cat"],"threshold":{"enter":0.6,"exit":0.3}},
		{"name":"dog","prompts":["a dog","`+long+`"],"pool":"max","threshold":{"enter":0.6,"exit":0.3}},
		{"name":"street","prompts":["an empty street"],"negative":true},
		{"name":"bird","prompts":["a bird"]}],
		"background":{"prompts":["a wall"]},"temperature":2,"min_cosine":0.9,"min_margin":0.5}`)
	yes := s.classify(t, "a cat", "pets", `,"top_k":9,"prompts":null`)
	first := yes.Classifications[0]
	if len(yes.Classifications) != 3 || first.Text != `cat "Tom"` || first.Score != first.Probability || first.Score < 0.99 || math.Abs(first.Cosine-1) > 1e-5 ||
		first.AboveThreshold == nil || !*first.AboveThreshold || first.Truncated || first.Rank != 1 {
		t.Errorf("%+v", yes)
	}
	if yes.PromptSet != "pets" || yes.ETag != set.ETag || yes.Matched == nil || !*yes.Matched || yes.Reason != "" || yes.ScoreSource != "text" ||
		yes.Temperature != 2 || yes.LogitScale != testLogitScale || yes.Model != testModel || yes.RequestID == "" {
		t.Errorf("%+v", yes)
	}
	for _, c := range yes.Classifications[1:] {
		if bird := c.Text == "bird"; bird != (c.AboveThreshold == nil) || !bird && *c.AboveThreshold || c.Truncated != (c.Text == "dog") {
			t.Errorf("%+v", c)
		}
	}
	for image, reason := range map[string]string{"an empty street": "negative", "a wall": "negative", "something else": "", goodImage: ""} {
		no := s.classify(t, image, "pets", `,"top_k":9`)
		if *no.Matched || len(no.Classifications) != 3 || reason != "" && no.Reason != reason || no.Reason == "" {
			t.Errorf("%s: %+v", image, no)
		}
	}
	s.put(t, "pets", `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"tom","prompts":["a cat"]}],"min_margin":0.01}`)
	if a := s.classify(t, "a cat", "pets", ""); *a.Matched || a.Reason != "min_margin" || a.Classifications[0].Text != "cat" || a.Temperature != 1 {
		t.Errorf("%+v", a)
	}
	if a := s.classify(t, "a cat", "pets", `,"threshold":0.6`); len(a.Classifications) != 0 || *a.Matched {
		t.Errorf("%+v", a)
	}
	s.put(t, "pets", `{"labels":[{"name":"cat","prompts":["a cat"]}],"min_cosine":0.5}`)
	if a := s.classify(t, "a dog", "pets", ""); *a.Matched || a.Reason != "min_cosine" || a.Classifications[0].Score != a.Classifications[0].Cosine {
		t.Errorf("%+v", a)
	}
	s.put(t, "pets", `{"labels":[{"name":"cat","prompts":["a cat"],"negation":["no cat"]},{"name":"dog","prompts":["a dog"]}],"background":{"prompts":["a wall"]},"activation":"pair"}`)
	if a := s.classify(t, "a dog", "pets", ""); !*a.Matched || a.Classifications[0].Text != "dog" || a.Classifications[0].Score < 0.99 {
		t.Errorf("%+v", a)
	}
	if a := s.classify(t, "no cat", "pets", ""); a.Classifications[1].Text != "cat" && a.Classifications[0].Text != "cat" {
		t.Errorf("%+v", a)
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, `,"prompt_set":"pets"`, "x")).wantError(t, 400, "invalid_request", "prompt_set")
	s.post(t, "/v1/classify?prompt_set=pets", classifyBody(goodImage, "", "x")).wantError(t, 400, "invalid_request", "prompt_set")
	for _, name := range []string{`7`, `""`, `["pets"]`, `{}`, `true`} {
		s.post(t, "/v1/classify", `{"image":"`+b64(goodImage)+`","prompt_set":`+name+`}`).wantError(t, 400, "invalid_request", "prompt_set")
	}
	var without classifyAnswer // has no field more than before
	s.post(t, "/v1/classify", classifyBody(goodImage, `,"prompt_set":null`, "x", "y")).into(t, &without)
}

// TestSetNotReady: until a set is encoded its former version answers, and without one nothing does.
func TestSetNotReady(t *testing.T) {
	s := serve(t, nil)
	former := s.put(t, "other", pets) // nothing is encoded behind what hangs
	hangs := `{"labels":[{"name":"new","prompts":["` + waitingText + `"]}]}`
	r := s.json(t, "PUT", "/v1/prompt-sets/slow", hangs, headerTimeout, "1000")
	var set setAnswer
	if r.into(t, &set); r.status != 201 || set.State != clip.SetEncoding || set.Encoded != 0 || set.Total != 1 {
		t.Errorf("%d %s", r.status, r.body)
	}
	classify := s.post(t, "/v1/classify", `{"image":"`+b64(goodImage)+`","prompt_set":"slow"}`)
	classify.wantError(t, 409, "prompt_set_not_ready", "")
	form, body := formOf(t, "new", string(imageFile(goodImage)))
	s.do(t, "POST", "/v1/prompt-sets/slow/evaluate", body, "Content-Type", form).wantError(t, 409, "prompt_set_not_ready", "")
	got := s.do(t, "GET", "/v1/prompt-sets/slow", "", "If-None-Match", `"`+set.ETag+`"`)
	if got.status != 200 || got.header.Get("ETag") != "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("an answer that will be another is kept: %d %v", got.status, got.header)
	}

	r = s.json(t, "PUT", "/v1/prompt-sets/other", hangs, headerTimeout, "1000", "If-Match", `"`+former.ETag+`"`)
	if r.into(t, &set); r.status != 200 || set.State != clip.SetEncoding || r.header.Get("ETag") != `"`+set.ETag+`"` {
		t.Errorf("%d %s", r.status, r.body)
	}
	if a := s.classify(t, "a dog", "other", ""); a.ETag != former.ETag || a.Classifications[0].Text != "dog" {
		t.Errorf("%+v", a)
	}
}

// TestSetsOfConfiguration can be used, and not be changed.
func TestSetsOfConfiguration(t *testing.T) {
	fixed := must(sets.ParseJSON([]byte(pets)))
	s := serve(t, func(_ *Config, svc *Service) {
		svc.Engine = testEngine(t, newDevice(), func(_ *clip.Config, p *clip.Parts) { p.Sets.Configured = map[string]sets.Definition{"pets": fixed} })
	})
	const path = "/v1/prompt-sets/pets"
	var set setAnswer
	s.do(t, "GET", path, "").into(t, &set)
	if !set.ReadOnly || set.State == clip.SetFailed {
		t.Errorf("%+v", set)
	}
	form, body := formOf(t, "cat", string(imageFile("a cat")))
	for _, r := range []reply{
		s.json(t, "PUT", path, pets), s.do(t, "DELETE", path, ""), s.post(t, path+"/examples", `{"label":"cat","image":"`+b64(goodImage)+`"}`),
		s.do(t, "POST", path+"/evaluate?apply=true", body, "Content-Type", form),
	} {
		r.wantError(t, 409, "managed_by_configuration", "")
	}
}

// TestSetsLost: without their file there are no sets, and all else goes on.
func TestSetsLost(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) {
		svc.Engine = testEngine(t, newDevice(), func(_ *clip.Config, p *clip.Parts) {
			p.Sets.File, p.Sets.Lost = nil, errors.New("the file is damaged")
		})
	})
	form, body := formOf(t, "cat", string(imageFile("a cat")))
	for _, r := range []reply{
		s.do(t, "GET", "/v1/prompt-sets", ""), s.do(t, "GET", "/v1/prompt-sets/pets", ""), s.json(t, "PUT", "/v1/prompt-sets/pets", pets),
		s.do(t, "DELETE", "/v1/prompt-sets/pets", ""), s.post(t, "/v1/prompt-sets/pets/examples", `{"label":"cat","image":"`+b64(goodImage)+`"}`),
		s.post(t, "/v1/classify", `{"image":"`+b64(goodImage)+`","prompt_set":"pets"}`), s.do(t, "POST", "/v1/prompt-sets/pets/evaluate", body, "Content-Type", form),
	} {
		r.wantError(t, 503, "unavailable", "the file is damaged")
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
}

// vectorJSON is the vector of a text as JSON.
func vectorJSON(text string) string { return string(must(json.Marshal(testVector(text)))) }

func TestAddExample(t *testing.T) {
	s := serve(t, nil)
	const path = "/v1/prompt-sets/pets/examples"
	s.post(t, path, `{"label":"cat","image":"`+b64(goodImage)+`"}`).wantError(t, 404, "prompt_set_not_found", "")
	first := s.put(t, "pets", `{"labels":[{"name":"cat","images":["`+b64("my cat")+`","data:image/bmp;base64,`+b64("her cat")+`"]},{"name":"größe","prompts":["a dog"]}]}`)
	if first.ScoreSource != "prototype" || len(first.Labels[0].Examples) != 2 || first.Labels[0].Images != nil || first.Labels[0].Examples[0].Vector != nil {
		t.Errorf("%+v", first)
	}
	form, body := formOf(t, "image", string(imageFile("a dog of mine")), "label", "größe")
	replies := []reply{
		s.post(t, path, `{"label":" größe ","image":"`+b64("my dog")+`"}`),
		s.post(t, path, `{"label":"größe","vector":`+vectorJSON("a vector")+`}`, "If-Match", "*"),
		s.do(t, "POST", path, body, "Content-Type", form),
		s.do(t, "POST", path+"?label=gr%C3%B6%C3%9Fe", string(imageFile("your dog")), "Content-Type", "image/bmp"),
		s.do(t, "POST", path+"?label=gr%C3%B6%C3%9Fe", string(imageFile("your dog")), "Content-Type", "application/octet-stream"), // again
		s.post(t, path, `{"label":"background","image":"`+b64("a wall")+`"}`),
		s.post(t, path, `{"label":"","image":"`+b64("a floor")+`"}`),
	}
	last := first.ETag
	for i, r := range replies {
		var set setAnswer
		r.wantOK(t)
		r.into(t, &set)
		if (set.ETag == last) != (i == 4) || r.header.Get("ETag") != `"`+set.ETag+`"` {
			t.Errorf("reply %d: ETag %s after %s", i, set.ETag, last)
		}
		last = set.ETag
		if n := len(set.Labels[1].Examples); n != min(i+1, 4) {
			t.Errorf("reply %d: %d examples", i, n)
		}
		if n := len(set.Background.Examples); n != max(i-4, 0) {
			t.Errorf("reply %d: %d examples of the background", i, n)
		}
	}
	var full setAnswer
	answer := s.do(t, "GET", "/v1/prompt-sets/pets?examples=full", "")
	answer.into(t, &full)
	if full.ScoreSource != "gda" {
		t.Errorf("the scores are of %s", full.ScoreSource)
	}
	for i, text := range []string{"my dog", "a vector", "a dog of mine", "your dog"} {
		e := full.Labels[1].Examples[i]
		if e.Thumbnail == nil != (text == "a vector") || len(e.Vector) != 4*testDimension || e.Model == "" || e.ID != sets.ExampleID(e.Vector) {
			t.Errorf("example %d: %+v", i, e)
		}
		got := make([]float32, testDimension)
		must(binary.Decode(e.Vector, binary.LittleEndian, got))
		if c := dot(got, testVector(text)); math.Abs(c-1) > 1e-5 {
			t.Errorf("example %d: the cosine is %v", i, c)
		}
	}
	// What is exported can be put elsewhere, and answers the same.
	elsewhere := serve(t, nil)
	if r := elsewhere.json(t, "PUT", "/v1/prompt-sets/pets", string(answer.body)); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	here, there := s.classify(t, "your dog", "pets", ""), elsewhere.classify(t, "your dog", "pets", "")
	if here.ETag != there.ETag || !slices.Equal(here.Classifications, there.Classifications) || here.ScoreSource != "gda" || here.Classifications[0].Text != "größe" {
		t.Errorf("%+v, elsewhere %+v", here, there)
	}
	s.do(t, "GET", "/v1/prompt-sets/pets?examples=none", "").wantError(t, 400, "invalid_request", "examples")

	image := b64(goodImage)
	for name, c := range map[string]struct{ body, code, text string }{
		"no JSON":         {`{`, "invalid_json", ""},
		"no label":        {`{"image":"` + image + `"}`, "invalid_request", "label"},
		"label: null":     {`{"label":null,"image":"` + image + `"}`, "invalid_request", "label"},
		"label: number":   {`{"label":1,"image":"` + image + `"}`, "invalid_request", "label"},
		"half a label":    {`{"label":"\udc00","image":"` + image + `"}`, "invalid_request", "label"},
		"other label":     {`{"label":"cow","image":"` + image + `"}`, "invalid_request", "cow"},
		"nothing":         {`{"label":"cat"}`, "invalid_image", "image"},
		"both":            {`{"label":"cat","image":"` + image + `","vector":[1]}`, "invalid_request", "vector"},
		"image: number":   {`{"label":"cat","image":7}`, "invalid_image", "image"},
		"image: text":     {`{"label":"cat","image":"aGVsbG8sIEkgYW0gYSB0ZXh0"}`, "invalid_image", ""},
		"vector: text":    {`{"label":"cat","vector":"x"}`, "invalid_request", "vector"},
		"vector: texts":   {`{"label":"cat","vector":["1"]}`, "invalid_request", "vector"},
		"vector: empty":   {`{"label":"cat","vector":[]}`, "invalid_request", "vector"},
		"vector: short":   {`{"label":"cat","vector":[1,2]}`, "invalid_request", "vector"},
		"vector: null":    {`{"label":"cat","vector":[null` + strings.Repeat(",1", testDimension-1) + `]}`, "invalid_request", "vector"},
		"vector: zeros":   {`{"label":"cat","vector":[0` + strings.Repeat(",0", testDimension-1) + `]}`, "invalid_request", "vector"},
		"vector: huge":    {`{"label":"cat","vector":[1e39` + strings.Repeat(",0", testDimension-1) + `]}`, "invalid_request", "vector"},
		"vector: long":    {`{"label":"cat","vector":[1` + strings.Repeat(",1", 8192) + `]}`, "invalid_request", "vector"},
		"vector: nested":  {`{"label":"cat","vector":[[1]]}`, "invalid_request", "vector"},
		"vector: 512 {}s": {`{"label":"cat","vector":[{}` + strings.Repeat(",{}", testDimension-1) + `]}`, "invalid_request", "vector"},
	} {
		t.Run(name, func(t *testing.T) { s.post(t, path, c.body).wantError(t, 400, c.code, c.text) })
	}
	raw := s.do(t, "POST", path+"?label=cat", strings.Repeat("\x00", 3*8*8), "Content-Type", "application/octet-stream", "X-Frame-Format", "rgb24; 8x8")
	raw.wantError(t, 400, "invalid_request", "frame")
	s.do(t, "POST", path+"?label=%ff", string(imageFile("x")), "Content-Type", "image/bmp").wantError(t, 400, "invalid_request", "label")
	s.do(t, "POST", path, string(imageFile("x")), "Content-Type", "image/bmp").wantError(t, 400, "invalid_request", "label")
}

// TestSetsAreWhole changes a set again and again while images are classified by it: each is answered by one version, the one
// whose ETag it has, and nothing of the requests' memory, which is overwritten when it is given back, is in a set.
func TestSetsAreWhole(t *testing.T) {
	s := serve(t, nil)
	body := func(version int) string {
		var labels []string
		for i := range 5 {
			labels = append(labels, fmt.Sprintf(`{"name":"version %d label %d","prompts":["thing %d of %d"],"images":[%q]}`, version, i, i, version, b64(fmt.Sprint("image ", i))))
		}
		return `{"labels":[` + strings.Join(labels, ",") + `]}`
	}
	versions := map[string]string{} // by ETag
	for v := range 4 {
		versions[s.put(t, "set", body(v)).ETag] = fmt.Sprintf("version %d label ", v)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				s.put(t, "set", body(n%4))
				s.post(t, "/v1/classify", classifyBody(goodImage, "", strings.Repeat("another's ", 20), "x"))
			}
		})
	}
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for range 60 {
				a := s.classify(t, goodImage, "set", `,"top_k":5`)
				seen := map[string]bool{}
				for _, c := range a.Classifications {
					if versions[a.ETag] == "" || !strings.HasPrefix(c.Text, versions[a.ETag]) || seen[c.Text] {
						t.Errorf("%q by the version %s", c.Text, a.ETag)
					}
					seen[c.Text] = true
				}
				var set setAnswer
				s.do(t, "GET", "/v1/prompt-sets/set", "").into(t, &set)
				for i, l := range set.Labels {
					if want := fmt.Sprint(versions[set.ETag], i); l.Name != want || len(l.Examples) != 1 {
						t.Errorf("%q by the version %s", l.Name, set.ETag)
					}
				}
			}
		})
	}
	readers.Wait()
	close(done)
	wg.Wait()
}

// FuzzPromptSet sends bodies through the handler: each is answered with a set or with an error that has a reason, and a set that is
// answered with can be sent back.
func FuzzPromptSet(f *testing.F) {
	for _, body := range []string{
		pets, `{"labels":[{"name":"a","images":[]}]}`, `{"labels":[{"name":"a","negation":["b"],"threshold":{"enter":0.5,"exit":0.4}}],"activation":"pair"}`,
		`{"labels":[{"name":"a","examples":[{"id":"0123456789abcdef0123456789abcdef"}]}],"background":{"auto":true,"prompts":["x"]},"fewshot":{"mode":"gda","alpha":0.1}}`,
		`{"labels":[{"name":"a","examples":[{"vector":"AAAA","thumbnail":"AAAA","model":"x","from_thumbnail":true}]}],"templates":["{} x"]}`, `{"labels":[{"name":"\ud800"}]}`,
		`{"labels":null,"templates":7,"min_cosine":"x"}`, `[`, "",
	} {
		f.Add([]byte(body))
	}
	s := handlerOnly(f)
	put := func(body []byte) (int, []byte) {
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetMethod("PUT")
		ctx.Request.SetRequestURI("/v1/prompt-sets/set")
		ctx.Request.Header.SetContentType("application/json")
		ctx.Request.SetBodyStream(bytes.NewReader(body), len(body))
		s.handle(&ctx)
		return ctx.Response.StatusCode(), slices.Clone(ctx.Response.Body())
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		status, answer := put(body)
		if !json.Valid(answer) || status >= 500 {
			t.Fatalf("%d %s", status, answer)
		}
		if status < 300 {
			if status, again := put(answer); status != 200 || !bytes.Equal(again, answer) {
				t.Fatalf("%s\nsent back: %d %s", answer, status, again)
			}
		}
	})
}

// testSets has a file for the sets of an engine.
func testSets(t testing.TB) clip.SetParts {
	t.Helper()
	return clip.SetParts{File: must(sets.Open(filepath.Join(t.TempDir(), sets.FileName))), Limits: sets.Limits{PromptBytes: 2048}}
}
