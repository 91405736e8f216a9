package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// TestBatchBody: the limit for the bodies of batches gives way to the memory that there is, and is never below that for others.
func TestBatchBody(t *testing.T) {
	for _, c := range []struct{ batch, memory, body, want int }{
		{64 << 20, 256 << 20, 16 << 20, 64 << 20},
		{64 << 20, 64 << 20, 16 << 20, 32 << 20}, // resource_limits.memory_max: 512M
		{64 << 20, 32 << 20, 16 << 20, 16 << 20},
		{1 << 20, 256 << 20, 16 << 20, 16 << 20},
	} {
		cfg := Config{MaxBatchBodyBytes: c.batch, MaxBodyMemoryBytes: c.memory, MaxBodyBytes: c.body}
		if got := cfg.batchBody(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// batchBody is the body of a request with these images; more is appended to the object.
func batchBody(more string, images ...string) string {
	list := []string{}
	for _, image := range images {
		list = append(list, b64(image))
	}
	return fmt.Sprintf(`{"images":%s%s}`, must(json.Marshal(list)), more)
}

// numbersJSON is a vector as answers have it.
func numbersJSON(v []float32) string {
	return strings.TrimPrefix(string(appendVector(nil, v, vectorsJSON)), `"embedding":`)
}

// itemError is the part of an item that has failed.
type itemError struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

type classifyBatchAnswer struct {
	Results []struct {
		Classifications json.RawMessage `json:"classifications"`
		itemError
	} `json:"results"`
	InferenceTimeMS *float64 `json:"inference_time_ms"`
	LogitScale      float64  `json:"logit_scale"`
	Model           string   `json:"model"`
	RequestID       string   `json:"request_id"`
}

type embedBatchAnswer struct {
	Images []embedItem `json:"images"`
	Texts  []embedItem `json:"texts"`

	Dimension       int      `json:"dimension"`
	InferenceTimeMS *float64 `json:"inference_time_ms"`
	Model           string   `json:"model"`
	RequestID       string   `json:"request_id"`
}

type embedItem struct {
	Embedding json.RawMessage `json:"embedding"`
	Encoding  string          `json:"encoding"`
	Scale     float64         `json:"scale"`
	Tokens    int             `json:"tokens"`
	Truncated bool            `json:"truncated"`
	itemError
}

// badImages are elements of 'images' that have no result.
var badImages = []string{
	`"AAAA!AAA"`, `""`, `5`, `null`, `{}`, `["x"]`, `{"image":"` + b64(goodImage) + `"}`, `true`, `"\ud800"`, `"data:image/png,AAAA"`,
	`"` + b64(notAnImage) + `"`, `"` + b64(truncatedImage) + `"`, `"` + b64(hugeImage) + `"`, `"` + b64(avifImage) + `"`,
	`"` + b64(failingImage) + `"`, `"` + b64(panickingImage) + `"`, `"` + b64(notFiniteImage) + `"`, `"` + b64(lostDevice) + `"`,
}

// TestBatchIsAsSingles: each image has in a batch, at its place, what it has by itself, to the last bit, and so has each bad
// one among the good.
func TestBatchIsAsSingles(t *testing.T) {
	s := serve(t, nil)
	var images []string
	for i := range 64 {
		text := fmt.Sprintf("image %d", i)
		image := `"` + b64(text) + `"`
		if i%3 == 0 {
			image = `"data:image/bmp;base64,` + strings.ReplaceAll(b64(text+"???>>>"), "/", `\/`) + `\n"`
		}
		if i%4 == 1 && i/4 < len(badImages) {
			image = badImages[i/4]
		}
		images = append(images, image)
	}
	images[62], images[63] = badImages[16], badImages[17]
	var classified classifyBatchAnswer
	var embedded embedBatchAnswer
	list := strings.Join(images, " , ")
	r := s.post(t, "/v1/classify/batch", `{"prompts":["x","image 4","y"],"images":[ `+list+` ],"top_k":2}`)
	r.wantOK(t)
	r.into(t, &classified)
	r = s.post(t, "/v1/embed/batch", `{"images":[`+list+`]}`)
	r.wantOK(t)
	r.into(t, &embedded)
	if len(classified.Results) != 64 || len(embedded.Images) != 64 || classified.LogitScale != testLogitScale || classified.Model != testModel ||
		embedded.Dimension != testDimension || len(embedded.Texts) != 0 || classified.InferenceTimeMS == nil {
		t.Fatalf("%+v", classified)
	}
	failed := 0
	for i, image := range images {
		var one struct {
			Classifications, Embedding json.RawMessage
			itemError
		}
		noError(t, json.Unmarshal(s.post(t, "/v1/classify", `{"image":`+image+`,"prompts":["x","image 4","y"],"top_k":2}`).body, &one))
		if got := classified.Results[i]; string(got.Classifications) != string(one.Classifications) || got.Code != one.Code || got.Error != one.Error && image != `""` && image != "null" {
			t.Errorf("image %d %.50s: %s, want %s", i, image, must(json.Marshal(got)), must(json.Marshal(one)))
		}
		if one.Code != "" {
			failed++
		}
		one.Code, one.Error = "", ""
		noError(t, json.Unmarshal(s.post(t, "/v1/embed/image", `{"image":`+image+`}`).body, &one))
		if got := embedded.Images[i]; string(got.Embedding) != string(one.Embedding) || got.Code != one.Code {
			t.Errorf("image %d %.50s: %s, want %s", i, image, must(json.Marshal(got)), must(json.Marshal(one)))
		}
	}
	if failed != len(badImages) {
		t.Errorf("%d failed, want %d", failed, len(badImages))
	}
	if want := fmt.Sprintf(`"bytes_out":%d,`, len(r.body)); !strings.Contains(s.log.String(), want) {
		t.Errorf("no %s in the log", want)
	}
	if log := s.log.String(); !strings.Contains(log, "the stage panics") || !strings.Contains(log, `"stack"`) {
		t.Error("the panic is not in the log")
	}
	s.allReturned(t)
}

// TestEmbedBatchTexts: each text has what it has by itself, or why not.
func TestEmbedBatchTexts(t *testing.T) {
	s := serve(t, nil)
	texts := []string{`"a cat"`, `""`, `5`, `null`, `" \n"`, `"a\u0000b"`, `"\ud800"`, `"` + strings.Repeat("x", 2049) + `"`, `["a"]`,
		`"` + unencodableText + `"`, `"` + panickingText + `"`, `"` + notFiniteText + `"`, `"` + strings.Repeat("long ", 100) + `"`, `"a cat"`}
	for i := range 30 {
		texts = append(texts, fmt.Sprintf(`"a photo of a dog %d"`, i))
	}
	var a embedBatchAnswer
	r := s.post(t, "/v1/embed/batch", `{"texts":[`+strings.Join(texts, ",")+`],"images":["`+b64(goodImage)+`"]}`)
	r.wantOK(t)
	r.into(t, &a)
	if len(a.Texts) != len(texts) || len(a.Images) != 1 || string(a.Images[0].Embedding) != numbersJSON(testVector(goodImage)) {
		t.Fatalf("%.1000s", r.body)
	}
	for i, text := range texts {
		var one embedItem
		noError(t, json.Unmarshal(s.post(t, "/v1/embed/text", `{"text":`+text+`}`).body, &one))
		if got := a.Texts[i]; string(got.Embedding) != string(one.Embedding) || got.Tokens != one.Tokens || got.Truncated != one.Truncated || got.itemError != one.itemError {
			t.Errorf("%.60s: %+v, want %+v", text, got.itemError, one.itemError)
		}
	}
}

// TestEmbedBatchEncodings: as strings, and as nothing but floats, where what has failed is no number.
func TestEmbedBatchEncodings(t *testing.T) {
	s := serve(t, nil)
	body := batchBody(`,"texts":["a cat",7]`, goodImage, notAnImage)
	var a embedBatchAnswer
	r := s.post(t, "/v1/embed/batch?encoding=base64", body)
	r.into(t, &a)
	want := base64.StdEncoding.EncodeToString(appendFloats(nil, testVector(goodImage)))
	if string(a.Images[0].Embedding) != `"`+want+`"` || a.Images[0].Encoding != "base64" || a.Images[1].Code != "invalid_image" || a.Texts[1].Code != "invalid_request" {
		t.Errorf("%s", r.body)
	}
	r = s.post(t, "/v1/embed/batch", body, "Accept", "application/octet-stream")
	floats := appendFloats(nil, testVector(goodImage))
	lost := appendFloats(nil, slices.Repeat([]float32{float32(math.NaN())}, testDimension))
	floats = append(append(append(floats, lost...), appendFloats(nil, testVector("a cat"))...), lost...)
	if r.status != 200 || r.header.Get("Content-Type") != "application/octet-stream" || !bytes.Equal(r.body, floats) {
		t.Errorf("%d %s, %d bytes, want %d", r.status, r.header, len(r.body), len(floats))
	}
	s.post(t, "/v1/embed/batch?encoding=f64", body).wantError(t, 400, "invalid_request", "Unknown 'encoding'")
}

// TestBatchForms sends parts instead of JSON, among them a raw frame, and options in the query.
func TestBatchForms(t *testing.T) {
	s := serve(t, nil)
	part := func(name, headers, data string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n" + headers + "\r\n" + data + "\r\n"
	}
	pixels := string(pixelsOf(goodImage))
	form := func(parts ...string) []string {
		return []string{strings.Join(parts, "") + "--x--\r\n", "Content-Type", "multipart/form-data; boundary=x"}
	}
	images := part("image", "", string(imageFile(goodImage))) + part("image", "", notAnImage) + part("image", "", "") +
		part("image", fmt.Sprintf("X-Frame-Format: rgb24; %dx%d\r\n", testSize, testSize), pixels) + part("image", "X-Frame-Format: rgb25\r\n", pixels)
	f := form(images, part("prompts", "", "x"), part("prompts", "", goodImage))
	var a classifyBatchAnswer
	r := s.post(t, "/v1/classify/batch?top_k=1", f[0], f[1:]...)
	r.wantOK(t)
	r.into(t, &a)
	if len(a.Results) != 5 || !strings.Contains(string(a.Results[0].Classifications), `"text":"an image","score":1,"rank":1`) ||
		string(a.Results[3].Classifications) != string(a.Results[0].Classifications) ||
		a.Results[1].Code != "invalid_image" || a.Results[2].Code != "invalid_image" || a.Results[4].Code != "invalid_request" {
		t.Errorf("%s", r.body)
	}
	f = form(images, part("texts", "", "a cat"), part("texts", "", "\xff"), part("texts", "", " "))
	var e embedBatchAnswer
	r = s.post(t, "/v1/embed/batch", f[0], f[1:]...)
	r.wantOK(t)
	r.into(t, &e)
	if len(e.Images) != 5 || len(e.Texts) != 3 || string(e.Texts[0].Embedding) != numbersJSON(testVector("a cat")) || e.Texts[1].Code != "invalid_request" || e.Texts[2].Code != "invalid_request" {
		t.Errorf("%.500s", r.body)
	}
	for _, c := range []struct {
		parts    string
		sentence string
	}{
		{strings.Repeat(part("image", "", "x"), 65) + part("prompts", "", "x"), "Too many images: 65"},
		{part("prompts", "", "x"), "Missing or invalid 'images'"},
		{part("image", "", "x"), "Missing or invalid 'prompts'"},
	} {
		f := form(c.parts)
		if r := s.post(t, "/v1/classify/batch", f[0], f[1:]...); r.status != 400 || !strings.Contains(string(r.body), c.sentence) {
			t.Errorf("%d %s, want %q", r.status, r.body, c.sentence)
		}
	}
	f = form(strings.Repeat(part("texts", "", "x"), 257))
	s.post(t, "/v1/embed/batch", f[0], f[1:]...).wantError(t, 400, "invalid_request", "Too many texts: 257")
	s.allReturned(t)
}

// pixelsOf is the pixels of an image as the device knows it.
func pixelsOf(text string) []byte {
	file := imageFile(text)[54:]
	pixels := make([]byte, testSize*testSize*3)
	for i := 0; i < len(pixels); i += 3 {
		pixels[i], pixels[i+1], pixels[i+2] = file[i+2], file[i+1], file[i]
	}
	return pixels
}

func TestBatchRefused(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxBatchBodyBytes = 8 << 20 })
	image := `"` + b64(goodImage) + `"`
	many := func(n int, what string) string { return strings.TrimSuffix(strings.Repeat(what+",", n), ",") }
	for _, c := range []struct {
		name, path, body string
		status           int
		code, sentence   string
	}{
		{"no images", "/v1/classify/batch", `{"prompts":["x"]}`, 400, "invalid_request", "Missing or invalid 'images'"},
		{"null", "/v1/classify/batch", `{"prompts":["x"],"images":null}`, 400, "invalid_request", "Missing or invalid 'images'"},
		{"an object", "/v1/classify/batch", `{"prompts":["x"],"images":{}}`, 400, "invalid_request", "Missing or invalid 'images'"},
		{"a string", "/v1/embed/batch", `{"images":` + image + `}`, 400, "invalid_request", "Missing or invalid 'images'"},
		{"empty", "/v1/classify/batch", `{"prompts":["x"],"images":[ ]}`, 400, "invalid_request", "Missing or invalid 'images'"},
		{"twice, the last counts", "/v1/classify/batch", `{"prompts":["x"],"images":[` + image + `],"images":[]}`, 400, "invalid_request", "Missing or invalid 'images'"},
		{"65 images", "/v1/classify/batch", `{"prompts":["x"],"images":[` + many(65, "5") + `]}`, 400, "invalid_request", "Too many images: 65, at most 64 are allowed"},
		{"65 images to embed", "/v1/embed/batch", `{"images":[` + many(65, `""`) + `]}`, 400, "invalid_request", "Too many images: 65"},
		{"257 texts", "/v1/embed/batch", `{"texts":[` + many(257, `"x"`) + `]}`, 400, "invalid_request", "Too many texts: 257, at most 256 are allowed"},
		{"two million images", "/v1/embed/batch", `{"images":[` + many(2_000_000, `""`) + `]}`, 400, "invalid_request", "Too many images: 2000000"},
		{"nothing", "/v1/embed/batch", `{}`, 400, "invalid_request", "Missing 'images' or 'texts'"},
		{"nothing in both", "/v1/embed/batch", `{"images":[],"texts":null}`, 400, "invalid_request", "Missing 'images' or 'texts'"},
		{"texts in a string", "/v1/embed/batch", `{"texts":"x"}`, 400, "invalid_request", "Missing or invalid 'texts'"},
		{"no prompts", "/v1/classify/batch", `{"images":[` + image + `]}`, 400, "invalid_prompts", "Missing or invalid 'prompts'"},
		{"bad prompts", "/v1/classify/batch", `{"images":[` + image + `],"prompts":["x",5]}`, 400, "invalid_prompts", "prompts[1]"},
		{"prompts that cannot be encoded", "/v1/classify/batch", `{"images":[` + image + `],"prompts":["x","` + unencodableText + `"]}`, 500, "encode_failed", "text"},
		{"bad top_k", "/v1/classify/batch", `{"images":[` + image + `],"prompts":["x"],"top_k":0}`, 400, "invalid_request", "top_k"},
		{"image_url", "/v1/embed/batch", `{"images":[` + image + `],"image_url":"http://x"}`, 400, "invalid_request", "image_url"},
		{"not JSON", "/v1/classify/batch", `{"images":[`, 400, "invalid_json", ""},
		{"nested", "/v1/classify/batch", `{"prompts":["x"],"images":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + `}`, 400, "invalid_json", ""},
		{"the device is lost for all", "/v1/classify/batch", batchBody(`,"prompts":["x"]`, lostDevice, lostDevice), 503, "unavailable", "not available"},
		{"too large", "/v1/classify/batch", `{"images":["` + strings.Repeat("A", 8<<20) + `"]}`, 413, "body_too_large", "8388608 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.post(t, c.path, c.body).wantError(t, c.status, c.code, c.sentence)
		})
	}
	s.post(t, "/v1/classify/batch", "x", "Content-Type", "text/plain").wantError(t, 415, "unsupported_media_type", "send application/json or multipart/form-data")
	// One that is larger than a body by itself may be fails alone, and a batch may be larger.
	large := `"` + strings.Repeat("A", 2<<20) + `"`
	var a embedBatchAnswer
	r := s.post(t, "/v1/embed/batch", `{"images":[`+image+","+large+","+image+`,[[`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`]]]}`)
	r.into(t, &a)
	if r.status != 200 || len(a.Images) != 4 || a.Images[1].Code != "body_too_large" || a.Images[0].Code != "" || a.Images[2].Code != "" || a.Images[3].Code != "invalid_image" {
		t.Errorf("%d %.300s", r.status, r.body)
	}
	// All may fail.
	r = s.post(t, "/v1/classify/batch", `{"prompts":["x"],"images":["","",5]}`)
	var all classifyBatchAnswer
	r.into(t, &all)
	if r.status != 200 || len(all.Results) != 3 || all.Results[2].Code != "invalid_image" {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.allReturned(t)
}

// TestBatchesAreNotRefused: several at once have many times the images that the queue takes, and a client with single
// images is served beside them.
func TestBatchesAreNotRefused(t *testing.T) {
	s := serve(t, nil)
	var images []string
	for i := range 64 {
		images = append(images, fmt.Sprintf("image %d", i))
	}
	var batches sync.WaitGroup
	for n := range 6 {
		batches.Go(func() {
			prompts := must(json.Marshal([]string{"x", fmt.Sprint("y ", n), fmt.Sprint("z ", n)}))
			var a classifyBatchAnswer
			r := s.post(t, "/v1/classify/batch", batchBody(fmt.Sprintf(`,"prompts":%s`, prompts), images...))
			if r.status != 200 || json.Unmarshal(r.body, &a) != nil || len(a.Results) != 64 {
				t.Errorf("%d %.300s", r.status, r.body)
				return
			}
			for i, one := range a.Results {
				if one.Code != "" {
					t.Errorf("image %d: %+v", i, one.itemError)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { batches.Wait(); close(ended) }()
	for done := false; !done; {
		select {
		case <-ended:
			done = true
		default:
			s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
		}
	}
	s.allReturned(t)
}

// TestBatchTextsWait: they are not refused where prompts of others fill the queue.
func TestBatchTextsWait(t *testing.T) {
	s := serve(t, nil)
	var texts []string
	for i := range 256 {
		texts = append(texts, fmt.Sprintf("text %d", i))
	}
	var clients sync.WaitGroup
	for range 12 { // 3,072 texts; 2,000 may wait
		clients.Go(func() {
			mine := make([]string, len(texts))
			for i, text := range texts {
				mine[i] = text + newRequestID()
			}
			r := s.post(t, "/v1/embed/batch", fmt.Sprintf(`{"texts":%s}`, must(json.Marshal(mine))))
			if r.status != 200 || strings.Contains(string(r.body), `"error"`) {
				t.Errorf("%d %.300s", r.status, r.body)
			}
		})
	}
	clients.Wait()
}

// TestBatchOfAClientWhoLeaves: no more images are opened, and everything comes back.
func TestBatchOfAClientWhoLeaves(t *testing.T) {
	s := serve(t, nil)
	body := batchBody(`,"prompts":["x"]`, slices.Repeat([]string{heldImage}, 64)...)
	all := int64(s.cfg.MaxBodyMemoryBytes)
	client := s.send(t, strings.Replace(posted(body), "/v1/classify", "/v1/classify/batch", 1))
	<-s.entered
	client.Close()
	until(t, func() bool { return strings.Contains(s.log.String(), "client_gone") })
	if s.bodies.available() == all {
		t.Error("the buffer is free while the engine works on an image in it")
	}
	s.release()
	until(t, func() bool { return s.bodies.available() == all })
	decoder := s.svc.Engine.Stats().Stages[0]
	if n := decoder.Passed + decoder.Expired + decoder.Failed; n > 8 {
		t.Errorf("%d images were opened", n)
	}
}

// TestBatchDeadline: performance.batch_timeout instead of request_timeout, and X-Request-Timeout-Ms, which shortens it.
func TestBatchDeadline(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.RequestTimeout = time.Nanosecond })
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantError(t, 504, "deadline_exceeded", "")
	s.post(t, "/v1/classify/batch", batchBody(`,"prompts":["x"]`, goodImage)).wantOK(t)
	s.post(t, "/v1/embed/batch", batchBody("", goodImage, waitingImage, goodImage), headerTimeout, "20").wantError(t, 504, "deadline_exceeded", "deadline")
	s.post(t, "/v1/embed/batch", `{"texts":["x","`+waitingText+`"]}`, headerTimeout, "20").wantError(t, 504, "deadline_exceeded", "deadline")
	s.post(t, "/v1/compare", `{"a":[{"text":"`+waitingText+`"}],"b":[{"text":"x"}]}`, headerTimeout, "20").wantError(t, 504, "deadline_exceeded", "deadline")
	s.allReturned(t)
}

// TestShutdownFinishesABatch that is inside.
func TestShutdownFinishesABatch(t *testing.T) {
	s := serve(t, nil)
	body := batchBody(`,"prompts":["x"]`, append([]string{waitingImage}, slices.Repeat([]string{goodImage}, 63)...)...)
	inside := s.send(t, strings.Replace(posted(body), "/v1/classify", "/v1/classify/batch", 1))
	<-s.entered
	stopped := s.shutdown()
	until(t, func() bool { return s.stopping.Load() })
	s.release()
	var a classifyBatchAnswer
	r := only(t, inside)
	r.into(t, &a)
	if r.status != 200 || len(a.Results) != 64 || a.Results[63].Code != "" {
		t.Errorf("%d %.300s", r.status, r.body)
	}
	noError(t, <-stopped)
}

// TestAnswerMemory: an answer counts as a body until it has been sent, whatever becomes of it, and no more than there is.
func TestAnswerMemory(t *testing.T) {
	const all = 1 << 20
	s := newService(t, func(c *Config, _ *Service) { c.MaxBodyMemoryBytes = all })
	r := &request{server: s.Server, arrived: time.Now(), ctx: &fasthttp.RequestCtx{}}
	a := must(r.newAnswer(100))
	text := strings.Repeat("x", 10_000)
	a.list("[", 10, func(b []byte, _ int) []byte { return append(b, text...) })
	noError(t, a.end(func(b []byte, _ *request, _ time.Duration) []byte { return b }))
	a.unlessSent()
	if free := s.bodies.available(); free != all-int64(cap(a.b)) || cap(a.b) < 100_000 {
		t.Errorf("%d bytes are free while an answer of %d waits", free, cap(a.b))
	}
	if body := r.ctx.Response.Body(); len(body) != len("[]")+10*len("{}")+9+100_000+len(`,"model":"test-clip","request_id":""}`) || s.bodies.available() != all {
		t.Errorf("%d bytes were sent, %d are free afterwards", len(body), s.bodies.available())
	}
	noError(t, a.Close())
	a = must(r.newAnswer(100))
	a.list("[", 200, func(b []byte, _ int) []byte { return append(b, text...) })
	if err := a.end(appendDimension); !errors.Is(err, errBodyMemory) {
		t.Errorf("an answer of 2 MB: %v", err)
	}
	a.unlessSent()
	if free := s.bodies.available(); free != all || len(s.bodies.held) != 0 {
		t.Errorf("%d bytes are free afterwards", free)
	}
}

// TestManyMatchesTakeTurns: batches with very many are classified a few at once, and others do not wait for them.
func TestManyMatchesTakeTurns(t *testing.T) {
	s := serve(t, nil)
	for range matchingAtOnce {
		defer must(s.matching.Take(t.Context(), fair.Caller{Address: "another"}))()
	}
	images := slices.Repeat([]string{goodImage}, maxBatchImages)
	var prompts []string
	for i := range manyMatches/maxBatchImages + 1 {
		prompts = append(prompts, fmt.Sprint("prompt ", i))
	}
	fields := fmt.Sprintf(`,"prompts":%s`, must(json.Marshal(prompts)))
	s.post(t, "/v1/classify/batch", batchBody(fields, images...)).wantOK(t)
	r := s.post(t, "/v1/classify/batch", batchBody(fields+`,"top_k":1000`, images...), headerTimeout, "50")
	r.wantError(t, 504, "deadline_exceeded", "deadline")
}

// TestLargeAnswersCount: those of routes that keep no account of their own, too, such as a prompt set with its examples.
func TestLargeAnswersCount(t *testing.T) {
	const all = 1 << 20
	s := newService(t, func(c *Config, _ *Service) { c.MaxBodyMemoryBytes = all })
	r := &request{server: s.Server, arrived: time.Now(), ctx: &fasthttp.RequestCtx{}}
	noError(t, r.answerJSON(strings.Repeat("x", largeAnswer)))
	if free := s.bodies.available(); free > all-largeAnswer {
		t.Errorf("%d bytes are free while an answer of %d waits", free, largeAnswer)
	}
	if n := len(r.ctx.Response.Body()); n != largeAnswer+len(`""`) || s.bodies.available() != all {
		t.Errorf("%d bytes were sent, %d are free afterwards", n, s.bodies.available())
	}
	if err := r.answerJSON(strings.Repeat("x", all)); !errors.Is(err, errBodyMemory) || s.bodies.available() != all {
		t.Errorf("an answer of %d bytes: %v, %d are free afterwards", all, err, s.bodies.available())
	}
}

// TestMadeChangesAreTold: where there is no memory for the answer, who has changed a set hears of it all the same.
func TestMadeChangesAreTold(t *testing.T) {
	s := newService(t, func(c *Config, _ *Service) { c.MaxBodyMemoryBytes = 1 << 20 })
	r := &request{server: s.Server, ctx: &fasthttp.RequestCtx{}, set: &setAsk{name: "s", created: true}}
	r.set.info = clip.SetInfo{Name: "s", ETag: "tag", Definition: sets.Definition{Labels: []sets.Label{{Name: strings.Repeat("x", 1<<20)}}}}
	noError(t, r.answerPromptSet())
	var told clip.SetInfo
	noError(t, json.Unmarshal(r.ctx.Response.Body(), &told))
	if told.Name != "s" || told.ETag != "tag" || len(told.Labels) != 0 || len(told.Warnings) != 1 || r.ctx.Response.StatusCode() != 201 {
		t.Errorf("%d %s", r.ctx.Response.StatusCode(), r.ctx.Response.Body())
	}
}

// TestBatchByAPromptSet: one version of the set answers for all, as it does for each by itself.
func TestBatchByAPromptSet(t *testing.T) {
	s := serve(t, nil)
	set := s.put(t, "things", `{"labels":[{"name":"a thing","prompts":["an image"]},{"name":"a dog"}],"background":{"prompts":["nothing"]},"min_cosine":0.5}`)
	var a struct {
		Results []struct {
			Classifications json.RawMessage `json:"classifications"`
			Matched         *bool           `json:"matched"`
			Reason          string          `json:"reason"`
			itemError
		} `json:"results"`
		setFields
		InferenceTimeMS float64 `json:"inference_time_ms"`
		LogitScale      float64 `json:"logit_scale"`
		Model           string  `json:"model"`
		RequestID       string  `json:"request_id"`
	}
	images := []string{notAnImage, goodImage, "something else", "nothing"}
	r := s.post(t, "/v1/classify/batch?top_k=1", batchBody(`,"prompt_set":"things"`, images...))
	r.wantOK(t)
	r.into(t, &a)
	if len(a.Results) != len(images) || a.Results[0].Code != "invalid_image" || a.PromptSet != "things" || a.ETag != set.ETag || a.ScoreSource != "text" ||
		!*a.Results[1].Matched || *a.Results[2].Matched || *a.Results[3].Matched || a.Results[3].Reason != "negative" {
		t.Errorf("%s", r.body)
	}
	for i, image := range images[1:] {
		var one struct {
			Classifications json.RawMessage
			Reason          string
		}
		noError(t, json.Unmarshal(s.post(t, "/v1/classify?prompt_set=things&top_k=1", `{"image":"`+b64(image)+`"}`).body, &one))
		if got := a.Results[i+1]; string(got.Classifications) != string(one.Classifications) || got.Reason != one.Reason {
			t.Errorf("%s: %+v, want %+v", image, got, one)
		}
	}
	s.post(t, "/v1/classify/batch", batchBody(`,"prompt_set":"nowhere"`, goodImage)).wantError(t, 404, "prompt_set_not_found", "nowhere")
	s.post(t, "/v1/classify/batch", batchBody(`,"prompt_set":"things","prompts":["x"]`, goodImage)).wantError(t, 400, "invalid_request", "exclude each other")
}

// TestEchoesCount: an answer that is long because it repeats what its caller sent counts as long as it is being sent.
func TestEchoesCount(t *testing.T) {
	const all = 4 << 20
	s := newService(t, func(c *Config, svc *Service) {
		speaksAll(c, svc)
		c.MaxBodyMemoryBytes = all
	})
	word := strings.Repeat("x", largeAnswer/2)
	for path, body := range map[string]string{
		"/v1/embed":    fmt.Sprintf(`{"texts":[%[1]q,%[1]q]}`, word),
		"/post":        fmt.Sprintf(`{"data":[{"text":"a","id":%[1]q},{"text":"b","id":%[1]q}]}`, word),
		"/v1/classify": classifyBody(goodImage, `,"top_k":99`, slices.Collect(manyPrompts(largeAnswer/2000+1))...),
	} {
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, nil, nil)
		ctx.Request.Header.SetMethod("POST")
		ctx.Request.SetRequestURI(path)
		ctx.Request.Header.SetContentType("application/json")
		ctx.Request.SetBodyStream(strings.NewReader(body), len(body))
		s.handle(&ctx)
		if free := s.bodies.available(); ctx.Response.StatusCode() != 200 || free > all-largeAnswer {
			t.Errorf("%s: %d, %d bytes are free while the answer waits", path, ctx.Response.StatusCode(), free)
		}
		if n := len(ctx.Response.Body()); n < largeAnswer || s.bodies.available() != all {
			t.Errorf("%s: %d bytes were sent, %d are free afterwards", path, n, s.bodies.available())
		}
	}
}

// manyPrompts are n prompts of about 2000 bytes.
func manyPrompts(n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(strings.Repeat("y", 2000) + fmt.Sprint(i)) {
				return
			}
		}
	}
}
