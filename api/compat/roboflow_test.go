package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// askOf has the reader of a route read a body, for OpenAI's ViT-B/32.
func askOf(t *testing.T, d *Dialect, path, body string) (*Ask, error) {
	t.Helper()
	a := &Ask{Service: testService()}
	a.Service.Aliases, a.Service.LogitScale = append(a.Service.Aliases, "ViT-B-32__openai"), 100
	b, err := Parse([]byte(body))
	if err == nil {
		err = routeOf(t, d, "POST "+path).JSON(a, b)
	}
	return a, err
}

// written is the answer of a route for the vectors of an Ask's items, as JSON is read.
func written(t *testing.T, d *Dialect, path string, a *Ask, vectors ...[]float32) (answer map[string]any) {
	t.Helper()
	r := &Result{ID: "an id", Took: 1500 * time.Millisecond}
	for i, v := range vectors {
		tokens := 0
		if a.Items[i].IsText() {
			tokens = 3
		}
		r.Vectors = append(r.Vectors, Vector{Embedding: v, Tokens: tokens})
	}
	if len(vectors) != len(a.Items) {
		t.Fatalf("%d items of %d vectors", len(a.Items), len(vectors))
	}
	b := routeOf(t, d, "POST "+path).Write(nil, a, r)
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return answer
}

// refusals has bodies that a route must refuse, each with the field that is named and a part of the text.
func refusals(t *testing.T, d *Dialect, path string, cases [][3]string) {
	t.Helper()
	for _, c := range cases {
		a, err := askOf(t, d, path, c[0])
		var f *Fault
		if !errors.As(err, &f) || f.Param != c[1] || !strings.Contains(f.Text, c[2]) {
			t.Errorf("%s %.200s: %v (%q), want %q about %q", path, c[0], err, show(a), c[2], c[1])
		}
	}
}

// Vectors of unit length, the first two with a cosine of 0.6.
var (
	east  = []float32{1, 0, 0, 0}
	north = []float32{0.6, 0.8, 0, 0}
	up    = []float32{0, 0, 1, 0}
)

func TestRoboflow(t *testing.T) {
	for _, c := range [][3]string{
		{"/clip/embed_image", `{"image":{"type":"base64","value":"aGk="},"api_key":"x"}`, `I"aGk="`},
		{"/clip/embed_image", `{"image":[{"type":"base64","value":"data:image/png;base64,aGk="},{"type":"url","value":"https://h/a.jpg"}],"clip_version_id":"ViT-B-32"}`,
			`I"data:image/png;base64,aGk=" U"https://h/a.jpg"`},
		{"/clip/embed_image", `{"image":"aGk=","clip_version_id":null}`, `I"aGk="`},
		{"/clip/embed_text", `{"text":"a cat","clip_version_id":"openai/clip-vit-base-patch32"}`, `T"a cat"`},
		{"/clip/embed_text", `{"text":["a cat","data:image/png;base64,aGk="]}`, `T"a cat" T"data:image/png;base64,aGk="`},
		{"/clip/compare", `{"subject":{"type":"base64","value":"aGk="},"prompt":"a cat"}`, `I"aGk=" T"a cat"`},
		{"/clip/compare", `{"subject":"x","subject_type":"text","prompt":["a","b"]}`, `T"x" T"a" T"b"`},
		{"/clip/compare", `{"subject":"x","subject_type":"text","prompt":{"type":"base64","value":"aGk="},"prompt_type":"image"}`, `T"x" I"aGk="`},
		{"/clip/compare", `{"subject":"aGk=","prompt":{"one, \"two\"":{"type":"url","value":"http://h/a"},"b" : "aGk="},"prompt_type":"image"}`, `I"aGk=" U"http://h/a" I"aGk="`},
		{"/clip/compare", `{"subject":"aGk=","prompt":{"type":"a","cat":"b"}}`, `I"aGk=" T"a" T"b"`},
	} {
		if a, err := askOf(t, &roboflow, c[0], c[1]); err != nil || show(a) != c[2] {
			t.Errorf("%s %s: %s, %v, want %s", c[0], c[1], show(a), err, c[2])
		}
	}
	many := strings.Repeat(`"x",`, MaxItems) + `"x"`
	var named strings.Builder
	for i := range MaxItems {
		fmt.Fprintf(&named, `,"%d":"x"`, i)
	}
	refusals(t, &roboflow, "/clip/embed_image", [][3]string{
		{`{}`, "image", "Missing"},
		{`{"image":[]}`, "image", "empty"},
		{`{"image":[` + many + `]}`, "image", "at most 2048"},
		{`{"image":{"type":"numpy","value":"gASVAA=="}}`, "image", "pickle"},
		{`{"image":["aGk=",{"type":"numpy","value":"gASVAA=="}]}`, "image[1]", "pickle"},
		{`{"image":{"type":"file","value":"/etc/passwd"}}`, "image", "base64"},
		{`{"image":{"type":"base64","value":"http://h/a"}}`, "image", "base64"},
		{`{"image":{"type":"url","value":"file:///etc/passwd"}}`, "image", "url"},
		{`{"image":{"type":"base64","value":null}}`, "image", "value"},
		{`{"image":{"type":"base64","value":7}}`, "image", "string"},
		{`{"image":7}`, "image", "object"},
		{`{"image":[["aGk="]]}`, "image[0]", "object"},
		{`{"image":"aGk=","clip_version_id":"ViT-B-16"}`, "model", `"ViT-B-16" does not exist`},
	})
	refusals(t, &roboflow, "/clip/embed_text", [][3]string{
		{`{"text":null}`, "text", "Missing"}, {`{"text":["x",""]}`, "text[1]", "not empty"}, {`{"text":{"x":"y"}}`, "text", "string"},
		{`{"text":"x","clip_version_id":"RN50"}`, "model", "does not exist"},
	})
	refusals(t, &roboflow, "/clip/compare", [][3]string{
		{`{"prompt":"x"}`, "subject", "Missing"},
		{`{"subject":["aGk=","aGk="],"prompt":"x"}`, "subject", "must be one"},
		{`{"subject":"aGk="}`, "prompt", "Missing"},
		{`{"subject":"aGk=","prompt":{}}`, "prompt", "empty"},
		{`{"subject":"aGk=","prompt":{"a":""}}`, "prompt[0]", "not empty"},
		{`{"subject":"aGk=","prompt":{"a":"x"` + named.String() + `}}`, "prompt", "at most 2048"},
		{`{"subject":"aGk=","prompt":[` + many + `]}`, "prompt", "at most 2048"},
		{`{"subject":"aGk=","subject_type":"sound","prompt":"x"}`, "subject_type", `"image" or "text"`},
		{`{"subject":"aGk=","prompt_type":7,"prompt":"x"}`, "prompt_type", `"image" or "text"`},
		{`{"subject":"aGk=","prompt":"x","clip_version_id":"ViT-B-16"}`, "model", "does not exist"},
	})
}

func TestRoboflowWriter(t *testing.T) {
	a, err := askOf(t, &roboflow, "/clip/embed_text", `{"text":["x","y"]}`)
	if got := written(t, &roboflow, "/clip/embed_text", a, east, north); err != nil || got["time"] != 1.5 || got["inference_id"] != "an id" ||
		fmt.Sprint(got["embeddings"]) != "[[1 0 0 0] [0.6 0.8 0 0]]" {
		t.Errorf("%v, %v", got, err)
	}
	a, err = askOf(t, &roboflow, "/clip/compare", `{"subject":"aGk=","prompt":["x","y"]}`)
	got := written(t, &roboflow, "/clip/compare", a, east, north, up)
	if list := got["similarity"].([]any); err != nil || len(list) != 2 || math.Abs(list[0].(float64)-0.6) > 1e-6 || list[1] != 0.0 || got["parent_id"] != nil {
		t.Errorf("%v, %v", got, err)
	}
	a, err = askOf(t, &roboflow, "/clip/compare", `{"subject":"aGk=","prompt":{"a \"cat\"":"x"}}`)
	got = written(t, &roboflow, "/clip/compare", a, east, up)
	if named := got["similarity"].(map[string]any); err != nil || len(named) != 1 || named[`a "cat"`] != 0.0 {
		t.Errorf("%v, %v", got, err)
	}
}
