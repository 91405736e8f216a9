package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestOpenAPI holds real answers of every operation, good and bad, against the description that
// the service hands out.
func TestOpenAPI(t *testing.T) {
	s := serve(t, nil)
	served := s.do(t, "GET", "/openapi.yaml", "")
	if served.status != 200 || served.header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("%d %s", served.status, served.header.Get("Content-Type"))
	}
	doc := must(openapi3.NewLoader().LoadFromData(served.body))
	noError(t, doc.Validate(t.Context()))
	good := classifyBody(goodImage, `,"top_k":2,"threshold":null`, "x", strings.Repeat("long ", 100))
	cases := []struct {
		name, method, path, body string
		status                   int
		headers                  []string
	}{
		{"health", "GET", "/health", "", 200, nil},
		{"stats", "GET", "/v1/stats", "", 200, nil},
		{"classify", "POST", "/v1/classify", good, 200, []string{headerTimeout, "10000", headerRequestID, "mine"}},
		{"embed image", "POST", "/v1/embed/image", `{"image":"` + b64(goodImage) + `"}`, 200, nil},
		{"embed text", "POST", "/v1/embed/text", `{"text":"x"}`, 200, nil},
		{"embed text as bytes", "POST", "/v1/embed/text?encoding=int8", `{"text":"x"}`, 200, nil},
		{"embed image as bytes", "POST", "/v1/embed/image?encoding=f16", `{"image":"` + b64(goodImage) + `"}`, 200, nil},
		{"bad request", "POST", "/v1/classify", `{`, 400, nil},
		{"bad image", "POST", "/v1/embed/image", `{}`, 400, nil},
		{"bad text", "POST", "/v1/embed/text", `{}`, 400, nil},
		{"too large", "POST", "/v1/classify", classifyBody(hugeImage, "", "x"), 413, nil},
		{"format", "POST", "/v1/embed/image", classifyBody(avifImage, "", "x"), 415, nil},
		{"media type", "POST", "/v1/embed/text", "x", 415, []string{"Content-Type", "text/plain"}},
		{"internal", "POST", "/v1/classify", classifyBody(panickingImage, "", "x"), 500, nil},
		{"unavailable", "POST", "/v1/embed/image", classifyBody(lostDevice, "", "x"), 503, nil},
		{"classify batch", "POST", "/v1/classify/batch", batchBody(`,"prompts":["x"]`, goodImage, notAnImage), 200, nil},
		{"embed batch", "POST", "/v1/embed/batch", batchBody(`,"texts":["x",5]`, goodImage, notAnImage), 200, nil},
		{"embed batch in base64", "POST", "/v1/embed/batch?encoding=int8", batchBody(`,"texts":["x"]`, goodImage), 200, nil},
		{"compare", "POST", "/v1/compare", `{"a":[{"text":"x"}],"b":[{"image":"` + b64(goodImage) + `"},{"vector":` + numbersJSON(testVector("x")) + `}]}`, 200, nil},
		{"bad batch", "POST", "/v1/classify/batch", `{"images":[],"prompts":["x"]}`, 400, nil},
		{"a batch by a set that is not there", "POST", "/v1/classify/batch", batchBody(`,"prompt_set":"nowhere"`, goodImage), 404, nil},
		{"bad comparison", "POST", "/v1/compare", `{"a":[]}`, 400, nil},
		{"unavailable batch", "POST", "/v1/embed/batch", batchBody("", lostDevice), 503, nil},
		{"unsupported item", "POST", "/v1/compare", `{"a":[{"text":"x"}],"b":[{"image":"` + b64(avifImage) + `"}]}`, 415, nil},
		{"late batch", "POST", "/v1/embed/batch", `{"texts":["` + waitingText + `"]}`, 504, []string{headerTimeout, "1"}},
		{"deadline", "POST", "/v1/embed/text", `{"text":"` + waitingText + `"}`, 504, []string{headerTimeout, "1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path, _, _ := strings.Cut(c.path, "?")
			operation := doc.Paths.Value(path).GetOperation(c.method)
			if c.status == 200 && c.body != "" {
				visit(t, "request", operation.RequestBody.Value.Content.Get("application/json"), []byte(c.body))
			}
			checkReply(t, operation, s.do(t, c.method, c.path, c.body, append([]string{"Content-Type", "application/json"}, c.headers...)...), c.status)
		})
	}
	promptSets(t, s, doc)
	s.lose("no device")
	checkReply(t, doc.Paths.Value("/health").Get, s.do(t, "GET", "/health", ""), 503)
	checkReply(t, doc.Paths.Value("/v1/classify").Post, s.post(t, "/v1/classify", good), 503)

	// Everything served is described, and the other way round.
	for method, paths := range s.router.List() {
		for _, path := range paths {
			if item := doc.Paths.Value(path); item == nil || method != http.MethodHead && item.GetOperation(method) == nil {
				t.Errorf("%s %s is not described", method, path)
			}
		}
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if !slices.Contains(s.router.List()[method], path) {
				t.Errorf("%s %s is described and not served", method, path)
			}
		}
	}
	// Every word that a client may meet is in the description, but those of requests that
	// reach no operation.
	all := string(served.body)
	for _, o := range everyKind(t) {
		if !strings.Contains(all, o.code) && o.status != 404 && o.status != 405 {
			t.Errorf("code %s is not described", o.code)
		}
	}
}

// promptSets holds answers of the operations of prompt sets against the description.
func promptSets(t *testing.T, s *service, doc *openapi3.T) {
	t.Helper()
	const one, image = "/v1/prompt-sets/{name}", "image/bmp"
	set := `{"labels":[{"name":"cat","prompts":["a cat"],"negation":["no cat"],"threshold":{"enter":0.5,"exit":0.4},"images":["` + b64("my cat") + `"]},{"name":"dog"}],
		"templates":["a {}"],"background":{"auto":true,"prompts":["x"]},"fewshot":{"mode":"auto","alpha":0.5},"activation":"pair","temperature":2,"min_cosine":0.1,"min_margin":null}`
	visit(t, "request", doc.Paths.Value(one).Put.RequestBody.Value.Content.Get("application/json"), []byte(set))
	form, labelled := formOf(t, "cat", string(imageFile("a cat")), "dog", notAnImage)
	for _, c := range []struct {
		method, template, path, body string
		status                       int
		headers                      []string
	}{
		{"PUT", one, "/v1/prompt-sets/pets", set, 201, nil},
		{"PUT", one, "/v1/prompt-sets/pets", set, 200, nil},
		{"PUT", one, "/v1/prompt-sets/pets", `{}`, 400, nil},
		{"PUT", one, "/v1/prompt-sets/pets", set, 412, []string{"If-None-Match", "*"}},
		{"GET", one, "/v1/prompt-sets/pets", "", 200, nil},
		{"GET", one, "/v1/prompt-sets/pets?examples=full", "", 200, nil},
		{"GET", one, "/v1/prompt-sets/cars", "", 404, nil},
		{"GET", "/v1/prompt-sets", "/v1/prompt-sets", "", 200, nil},
		{"POST", "/v1/classify", "/v1/classify", `{"image":"` + b64("a cat") + `","prompt_set":"pets"}`, 200, nil},
		{"POST", "/v1/classify", "/v1/classify", `{"image":"` + b64("a street") + `","prompt_set":"cars"}`, 404, nil},
		{"POST", one + "/examples", "/v1/prompt-sets/pets/examples?label=dog", string(imageFile("my dog")), 200, []string{"Content-Type", image}},
		{"POST", one + "/examples", "/v1/prompt-sets/pets/examples", `{"label":"cow","image":"` + b64("x") + `"}`, 400, nil},
		{"POST", one + "/evaluate", "/v1/prompt-sets/pets/evaluate", labelled, 200, []string{"Content-Type", form}},
		{"POST", one + "/evaluate", "/v1/prompt-sets/pets/evaluate", labelled, 415, []string{"Content-Type", image}},
		{"DELETE", one, "/v1/prompt-sets/pets", "", 412, []string{"If-Match", `"x"`}},
		{"DELETE", one, "/v1/prompt-sets/cars", "", 404, nil},
	} {
		checkReply(t, doc.Paths.Value(c.template).GetOperation(c.method), s.json(t, c.method, c.path, c.body, c.headers...), c.status)
	}
}

// checkReply holds an answer against what an operation says about its status.
func checkReply(t *testing.T, operation *openapi3.Operation, r reply, status int) {
	t.Helper()
	described := operation.Responses.Status(status)
	if r.status != status || described == nil {
		t.Fatalf("%d %s, want %d, described %v", r.status, r.body, status, described != nil)
	}
	visit(t, fmt.Sprint("answer ", status), described.Value.Content.Get("application/json"), r.body)
	for name := range described.Value.Headers {
		if r.header.Get(name) == "" {
			t.Errorf("header %s is missing", name)
		}
	}
}

// visit checks JSON against its description.
func visit(t *testing.T, what string, media *openapi3.MediaType, body []byte) {
	t.Helper()
	var value any
	noError(t, json.Unmarshal(body, &value))
	if err := media.Schema.Value.VisitJSON(value); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
