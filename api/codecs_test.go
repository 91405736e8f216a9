package api

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/compat"
)

// TestZeroShotIsClassify: the task of Hugging Face gives the probabilities of /v1/classify.
func TestZeroShotIsClassify(t *testing.T) {
	s := serve(t, nil)
	labels := []string{"cat", "a \"dog\"", "car", "😀"}
	sentences := []string{}
	for _, label := range labels {
		sentences = append(sentences, "one "+label+"!")
	}
	var want classifyAnswer
	r := s.post(t, "/v1/classify", classifyBody("a cat", `,"top_k":4`, sentences...))
	r.wantOK(t)
	r.into(t, &want)
	parameters := fmt.Sprintf(`"parameters":{"candidate_labels":%s,"hypothesis_template":"one {}!"}}`, must(json.Marshal(labels)))
	for _, inputs := range []string{`{"image":"` + b64("a cat") + `"}`, `"` + b64("a cat") + `"`, `"data:image/bmp;base64,` + b64("a cat") + `"`} {
		for _, path := range []string{"/", "/predict"} {
			var got []struct {
				Label string
				Score float64
			}
			r := s.post(t, path, `{"inputs":`+inputs+`,`+parameters)
			r.wantOK(t)
			r.into(t, &got)
			for i, c := range want.Classifications {
				if len(got) != 4 || "one "+got[i].Label+"!" != c.Text || math.Abs(got[i].Score-c.Probability) > 1e-9 {
					t.Fatalf("%s: %s, want %v", path, r.body, want.Classifications)
				}
			}
		}
	}
}

// TestHuggingFaceBodies: its clients send the file of an image without saying so, and curl JSON as a form.
func TestHuggingFaceBodies(t *testing.T) {
	s := serve(t, nil)
	const form, noLabels = "application/x-www-form-urlencoded", "Missing 'parameters.candidate_labels'"
	for _, c := range []struct {
		media, body string
		status      int
		want        string
	}{
		{"", string(imageFile("a cat")), 400, noLabels},
		{"image/bmp", string(imageFile("a cat")), 400, noLabels},
		{"application/octet-stream", "x", 400, noLabels},
		{form, "x", 400, noLabels},
		{form, ` {"inputs":["x"]}`, 200, "[["},
		{"", "\n" + `{"inputs":["x"]}`, 200, "[["},
		{"", `{"inputs":`, 400, `{"error":"The body is not valid JSON`},
		{form, `{"inputs":`, 400, `{"error":"The body is not valid JSON`},
		{"application/json", "x", 400, `{"error":"The body is not valid JSON`},
	} {
		for _, path := range []string{"/", "/predict"} {
			r := s.do(t, "POST", path, c.body, "Content-Type", c.media)
			if r.status != c.status || !strings.Contains(string(r.body), c.want) || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("%q %.20q: %d %.200s, want %d %s", c.media, c.body, r.status, r.body, c.status, c.want)
			}
		}
	}
	s.allReturned(t)
}

// TestCodecFailures: what the device does wrong has the status that clients of the system expect, and says nothing of the device.
func TestCodecFailures(t *testing.T) {
	s := serve(t, nil)
	image := func(text string) string { return `{"images":["` + b64(text) + `"]}` }
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/vectorize", image(failingImage), 500, `{"error":"Failed to encode image"}`},
		{"/vectorize", image(notAnImage), 400, `{"error":"images[0]: `},
		{"/vectorize", image(avifImage), 415, `{"error":"images[0]: `},
		{"/vectorize", image(hugeImage), 413, `{"error":"images[0]: `},
		{"/vectorize", `{"texts":["` + unavailableText + `"]}`, 503, `{"error":"The encoder is not available`},
		{"/api/embed", `{"input":"` + unencodableText + `"}`, 500, `{"error":"Failed to encode text"}`},
		{"/api/embed", `{"input":"` + unavailableText + `"}`, 503, `{"error":"The encoder is not available`},
		{"/embed", `{"inputs":"` + unencodableText + `"}`, 424, `{"error":"Failed to encode text","error_type":"Backend"}`},
		{"/embed", `{"inputs":"` + unavailableText + `"}`, 503, `,"error_type":"Unhealthy"}`},
		{"/similarity", `{"inputs":{"source_sentence":"x","sentences":["` + panickingText + `"]}}`, 424, `,"error_type":"Backend"}`},
		{"/", `{"inputs":"` + unavailableText + `"}`, 502, `{"error":"The encoder is not available`},
		{"/", `{"inputs":"` + b64(lostDevice) + `","parameters":{"candidate_labels":["x"]}}`, 502, `{"error":"The encoder is not available`},
		{"/v2/embed", image(panickingImage), 500, `{"message":"` + internalSentence + `"}`},
		{"/v1/embed", `{"texts":["` + notFiniteText + `"]}`, 500, `{"message":"`},
		{"/v1/multimodalembeddings", `{"inputs":[{"content":"` + unencodableText + `"}]}`, 500, `Failed to encode text`},
	} {
		r := s.post(t, c.path, c.body)
		if r.status != c.status || !strings.Contains(string(r.body), c.want) || strings.Contains(string(r.body), "/dev/") {
			t.Errorf("%s %.60s: %d %s, want %d %s", c.path, c.body, r.status, r.body, c.status, c.want)
		}
		if retry := r.header.Get("Retry-After") != ""; retry != strings.Contains(string(r.body), "not available") {
			t.Errorf("%s %.60s: Retry-After %t", c.path, c.body, retry)
		}
	}
	s.allReturned(t)

	status := func(path string) int { return s.do(t, "GET", path, "").status }
	if live, ready := status("/.well-known/live"), status("/.well-known/ready"); live != 204 || ready != 204 {
		t.Errorf("live %d, ready %d", live, ready)
	}
	s.lose("no device")
	if live, ready := status("/.well-known/live"), status("/.well-known/ready"); live != 204 || ready != 503 {
		t.Errorf("without a device: live %d, ready %d", live, ready)
	}
	for _, path := range []string{"/meta", "/info", "/api/tags", "/api/version"} { // which need none
		s.do(t, "GET", path, "").wantOK(t)
	}
	for path, want := range map[string]int{"/vectorize": 503, "/api/embed": 503, "/embed": 503, "/": 502, "/v2/embed": 503} {
		if r := s.post(t, path, `{}`); r.status != want {
			t.Errorf("%s without a device: %d %s", path, r.status, r.body)
		}
	}
}

// TestCodecsCutTexts: a text that is longer than the model reads is cut, and the header says so, unless the client wants it whole.
func TestCodecsCutTexts(t *testing.T) {
	s := serve(t, nil)
	long := strings.Repeat("word ", 100)
	for path, body := range map[string]string{
		"/vectorize": `{"texts":["x","%s"],"truncate":%s}`, "/api/embed": `{"input":["x","%s"],"truncate":%s}`, "/embed": `{"inputs":["x","%s"],"truncate":%s}`,
		"/similarity": `{"inputs":{"source_sentence":"x","sentences":["%s"]},"parameters":{"truncate":%s}}`, "/": `{"inputs":["x","%s"],"truncate":%s}`,
		"/v1/embed": `{"texts":["x","%s"],"truncate":%s}`, "/v2/embed": `{"inputs":[{"content":"x"},{"content":"%s"}],"truncate":%s}`,
		"/v1/multimodalembeddings": `{"inputs":[{"content":"x"},{"content":"%s"}],"truncation":%s}`,
	} {
		r := s.post(t, path, fmt.Sprintf(body, long, "true"))
		if r.status != 200 || r.header.Get("X-Clip-Truncated") != "1" {
			t.Errorf("%s: %d, cut %q", path, r.status, r.header.Get("X-Clip-Truncated"))
		}
		r = s.post(t, path, fmt.Sprintf(body, long, "false"))
		if !slices.Contains([]int{400, 422}, r.status) || !strings.Contains(string(r.body), "exceeds the context length") {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
		r = s.post(t, path, fmt.Sprintf(body, "y", "false"))
		if r.wantOK(t); r.header.Get("X-Clip-Truncated") != "" {
			t.Errorf("%s: cut %q", path, r.header.Get("X-Clip-Truncated"))
		}
	}
}

// TestEmptyTexts: Weaviate and Ollama have those, and count the vectors.
func TestEmptyTexts(t *testing.T) {
	s := serve(t, nil)
	var weaviate struct{ TextVectors, ImageVectors [][]float32 }
	r := s.post(t, "/vectorize", `{"texts":["","x"," "]}`)
	r.wantOK(t)
	r.into(t, &weaviate)
	if v := weaviate.TextVectors; len(v) != 3 || !slices.Equal(v[0], testVector("")) || !slices.Equal(v[1], testVector("x")) || weaviate.ImageVectors == nil {
		t.Errorf("%.300s", r.body)
	}
	var ollama struct{ Embeddings [][]float32 }
	r = s.post(t, "/api/embed", `{"input":["","x"]}`)
	r.wantOK(t)
	noError(t, json.Unmarshal(r.body, &ollama))
	if v := ollama.Embeddings; len(v) != 2 || !slices.Equal(v[0], testVector("")) || !slices.Equal(v[1], testVector("x")) {
		t.Errorf("%.300s", r.body)
	}
}

// TestCodecsOff: with its setting off a system is not there.
func TestCodecsOff(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.Compat = compat.Config{Cohere: true} })
	for path, want := range map[string]int{"/embed": 404, "/vectorize": 404, "/api/embed": 404, "/": 405, "/predict": 404, "/v1/embed": 400} {
		if r := s.post(t, path, `{}`); r.status != want {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

// TestNoDialectAnswersForAnotherModel: vectors of another model would be taken for good ones, and spoil an index. Where a system has
// no field for the model, "model" is it.
func TestNoDialectAnswersForAnotherModel(t *testing.T) {
	s := serve(t, nil)
	image := b64("a cat")
	for path, body := range map[string]string{
		"/v1/embeddings": `{"input":"x","model":"%s"}`, "/embeddings": `{"input":"x","model":"%s"}`, "/embeddings_image": `{"input":"` + image + `","model":"%s"}`,
		"/embedding": `{"content":"x","model":"%s"}`, "/vectorize": `{"texts":["x"],"model":"%s"}`, "/api/embed": `{"input":"x","model":"%s"}`,
		"/api/embeddings": `{"prompt":"x","model":"%s"}`, "/api/show": `{"model":"%s"}`, "/embed": `{"inputs":"x","model":"%s"}`,
		"/similarity": `{"inputs":{"source_sentence":"x","sentences":["y"]},"model":"%s"}`, "/": `{"inputs":"x","model":"%s"}`,
		"/predict": `{"inputs":"` + image + `","parameters":{"candidate_labels":["x"]},"model":"%s"}`, "/v1/embed": `{"texts":["x"],"model":"%s"}`,
		"/v2/embed": `{"inputs":[{"content":"x"}],"model":"%s"}`, "/v1/multimodalembeddings": `{"inputs":[{"content":"x"}],"model":"%s"}`,
		"/clip/embed_text": `{"text":"x","clip_version_id":"%s"}`, "/clip/embed_image": `{"image":"` + image + `","clip_version_id":"%s"}`,
		"/clip/compare": `{"subject":"` + image + `","prompt":"x","clip_version_id":"%s"}`, "/qdrant/infer": `{"inputs":[{"data":"x","data_type":"text","model":"%s"}]}`,
		"/post": `{"data":[{"text":"x"}],"model":"%s"}`, "/rank": `{"data":[{"text":"x","matches":[{"text":"y"}]}],"model":"%s"}`,
	} {
		s.post(t, path, fmt.Sprintf(body, testModel)).wantOK(t)
		for _, other := range []string{"ViT-L-14__openai", "text-embedding-3-small", strings.ToUpper(testModel), testModel + " ", testModel + "/", ":latest"} {
			want := 404
			if path == "/qdrant/infer" {
				want = 400 // whose text its client gets to see
			}
			if r := s.post(t, path, fmt.Sprintf(body, other)); r.status != want || strings.Contains(string(r.body), "0.") {
				t.Errorf("%s for %s: %d %.200s", path, other, r.status, r.body)
			}
		}
	}
}

// TestDoorSpeaksTheDialect: clients read the errors of their system alone, also of a request that no codec has seen.
func TestDoorSpeaksTheDialect(t *testing.T) {
	s := keyed(t)
	at := dialectsAt()
	for _, d := range compat.Dialects {
		for _, route := range d.Routes {
			if route.Method != http.MethodPost {
				continue
			}
			media, body := "application/json", "{}"
			if route.JSON == nil {
				media = "multipart/form-data; boundary=x"
			}
			for what, c := range map[string]struct {
				status  int
				headers []string
			}{
				"without a key": {401, nil}, "with a wrong key": {401, []string{"Authorization", "Bearer hc_wrong"}},
				"packed": {415, []string{"Authorization", bearerOf("bob"), "Content-Encoding", "gzip"}},
			} {
				r := s.post(t, route.Path, body, append([]string{"Content-Type", media}, c.headers...)...)
				var sent map[string]any
				message := ""
				if json.Unmarshal(r.body, &sent) == nil {
					for _, name := range at[route.Path] {
						message += compatError[name](sent)
					}
				}
				if r.status != c.status && (r.status != 400 || d.Name != "qdrant") || message == "" || r.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %s: %d %.200s", route.Path, what, r.status, r.body)
				}
			}
		}
	}
}
