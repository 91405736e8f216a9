package api

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// aliased gives the model the name that OpenAI's has elsewhere.
func aliased(_ *Config, svc *Service) {
	svc.Compat.Aliases = []string{"ViT-B-32__openai"}
}

// sameVector says whether numbers are the vector of a text, or of the image that the device knows by it.
func sameVector(got []float32, text string) bool { return slices.Equal(got, testVector(text)) }

// nativeVector is what the service's own path answers.
func (s *service) nativeVector(t *testing.T, path, body string) []float32 {
	t.Helper()
	var a struct{ Embedding []float32 }
	r := s.post(t, path, body)
	r.wantOK(t)
	noError(t, json.Unmarshal(r.body, &a))
	return a.Embedding
}

func TestRoboflow(t *testing.T) {
	s := serve(t, aliased)
	var a struct {
		Embeddings  [][]float32
		Time        *float64
		InferenceID string `json:"inference_id"`
	}
	image := func(text string) string { return `{"type":"base64","value":"` + b64(text) + `"}` }
	r := s.post(t, "/clip/embed_image?api_key=x", `{"image":[`+image("a cat")+`,`+image(goodImage)+`],"clip_version_id":"ViT-B-32","api_key":"x"}`)
	r.wantOK(t)
	r.into(t, &a)
	native := s.nativeVector(t, "/v1/embed/image", `{"image":"`+b64("a cat")+`"}`)
	if len(a.Embeddings) != 2 || !slices.Equal(a.Embeddings[0], native) || !slices.Equal(a.Embeddings[1], testVector(goodImage)) || a.Time == nil || a.InferenceID == "" {
		t.Errorf("%.300s", r.body)
	}
	a.Embeddings = nil
	r = s.post(t, "/clip/embed_text", `{"text":["a dog","`+strings.Repeat("long ", 100)+`"]}`)
	r.wantOK(t)
	r.into(t, &a)
	if len(a.Embeddings) != 2 || !slices.Equal(a.Embeddings[0], s.nativeVector(t, "/v1/embed/text", `{"text":"a dog"}`)) || r.header.Get("X-Clip-Truncated") != "1" {
		t.Errorf("%.300s", r.body)
	}
	var compared struct {
		Similarity  map[string]float64
		ParentID    *string `json:"parent_id"`
		Time        *float64
		InferenceID string `json:"inference_id"`
	}
	r = s.post(t, "/clip/compare", `{"subject":`+image("a cat")+`,"prompt":{"dog":`+image("a dog")+`,"cat":`+image("a cat")+`},"prompt_type":"image"}`)
	r.wantOK(t)
	r.into(t, &compared)
	for name, want := range map[string]float64{"cat": 1, "dog": dot(testVector("a cat"), testVector("a dog"))} {
		if got, ok := compared.Similarity[name]; !ok || math.Abs(got-want) > 1e-6 || len(compared.Similarity) != 2 {
			t.Errorf("%s: %v, want %v", name, compared.Similarity, want)
		}
	}
	for _, c := range []struct {
		path, body string
		status     int
		text       string
	}{
		{"/clip/embed_image", `{"image":{"type":"numpy","value":"gASVAA=="}}`, 400, "pickle"},
		{"/clip/embed_image", `{"image":{"type":"url","value":"http://127.0.0.1/a.jpg"}}`, 400, "image"},
		{"/clip/embed_image", `{"image":"` + b64(notAnImage) + `"}`, 400, "image: "},
		{"/clip/embed_image", `{"image":["` + b64("a cat") + `","` + b64(hugeImage) + `"]}`, 413, "image[1]: "},
		{"/clip/embed_text", `{"text":"x","clip_version_id":"ViT-B-16"}`, 404, "does not exist"},
		{"/clip/compare", `{`, 400, "JSON"},
		{"/clip/compare", `{"subject":"` + b64(lostDevice) + `","prompt":"x"}`, 503, ""},
		{"/clip/compare", `{"subject":"` + b64(panickingImage) + `","prompt":"x"}`, 500, "log"},
	} {
		var e struct{ Message string }
		r := s.post(t, c.path, c.body)
		r.into(t, &e)
		if r.status != c.status || !strings.Contains(e.Message, c.text) || e.Message == "" {
			t.Errorf("%s %.100s: %d %s", c.path, c.body, r.status, r.body)
		}
	}
	s.allReturned(t)
}

func TestQdrant(t *testing.T) {
	s := serve(t, aliased)
	r := s.post(t, "/qdrant/infer", `{"inputs":[{"data":"a cat","data_type":"text","model":"Qdrant/clip-ViT-B-32-text","options":null},
		{"data":"`+b64("a dog")+`","data_type":"image","model":"Qdrant/clip-ViT-B-32-vision"},
		{"data":{"image":"data:image/bmp;base64,`+b64("a cow")+`"},"data_type":"object","model":"`+testModel+`"}],"inference":"update","token":null}`)
	r.wantOK(t)
	var a struct {
		Embeddings [][]float32
		Usage      struct {
			Models map[string]struct{ Tokens int }
		}
	}
	r.into(t, &a)
	if len(a.Embeddings) != 3 || a.Usage.Models["Qdrant/clip-ViT-B-32-text"].Tokens != 4 || len(a.Usage.Models) != 3 {
		t.Fatalf("%.300s", r.body)
	}
	for i, text := range []string{"a cat", "a dog", "a cow"} {
		if !sameVector(a.Embeddings[i], text) {
			t.Errorf("input %d has the vector of something else", i)
		}
	}
	for body, want := range map[string]string{
		`{"inputs":[]}`: "inputs",
		`{"inputs":[{"data":"x","data_type":"text","model":"Qdrant/bm25"}]}`:                                              "does not exist",
		`{"inputs":[{"data":"` + b64(hugeImage) + `","data_type":"image"}]}`:                                              "inputs[0]: ",
		`{"inputs":[{"data":"x","data_type":"text"},{"data":"` + b64(avifImage) + `","data_type":"image"}]}`:              "inputs[1]: ",
		`{"inputs":[{"data":"http://169.254.169.254/latest/meta-data","data_type":"image","model":"` + testModel + `"}]}`: "",
	} {
		var e struct{ Error string }
		r := s.post(t, "/qdrant/infer", body)
		if r.into(t, &e); r.status != 400 || !strings.Contains(e.Error, want) {
			t.Errorf("%.100s: %d %s", body, r.status, r.body)
		}
	}
	s.allReturned(t)
}

func TestCLIPAsService(t *testing.T) {
	s := serve(t, aliased)
	type document struct {
		ID, Text  string
		Embedding []float32
		Matches   []document
		Scores    struct {
			Score  struct{ Value float64 } `json:"clip_score"`
			Cosine struct{ Value float64 } `json:"clip_score_cosine"`
		}
	}
	var a struct {
		Header struct{ RequestID, ExecEndpoint string }
		Data   []document
	}
	ask := func(path, body string) {
		t.Helper()
		r := s.post(t, path, body)
		r.wantOK(t)
		a.Data = nil
		noError(t, json.Unmarshal(r.body, &a))
		if a.Header.RequestID != r.header.Get(headerRequestID) {
			t.Errorf("%.100s", r.body)
		}
	}
	ask("/post", `{"data":[{"id":"one","text":"a cat"},{"blob":"`+b64("a dog")+`"},{"uri":"data:image/bmp;base64,`+b64("a cow")+`"}],"execEndpoint":"/","parameters":{}}`)
	for i, text := range []string{"a cat", "a dog", "a cow"} {
		if len(a.Data) != 3 || !sameVector(a.Data[i].Embedding, text) || a.Data[i].ID == "" || a.Data[i].Matches != nil {
			t.Fatalf("document %d: %+v", i, a.Data)
		}
	}
	ask("/rank", fmt.Sprintf(`{"data":[{"blob":%q,"matches":[{"text":"a dog"},{"text":%q},{"blob":%q}]}]}`, b64("a cat"), "a cat", b64("a cow")))
	var classified classifyAnswer
	r := s.post(t, "/v1/classify", classifyBody("a cat", "", "a dog", "a cat"))
	r.into(t, &classified)
	list := a.Data[0].Matches
	if len(list) != 3 || list[0].Text != "a cat" || a.Header.ExecEndpoint != "/rank" || math.Abs(list[0].Scores.Cosine.Value-classified.Classifications[0].Cosine) > 1e-6 {
		t.Fatalf("%+v", list)
	}
	for i := 1; i < len(list); i++ {
		if list[i].Scores.Score.Value > list[i-1].Scores.Score.Value || list[i].Scores.Cosine.Value > list[i-1].Scores.Cosine.Value {
			t.Errorf("match %d is better than the one before", i)
		}
	}
	for body, status := range map[string]int{
		`{"data":[{"uri":"/etc/passwd"}]}`: 400, `{"data":[{"text":"x"},{"blob":"` + b64(notAnImage) + `"}]}`: 400,
		`{"data":[{"blob":"` + b64(avifImage) + `"}]}`: 415, `{"data":[{"blob":"` + b64(lostDevice) + `"}]}`: 503, `[]`: 400,
	} {
		var e struct {
			Header struct {
				Status struct{ Code, Description string }
			}
		}
		r := s.post(t, "/post", body)
		if noError(t, json.Unmarshal(r.body, &e)); r.status != status || e.Header.Status.Code != "ERROR" || e.Header.Status.Description == "" {
			t.Errorf("%.100s: %d %s", body, r.status, r.body)
		}
	}
	s.allReturned(t)
}
