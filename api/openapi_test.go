package api

import (
	"fmt"
	"html"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"hailoclip/api/admin"
	"hailoclip/api/fleet"
	"hailoclip/api/stream/source"
)

// TestOpenAPI holds real answers of every operation, good and bad, against the description that
// the service hands out.
func TestOpenAPI(t *testing.T) {
	camera, _ := host(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(pngFile(goodImage)) })
	s := sourced(t, source.Named{"porch": camera, "gone": "/nowhere/at/all.png"}, nil)
	served := s.do(t, "GET", "/openapi.yaml", "")
	if served.status != 200 || served.header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("%d %s", served.status, served.header.Get("Content-Type"))
	}
	noError(t, must(openapi3.NewLoader().LoadFromData(served.body)).Validate(t.Context()))
	asJSON := s.do(t, "GET", "/openapi.json", "")
	if asJSON.status != 200 || asJSON.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", asJSON.status, asJSON.header.Get("Content-Type"))
	}
	doc := newSpec(t, asJSON.body)
	good := classifyBody(goodImage, `,"top_k":2,"threshold":0`, "x", strings.Repeat("long ", 100))
	cases := []struct {
		name, method, path, body string
		status                   int
		headers                  []string
	}{
		{"health", "GET", "/health", "", 200, nil},
		{"alive", "GET", "/healthz", "", 200, nil},
		{"ready", "GET", "/readyz", "", 200, nil},
		{"stats", "GET", "/v1/stats", "", 200, nil},
		{"no fleet", "GET", "/v1/fleet", "", 200, nil},
		{"classify", "POST", "/v1/classify", good, 200, []string{headerTimeout, "10000", headerRequestID, "mine"}},
		{"classify, flat", "POST", "/v1/classify?flat=0", `{"image":"` + b64(goodImage) + `","labels":["x"]}`, 200, nil},
		{"a source", "GET", "/v1/classify?source=porch&labels=x&timings=1", "", 200, nil},
		{"a source without an image", "GET", "/v1/classify?source=gone&labels=x", "", 503, nil},
		{"no source", "GET", "/v1/classify?source=none&labels=x", "", 404, nil},
		{"an address", "POST", "/v1/classify", `{"image_url":"http://example.org/","prompts":["x"]}`, 400, nil},
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
			operation := doc.operation(c.method, path)
			if c.status == 200 && c.body != "" && c.name != "classify batch" && c.name != "embed batch" { // of which an item is none
				visit(t, "request", requestOfJSON(operation), []byte(c.body))
			}
			checkReply(t, operation, s.do(t, c.method, c.path, c.body, append([]string{"Content-Type", "application/json"}, c.headers...)...), c.status)
		})
	}
	visit(t, "flat", doc.at("/components/schemas/FlatClassification"), s.post(t, "/v1/classify?flat=1", good).body)
	promptSets(t, s, doc)
	streams(t, serve(t, kept(t)), doc)
	s.lose("no device")
	checkReply(t, doc.operation("Get", "/health"), s.do(t, "GET", "/health", ""), 503)
	checkReply(t, doc.operation("Get", "/readyz"), s.do(t, "GET", "/readyz", ""), 503)
	checkReply(t, doc.operation("Get", "/healthz"), s.do(t, "GET", "/healthz", ""), 200)
	checkReply(t, doc.operation("Post", "/v1/classify"), s.post(t, "/v1/classify", good), 503)

	// Everything served is described, and the other way round.
	for method, paths := range s.rules.Load().router.List() {
		for _, path := range paths {
			if method != http.MethodHead && doc.operation(method, plainPath(path)).value == nil {
				t.Errorf("%s %s is not described", method, path)
			}
		}
	}
	doc.operations(func(method, path string, _ node) {
		served := func(p string) bool { return plainPath(p) == path }
		if !slices.ContainsFunc(s.rules.Load().router.List()[method], served) {
			t.Errorf("%s %s is described and not served", method, path)
		}
	})
}

// promptSets holds answers of the operations of prompt sets against the description.
func promptSets(t *testing.T, s *service, doc *spec) {
	t.Helper()
	const one, image = "/v1/prompt-sets/{name}", "image/bmp"
	set := `{"labels":[{"name":"cat","prompts":["a cat"],"negation":["no cat"],"threshold":{"enter":0.5,"exit":0.4},"images":["` + b64("my cat") + `"]},{"name":"dog"}],
		"templates":["a {}"],"background":{"auto":true,"prompts":["x"]},"fewshot":{"mode":"auto","alpha":0.5},"activation":"pair","temperature":2,"min_cosine":0.1,"min_margin":null}`
	visit(t, "request", requestOfJSON(doc.operation("PUT", one)), []byte(set))
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
		checkReply(t, doc.operation(c.method, c.template), s.json(t, c.method, c.path, c.body, c.headers...), c.status)
	}
}

// streams holds answers of the operations of streams and events, and messages of a WebSocket, against the description.
func streams(t *testing.T, s *service, doc *spec) {
	t.Helper()
	const one, event = "/v1/streams/{id}", "/v1/events/{id}"
	schema := doc.at("/components/schemas").child
	set := `{"prompts":["x","y"],"policy":"queue","max_in_flight":4,"fps":0.5,"interval_ms":10,"top_k":1,"clock":"frame","frame_header":true,
		"regions":[{"name":"left","x":0,"y":0,"w":0.5,"h":1}],"gate":{"distance":3,"heartbeat_ms":100},
		"events":{"on":"frames","enter":0.6,"exit":0.4,"hold_ms":10,"min_frames":2,"smoothing":0.5,"recheck_ms":100,"thumbnails":true,"store":true}}`
	visit(t, "request", requestOfJSON(doc.operation("PUT", one)), []byte(set))
	for _, c := range []struct {
		method, template, path, body string
		status                       int
		headers                      []string
	}{
		{"PUT", one, "/v1/streams/door", set, 201, nil},
		{"PUT", one, "/v1/streams/door", fmt.Sprintf(`{"prompts":[%q,"x"],"events":{}}`, goodImage), 200, nil},
		{"PUT", one, "/v1/streams/door", `{}`, 400, nil},
		{"PUT", one, "/v1/streams/door", `{"prompt_set":"none"}`, 404, nil},
		{"GET", one, "/v1/streams/door", "", 200, nil},
		{"GET", one, "/v1/streams/none", "", 404, nil},
		{"GET", "/v1/streams", "/v1/streams", "", 200, nil},
		{"GET", one + "/events", "/v1/streams/door/events", "", 200, nil},
		{"GET", one + "/events", "/v1/streams/none/events", "", 404, nil},
		{"GET", one + "/events", "/v1/streams/door/events?limit=x", "", 400, nil},
		{"POST", one + "/frames", "/v1/streams/door/frames?policy=queue", string(black), 200, []string{"Content-Type", "image/jpeg"}},
		{"POST", one + "/frames", "/v1/streams/none/frames", string(black), 404, []string{"Content-Type", "image/jpeg"}},
		{"POST", one + "/frames", "/v1/streams/door/frames", "{}", 415, nil},
		{"GET", event, "/v1/events/0123456789abcdef0123456789abcdef", "", 404, nil},
		{"DELETE", event, "/v1/events/0123456789abcdef0123456789abcdef", "", 404, nil},
		{"GET", event + "/thumbnail", "/v1/events/0123456789abcdef0123456789abcdef/thumbnail", "", 404, nil},
		{"GET", "/v1/stream", "/v1/stream", "", 426, nil},
		{"DELETE", one, "/v1/streams/none", "", 404, nil},
		{"GET", "/v1/stats", "/v1/stats", "", 200, nil},
	} {
		checkReply(t, doc.operation(c.method, c.template), s.json(t, c.method, c.path, c.body, c.headers...), c.status)
	}
	ws := s.dial(t, `{"id":"door","events":{"on":"frames","min_frames":1},"policy":"queue"}`)
	l := s.listenTo(t, "door/events?frames=1")
	for _, frame := range [][]byte{imageFile(goodImage), black, nil} {
		show(t, ws, frame)
	}
	for range 3 { // and enter and state of the first one
		_, b, err := ws.Read(t.Context())
		noError(t, err)
		if name := "StreamAnswer"; !strings.Contains(string(b), `"event"`) {
			visit(t, name, schema(name), b)
		}
	}
	for seen := map[string]bool{}; len(seen) < 3; { // frame, enter and state
		m := l.next(t)
		visit(t, m.kind, schema("StreamEvent"), []byte(m.data))
		seen[m.kind] = true
	}
	say(t, ws, `{"regions":[{"name":"left","x":0,"y":0,"w":0.5,"h":1}],"frame_header":true}`)
	show(t, ws, append(encodePrefix(nil, 1, 1), black...))
	for {
		_, b, err := ws.Read(t.Context())
		noError(t, err)
		if strings.Contains(string(b), `"regions"`) {
			visit(t, "regions", schema("StreamAnswer"), b)
			break
		}
	}
}

// checkReply holds an answer against what an operation says about its status.
func checkReply(t *testing.T, operation node, r reply, status int) {
	t.Helper()
	if r.status != status {
		t.Fatalf("%d %s, want %d", r.status, r.body, status)
	}
	if err := operation.conforms(r); err != nil {
		t.Errorf("%s %d: %v", operation.pointer, status, err)
	}
}

func requestOfJSON(operation node) node {
	return operation.child("requestBody").child("content").child("application/json").child("schema")
}

// visit checks JSON against its description.
func visit(t *testing.T, what string, schema node, body []byte) {
	t.Helper()
	if err := schema.validate(body); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// TestOpenAPICodes: the description has every code that a client may meet, and no other. 499 is for the log alone.
func TestOpenAPICodes(t *testing.T) {
	var want []string
	for _, k := range everyKind(t) {
		if k.status != 499 {
			want = append(want, k.code)
		}
	}
	slices.Sort(want)
	var got []string
	for _, value := range newSpec(t, must(openAPIFiles())["openapi.json"].Body).at("/components/schemas/ErrorCode/enum").value.([]any) {
		got = append(got, value.(string))
	}
	if want = slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("codes %v, want %v", got, want)
	}
}

// TestOpenAPIStats: every counter is described, also those of what a test has not, and nothing else.
func TestOpenAPIStats(t *testing.T) {
	doc := newSpec(t, must(openAPIFiles())["openapi.json"].Body)
	compareFields(t, doc.at("/components/schemas/Stats"), reflect.TypeFor[admin.Stats]())
	compareFields(t, doc.at("/components/schemas/Fleet"), reflect.TypeFor[fleet.Status]())
}

// compareFields holds the properties of a schema against the fields of the type that is written.
func compareFields(t *testing.T, schema node, typ reflect.Type) {
	t.Helper()
	switch typ.Kind() {
	case reflect.Pointer:
		compareFields(t, schema, typ.Elem())
		return
	case reflect.Slice:
		compareFields(t, schema.child("items"), typ.Elem())
		return
	case reflect.Map:
		compareFields(t, schema.child("additionalProperties"), typ.Elem())
		return
	case reflect.Struct:
	default:
		want, got := map[bool]string{true: "integer", false: "number"}[typ.Kind() != reflect.Float64], fmt.Sprint(schema.child("type").value)
		if typ.Kind() != reflect.String && typ.Kind() != reflect.Bool && !strings.Contains(got, want) {
			t.Errorf("%s is described as %s, and is %s", schema.pointer, got, typ)
		}
		return
	}
	described := map[string]node{}
	for _, s := range append(schema.child("allOf").items(), schema) {
		for _, part := range append(s.child("allOf").items(), s) {
			for _, name := range part.child("properties").names() {
				described[name] = part.child("properties").child(name)
			}
		}
	}
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" {
			continue
		}
		if property, ok := described[name]; ok {
			compareFields(t, property, f.Type)
		} else {
			t.Errorf("%s lacks %s", schema.pointer, name)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("%s has %s, which %s lacks", schema.pointer, name, typ)
	}
}

// TestDocs: the page has each operation and each schema, with an example, and nothing that a browser is told not to run. What
// clients have, they need not get again.
func TestDocs(t *testing.T) {
	s := serve(t, nil)
	page := s.do(t, "GET", "/docs", "")
	if page.status != 200 || page.header.Get("Content-Type") != "text/html; charset=utf-8" ||
		page.header.Get("Content-Security-Policy") != "default-src 'self'; frame-ancestors 'none'" {
		t.Fatalf("%d %v", page.status, page.header)
	}
	text := html.UnescapeString(string(page.body))
	newSpec(t, must(openAPIFiles())["openapi.json"].Body).operations(func(method, path string, operation node) {
		sample := operation.child("x-codeSamples").items()[0].text("source")
		for _, part := range []string{`id="` + operation.text("operationId") + `"`, sample, operation.text("summary"), path} {
			if !strings.Contains(text, part) {
				t.Errorf("%s %s: the page lacks %q", method, path, part)
			}
		}
		asks := regexp.MustCompile(`localhost:\d+` + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[\w./-]+`) + `(['? ]|$)`)
		if !asks.MatchString(sample) {
			t.Errorf("%s %s: the example is for something else: %s", method, path, sample)
		}
	})
	for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(string(page.body), -1) {
		if !strings.Contains(string(page.body), `id="`+link[1]+`"`) {
			t.Errorf("the page has no %s", link[1])
		}
	}
	for _, never := range []string{"<script", "style=", "<style", "http-equiv", "data:image", "<no value>", "ZgotmplZ"} {
		if strings.Contains(strings.ReplaceAll(text, "data:image/jpeg;base64", ""), never) {
			t.Errorf("the page has %s", never)
		}
	}
	for _, path := range []string{"/docs", "/openapi.json", "/openapi.yaml"} {
		tag := s.do(t, "GET", path, "").header.Get("ETag")
		if again := s.do(t, "GET", path, "", "If-None-Match", tag); again.status != 304 || len(again.body) != 0 || tag == "" {
			t.Errorf("%s: %d with %d bytes for %s", path, again.status, len(again.body), tag)
		}
	}
}
