package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"hailoclip/api/access"
	"hailoclip/api/compat"
)

const (
	immichModel   = "ViT-B-32__openai"
	visualEntries = `{"clip":{"visual":{"modelName":"ViT-B-32__openai"}}}`
	textEntries   = `{"clip":{"textual":{"modelName":"ViT-B-32__openai","options":{"language":"de"}}}}`
	faceEntries   = `{"facial-recognition":{"detection":{"modelName":"buffalo_l","options":{"minScore":0.7}},"recognition":{"modelName":"buffalo_l"}}}`
)

// asNode is a form as Node 20 sends that of Immich: parts are name and data, images have a file name.
func asNode(parts ...string) (contentType, body string) {
	const boundary = "----formdata-undici-024844731013"
	var b strings.Builder
	for i := 0; i < len(parts); i += 2 {
		fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=%q", boundary, parts[i])
		if parts[i] == "image" {
			b.WriteString("; filename=\"blob\"\r\nContent-Type: application/octet-stream")
		}
		fmt.Fprintf(&b, "\r\n\r\n%s\r\n", parts[i+1])
	}
	return "multipart/form-data; boundary=" + boundary, b.String() + "--" + boundary + "--\r\n"
}

// speaksAll has the model of a service, which speaks all dialects, answer to Immich's name of it.
func speaksAll(_ *Config, svc *Service) {
	svc.Compat.Aliases = []string{immichModel, "openai/clip"}
}

// withUpstream applies an upstream.
func (s *service) withUpstream(upstream string) {
	c := s.rules.Load().compat
	c.Immich.Upstream = upstream
	s.Apply(s.cfg, c, testRequestLimit, testRequestLimit)
}

func (s *service) predict(t testing.TB, parts ...string) reply {
	t.Helper()
	contentType, body := asNode(parts...)
	return s.do(t, http.MethodPost, "/predict", body, "Content-Type", contentType)
}

// clipOf is the vector of a good answer of Immich's: a JSON array in a string.
func clipOf(t testing.TB, r reply) (v []float32, width, height int) {
	t.Helper()
	var a struct {
		Clip                    *string
		ImageHeight, ImageWidth int
	}
	r.wantOK(t)
	r.into(t, &a)
	if a.Clip == nil {
		t.Fatalf("%s", r.body)
	}
	noError(t, json.Unmarshal([]byte(*a.Clip), &v))
	return v, a.ImageWidth, a.ImageHeight
}

// isVectorOf checks a vector of the test device.
func isVectorOf(t testing.TB, v []float32, text string) {
	t.Helper()
	if len(v) != testDimension || dot(v, testVector(text)) < 0.999 || dot(v, v) > 1.0001 {
		t.Errorf("%d numbers, not those of %q", len(v), text)
	}
}

func (r reply) wantDetail(t testing.TB, status int, detail string) {
	t.Helper()
	var a struct{ Detail string }
	r.into(t, &a)
	if r.status != status || !strings.Contains(a.Detail, detail) || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %s, want %d %q", r.status, r.body, status, detail)
	}
	if retry := r.header.Get("Retry-After") != ""; retry != (status == 503) {
		t.Errorf("Retry-After %q with %d", r.header.Get("Retry-After"), status)
	}
}

// TestImmichRecorded sends what Node was recorded to send, on one connection.
func TestImmichRecorded(t *testing.T) {
	s := serve(t, speaksAll)
	recorded := func(parts ...string) string {
		contentType, body := asNode(parts...)
		return fmt.Sprintf("POST /predict HTTP/1.1\r\nhost: 127.0.0.1:3003\r\nconnection: keep-alive\r\ncontent-type: %s\r\naccept: */*\r\n"+
			"accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\ncontent-length: %d\r\n\r\n%s",
			contentType, len(body), body)
	}
	all := replies(t, s.send(t, "GET /ping HTTP/1.1\r\nhost: 127.0.0.1:3003\r\nconnection: keep-alive\r\n\r\n",
		recorded("entries", visualEntries, "image", string(imageFile("a dog"))), recorded("entries", textEntries, "text", "ein Hund"),
		"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
	if len(all) != 4 {
		t.Fatalf("%d answers", len(all))
	}
	for _, r := range []reply{all[0], all[3]} {
		if r.status != 200 || string(r.body) != "pong" || !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%d %s %v", r.status, r.body, r.header)
		}
	}
	doc := newSpec(t, must(openAPIFiles())["openapi.json"].Body)
	checkReply(t, doc.operation("Get", "/ping"), all[0], 200)
	checkReply(t, doc.operation("Post", "/predict"), all[1], 200)
	checkReply(t, doc.operation("Post", "/predict"), all[2], 200)
	v, width, height := clipOf(t, all[1])
	if isVectorOf(t, v, "a dog"); width != testSize || height != testSize || !strings.HasPrefix(string(all[1].body), `{"clip":"[`) {
		t.Errorf("%.300s", all[1].body)
	}
	var own struct{ Embedding []float32 }
	noError(t, json.Unmarshal(s.post(t, "/v1/embed/image", `{"image":"`+b64("a dog")+`"}`).body, &own))
	for i := range own.Embedding {
		if v[i] != own.Embedding[i] {
			t.Fatalf("number %d is %v, and %v of /v1/embed/image", i, v[i], own.Embedding[i])
		}
	}
	v, width, _ = clipOf(t, all[2])
	if isVectorOf(t, v, "ein Hund"); width != 0 || strings.Contains(string(all[2].body), "image") {
		t.Errorf("%.300s", all[2].body)
	}
}

// TestImmichForms: what may be in a form, and what not.
func TestImmichForms(t *testing.T) {
	s := serve(t, speaksAll)
	image, other := string(imageFile("a dog")), string(imageFile("a cat"))
	named := func(model string) string {
		return `{"clip":{"visual":{"modelName":` + string(must(json.Marshal(model))) + `}}}`
	}
	for name, parts := range map[string][]string{
		"the image first":       {"image", image, "entries", visualEntries},
		"both":                  {"entries", visualEntries, "text", "a cat", "image", image},
		"other fields":          {"assetId", "0f3c", "entries", visualEntries, "image", image, "assetId", "again"},
		"null for options":      {"entries", `{"clip":{"visual":{"modelName":"ViT-B-32__openai","options":null}}}`, "image", image},
		"no options":            {"entries", `{"clip":{"visual":{"modelName":"ViT-B-32__openai","options":{}}}}`, "image", image},
		"other keys":            {"entries", `{"clip":{"visual":{"modelName":"ViT-B-32__openai","x":[1]}}}`, "image", image},
		"its own name":          {"entries", named(testModel), "image", image},
		"a name with colons":    {"entries", named("ViT-B-32::openai"), "image", image},
		"a name with a folder":  {"entries", named("immich-app/ViT-B-32__openai"), "image", image},
		"both of them":          {"entries", named("immich-app/ViT-B-32::openai"), "image", image},
		"a name with backslash": {"entries", named(`ViT-B-32\_openai`), "image", image},
		"a whole alias":         {"entries", named("openai/clip"), "image", image},
	} {
		t.Run(name, func(t *testing.T) {
			v, _, _ := clipOf(t, s.predict(t, parts...))
			isVectorOf(t, v, "a dog")
		})
	}
	v, _, _ := clipOf(t, s.predict(t, "text", "a dog", "entries", `{"clip":{"textual":{"modelName":"ViT-B-32__openai"}}}`, "image", other))
	isVectorOf(t, v, "a dog")

	const neither, format = "Either image or text must be provided", "Invalid request format."
	for name, c := range map[string]struct {
		status int
		detail string
		parts  []string
	}{
		"nothing":               {422, format, nil},
		"no entries":            {422, format, []string{"image", image}},
		"empty entries":         {422, format, []string{"entries", "", "image", image}},
		"no JSON":               {422, format, []string{"entries", "{", "image", image}},
		"no object":             {422, format, []string{"entries", `["clip"]`, "image", image}},
		"a task that is none":   {422, format, []string{"entries", `{"clip":5}`, "image", image}},
		"an entry that is none": {422, format, []string{"entries", `{"clip":{"visual":5}}`, "image", image}},
		"no model":              {422, format, []string{"entries", `{"clip":{"visual":{}}}`, "image", image}},
		"no name":               {422, format, []string{"entries", `{"clip":{"visual":{"modelName":""}}}`, "image", image}},
		"null":                  {422, format, []string{"entries", `{"clip":{"visual":null}}`, "image", image}},
		"a number for a model":  {422, format, []string{"entries", `{"clip":{"visual":{"modelName":32}}}`, "image", image}},
		"huge":                  {422, format, []string{"entries", `{"clip":{"visual":{"modelName":"` + strings.Repeat("x", 64<<10) + `"}}}`, "image", image}},
		"deep":                  {422, format, []string{"entries", strings.Repeat(`{"clip":`, 5000), "image", image}},
		"twice":                 {422, "comes twice", []string{"entries", visualEntries, "entries", visualEntries, "image", image}},
		"no task":               {422, "No model task requested.", []string{"entries", "{}", "image", image}},
		"null for all":          {422, "No model task requested.", []string{"entries", "null", "image", image}},
		"an empty task":         {422, "No model task requested.", []string{"entries", `{"clip":{}}`, "image", image}},
		"two images":            {400, "'image' comes twice", []string{"entries", visualEntries, "image", image, "image", other}},
		"two texts":             {400, "'text' comes twice", []string{"entries", textEntries, "text", "a", "text", "b"}},
		"neither":               {400, neither, []string{"entries", visualEntries}},
		"neither of a text":     {400, neither, []string{"entries", textEntries}},
		"a text for an image":   {400, neither, []string{"entries", visualEntries, "text", "a dog"}},
		"an image for a text":   {400, neither, []string{"entries", textEntries, "image", image}},
		"an empty text":         {400, neither, []string{"entries", textEntries, "text", ""}},
		"a blank text":          {400, neither, []string{"entries", textEntries, "text", " \t\n"}},
		"not UTF-8":             {400, "not valid UTF-8", []string{"entries", textEntries, "text", "a \xff"}},
		"an empty image":        {400, "'image' is empty", []string{"entries", visualEntries, "image", ""}},
		"no image":              {400, "mage: ", []string{"entries", visualEntries, "image", notAnImage}},
		"half an image":         {400, "mage: ", []string{"entries", visualEntries, "image", string(imageFile(truncatedImage))}},
		"a huge image":          {413, "mage: ", []string{"entries", visualEntries, "image", string(imageFile(hugeImage))}},
		"AVIF":                  {415, "mage: ", []string{"entries", visualEntries, "image", string(imageFile(avifImage))}},
		"another model":         {404, "runs test-clip", []string{"entries", named("ViT-L-14__openai"), "image", image}},
		"a part of a name":      {404, "runs test-clip", []string{"entries", named("clip"), "image", image}},
		"another folder":        {404, "runs test-clip", []string{"entries", named("laion/clip"), "image", image}},
		"a slash at the end":    {404, "runs test-clip", []string{"entries", named("ViT-B-32__openai/"), "image", image}},
		"a long name":           {404, "runs test-clip", []string{"entries", named(strings.Repeat("ü", 1000)), "image", image}},
		"faces":                 {404, "facial-recognition.detection, facial-recognition.recognition", []string{"entries", faceEntries, "image", image}},
		"two tasks":             {404, "compat.immich.upstream", []string{"entries", visualEntries[:len(visualEntries)-1] + "," + faceEntries[1:], "image", image}},
		"two of CLIP":           {404, "clip.textual, clip.visual", []string{"entries", `{"clip":{"visual":{"modelName":"test-clip"},"textual":{"modelName":"test-clip"}}}`, "image", image}},
		"another task of CLIP":  {404, "clip.audio", []string{"entries", `{"clip":{"audio":{"modelName":"test-clip"}}}`, "image", image}},
	} {
		t.Run(name, func(t *testing.T) { s.predict(t, c.parts...).wantDetail(t, c.status, c.detail) })
	}
	contentType, body := asNode("entries", visualEntries, "image", image)
	for name, c := range map[string]struct{ contentType, body string }{
		"no boundary":      {"multipart/form-data", body},
		"another boundary": {"multipart/form-data; boundary=x", body},
		"no end":           {contentType, body[:len(body)-20]},
		"no body":          {contentType, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s.do(t, "POST", "/predict", c.body, "Content-Type", c.contentType).wantDetail(t, 400, "")
		})
	}
	s.allReturned(t)
}

// TestImmichAway: while the device is away, Immich is told to go elsewhere; and so it is by vectors that are made up.
func TestImmichAway(t *testing.T) {
	s := serve(t, speaksAll)
	image := string(imageFile("a dog"))
	s.lose("the cable is out")
	if r := s.do(t, "GET", "/ping", ""); r.status != 503 || string(r.body) != "The cable is out" && string(r.body) != "the cable is out" {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.predict(t, "entries", visualEntries, "image", image).wantDetail(t, 503, "the cable is out")
	s.predict(t, "entries", textEntries, "text", "a dog").wantDetail(t, 503, "the cable is out")
	s.status.Store(newDevice().status.Load())
	if r := s.do(t, "GET", "/ping", ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	clipOf(t, s.predict(t, "entries", visualEntries, "image", image))
	s.predict(t, "entries", visualEntries, "image", string(imageFile(lostDevice))).wantDetail(t, 503, "not available")
	s.predict(t, "entries", textEntries, "text", unavailableText).wantDetail(t, 503, "not available")

	s = serve(t, func(cfg *Config, svc *Service) {
		speaksAll(cfg, svc)
		svc.MadeUp = true
	})
	if r := s.do(t, "GET", "/ping", ""); r.status != 503 || !strings.Contains(string(r.body), "sim.serve_hash") {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.predict(t, "entries", visualEntries, "image", image).wantDetail(t, 503, "sim.serve_hash")
}

// TestImmichOwnVectors: 16 callers with an image each, large enough for their buffers to be used in turns, get their own.
func TestImmichOwnVectors(t *testing.T) {
	s := serve(t, speaksAll)
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			for j := range 20 {
				text := fmt.Sprintf("image %d of caller %d", j, i)
				if (i+j)%4 == 0 {
					v, _, _ := clipOf(t, s.predict(t, "entries", textEntries, "text", text))
					isVectorOf(t, v, text)
					continue
				}
				v, _, _ := clipOf(t, s.predict(t, "entries", visualEntries, "image", string(imageFile(text))+strings.Repeat("x", 7000*j)))
				isVectorOf(t, v, text)
			}
		})
	}
	callers.Wait()
	s.allReturned(t)
}

// TestImmichListener: Immich's own listener has its paths alone and needs no key, which the main port does.
func TestImmichListener(t *testing.T) {
	keys := access.Config{Keys: []access.Key{keyOf("ann", nil)}}
	keys.Check(func(field, format string, args ...any) { t.Fatalf(field+" "+format, args...) })
	s := serve(t, func(cfg *Config, svc *Service) {
		speaksAll(cfg, svc)
		svc.Access = access.New(keys)
		cfg.TLS = testTLS(t, t.TempDir())
	})
	ln := must(ListenForImmich(compat.Immich{Listen: "127.0.0.1:0"}))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	main, image := s.url, string(imageFile("a dog"))
	own := "http://" + ln.Addr().String()

	if r := s.do(t, "GET", "/ping", ""); r.status != 200 {
		t.Errorf("ping of the main port: %d", r.status)
	}
	s.predict(t, "entries", visualEntries, "image", image).wantDetail(t, 401, "key")
	contentType, body := asNode("entries", visualEntries, "image", image)
	clipOf(t, s.do(t, "POST", "/predict", body, "Content-Type", contentType, "Authorization", bearerOf("ann")))
	if r := s.do(t, "GET", "/", "", "Accept", "application/json"); !strings.Contains(string(r.body), `"/predict"`) {
		t.Errorf("the list of paths: %s", r.body)
	}

	s.url = own
	if r := s.do(t, "GET", "/", ""); r.status != 200 || string(r.body) != `{"message":"Immich ML"}` || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.do(t, "GET", "/ping", ""); r.status != 200 || string(r.body) != "pong" {
		t.Errorf("%d %s", r.status, r.body)
	}
	v, _, _ := clipOf(t, s.predict(t, "entries", visualEntries, "image", image))
	isVectorOf(t, v, "a dog")
	for _, path := range []string{"/health", "/v1/models", "/v1/stats", "/v1/embed/image", "/v1/embeddings", "/docs", "/console/x.js", "/metrics", "/admin/reload", "/ping/"} {
		for _, method := range []string{"GET", "POST"} {
			s.do(t, method, path, "{}", "Content-Type", "application/json").wantDetail(t, 404, "no such path")
		}
	}
	s.do(t, "GET", "/predict", "").wantDetail(t, 405, "Allow")
	s.do(t, "POST", "/predict", "{}", "Content-Type", "application/json").wantDetail(t, 415, "multipart/form-data")
	if r := s.do(t, "GET", "/ping", "", "Origin", "https://example.org"); r.status != 403 {
		t.Errorf("a page of another origin: %d", r.status)
	}

	off := s.rules.Load().compat
	off.Immich.Enabled = false
	s.Apply(s.cfg, off, testRequestLimit, testRequestLimit)
	for _, path := range []string{"/", "/ping"} {
		if r := s.do(t, "GET", path, ""); r.status != 401 && r.status != 404 {
			t.Errorf("%s of a dialect that is off: %d", path, r.status)
		}
	}
	s.url = main
	if r := s.do(t, "GET", "/ping", "", "Authorization", bearerOf("ann")); r.status != 404 {
		t.Errorf("a ping of a dialect that is off: %d", r.status)
	}
	s.stop() // both
	noError(t, <-ended)
}

// TestPredictOfTwo: /predict is Immich's and Hugging Face's. The content type says whose a request is, and its errors.
func TestPredictOfTwo(t *testing.T) {
	s := serve(t, speaksAll)
	zeroShot := `{"inputs":{"image":"` + b64("a dog") + `"},"parameters":{"candidate_labels":["cat","dog"]}}`
	var labels []struct {
		Label string
		Score float64
	}
	r := s.post(t, "/predict", zeroShot)
	r.wantOK(t)
	if r.into(t, &labels); len(labels) != 2 {
		t.Errorf("%s", r.body)
	}
	clipOf(t, s.predict(t, "entries", visualEntries, "image", string(imageFile("a dog"))))
	isHuggingFace := func(r reply) {
		t.Helper()
		var a struct{ Error string }
		if noError(t, json.Unmarshal(r.body, &a)); a.Error == "" || r.status < 400 || strings.Contains(string(r.body), "detail") {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	isHuggingFace(s.post(t, "/predict", "{"))
	isHuggingFace(s.post(t, "/predict", `{"inputs":5}`))
	s.predict(t).wantDetail(t, 422, "entries")
	contentType, _ := asNode()
	s.do(t, "POST", "/predict", "x", "Content-Type", contentType, "Content-Encoding", "gzip").wantDetail(t, 415, "Content-Encoding")
	isHuggingFace(s.post(t, "/predict", zeroShot, "Content-Encoding", "gzip"))

	u := newUpstream(t, nil) // is for Immich's tasks alone
	s.withUpstream(u.URL)
	s.lose("no device")
	isHuggingFace(s.post(t, "/predict", zeroShot))
	if len(u.taken()) > 0 {
		t.Error("a request of Hugging Face's went to Immich's server")
	}
}
