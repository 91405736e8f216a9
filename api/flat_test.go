package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	raster "image"
	"image/png"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"hailoclip/api/outbound"
	"hailoclip/api/stream"
	"hailoclip/api/stream/source"
)

// pngFile is imageFile as cameras may send it.
func pngFile(text string) []byte {
	m := raster.NewNRGBA(raster.Rect(0, 0, testSize, testSize))
	pixels := make([]byte, testSize*testSize*3)
	binary.LittleEndian.PutUint16(pixels, uint16(len(text)))
	copy(pixels[2:], text)
	for i := range testSize * testSize {
		copy(m.Pix[4*i:], pixels[3*i:3*i+3])
		m.Pix[4*i+3] = 0xff
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// flatAnswer is a flat answer of /v1/classify.
type flatAnswer struct {
	Label           string             `json:"label"`
	Score           float64            `json:"score"`
	Matched         bool               `json:"matched"`
	Reason          string             `json:"reason"`
	TS              time.Time          `json:"ts"`
	Source          string             `json:"source"`
	Labels          map[string]float64 `json:"labels"`
	PromptSet       string             `json:"prompt_set"`
	ETag            string             `json:"etag"`
	ScoreSource     string             `json:"score_source"`
	Temperature     float64            `json:"temperature"`
	InferenceTimeMS *float64           `json:"inference_time_ms"`
	LogitScale      float64            `json:"logit_scale"`
	Timings         map[string]float64 `json:"timings"`
	Model           string             `json:"model"`
	RequestID       string             `json:"request_id"`
}

func (r reply) flat(t testing.TB) (a flatAnswer) {
	t.Helper()
	r.wantOK(t)
	r.into(t, &a)
	if age := time.Since(a.TS); age < -time.Second || age > time.Minute || a.Model != testModel || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s", r.body)
	}
	return a
}

// sourced serves with sources of the configuration.
func sourced(t *testing.T, sources source.Named, change func(*Config, *Service)) *service {
	t.Helper()
	s := serve(t, change)
	s.name(sources)
	return s
}

func (s *service) name(sources source.Named) {
	s.svc.Hub.Apply(stream.Config{MaxStreams: 16, MaxListeners: 4, Linger: time.Minute, Sources: sources},
		stream.Limits{Prompts: s.cfg.MaxPrompts, PromptBytes: s.cfg.MaxPromptBytes}, testRequestLimit)
}

// TestFlat has the flat form of answers with prompts and with sets.
func TestFlat(t *testing.T) {
	s := serve(t, nil)
	got := s.post(t, "/v1/classify?flat=1", fmt.Sprintf(`{"image":%q,"labels":["other",%q,"other"],"top_k":9}`, b64(goodImage), goodImage)).flat(t)
	if got.Label != goodImage || got.Score < 0.99 || !got.Matched || len(got.Labels) != 2 || got.Labels[goodImage] != got.Score || got.Source != "" {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct{ path, body, media string }{
		{"/v1/classify?flat=true&labels=other&labels=an+image&timings=1", string(imageFile(goodImage)), "image/bmp"},
		{"/v1/classify?flat=true&prompts=other&prompts=an+image&labels=ignored", string(imageFile(goodImage)), "image/bmp"},
		{"/v1/classify?flat=true", classifyBody(goodImage, `,"labels":["ignored"]`, "other", goodImage), "application/json"},
	} {
		if got := s.post(t, c.path, c.body, "Content-Type", c.media).flat(t); got.Label != goodImage || len(got.Labels) != 2 || (len(got.Timings) > 0) != strings.Contains(c.path, "timings") {
			t.Errorf("%s: %+v", c.path, got)
		}
	}
	none := s.post(t, "/v1/classify?flat=1", classifyBody("another", `,"threshold":1`, "x", "y")).flat(t)
	if none.Label != "unknown" || none.Score != 0 || none.Matched || len(none.Labels) != 0 {
		t.Errorf("%+v", none)
	}
	long := strings.Repeat("ö", 300)
	if got := s.post(t, "/v1/classify?flat=1", classifyBody(goodImage, "", long)).flat(t); utf8.RuneCountInString(got.Label) != maxState || got.Labels[long] == 0 {
		t.Errorf("%+v", got)
	}
	s.put(t, "pets", `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog"]}],"min_margin":0.5}`)
	by := func(image string) flatAnswer {
		return s.post(t, "/v1/classify?flat=1", fmt.Sprintf(`{"image":%q,"prompt_set":"pets"}`, b64(image))).flat(t)
	}
	if got := by("a cat"); got.Label != "cat" || !got.Matched || got.PromptSet != "pets" || got.ETag == "" || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	if got := s.post(t, "/v1/classify?flat=1", fmt.Sprintf(`{"image":%q,"prompt_set":"pets","labels":["x"]}`, b64("a dog"))).flat(t); got.Label != "dog" {
		t.Errorf("%+v", got)
	}
	s.put(t, "pets", `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog"]}],"min_cosine":0.9}`)
	if got := by("a house"); got.Label != "unknown" || got.Matched || got.Reason != "min_cosine" || got.Score != 0 || len(got.Labels) != 2 {
		t.Errorf("%+v", got)
	}
	s.post(t, "/v1/classify?flat=maybe", classifyBody(goodImage, "", "x")).wantError(t, 400, "invalid_request", "'flat'")
	s.post(t, "/v1/classify?labels=x", `{"image":"x","labels":["y"]}`).wantError(t, 400, "invalid_request", "'labels' is in the query and in the body")
	s.post(t, "/v1/classify", `{"image":"x","labels":"y"}`).wantError(t, 400, "invalid_prompts", "")
	s.post(t, "/v1/classify/batch?labels=x", `{"images":["`+b64(goodImage)+`"]}`).wantOK(t)
}

// TestSources classifies images of sources.
func TestSources(t *testing.T) {
	shown := atomic.Pointer[string]{}
	shown.Store(new(goodImage))
	camera, _ := host(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		switch {
		case r.URL.Path == "/mjpeg":
			w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=x")
			for r.Context().Err() == nil {
				if _, err := fmt.Fprintf(w, "--x\r\nContent-Type: image/png\r\n\r\n%s\r\n", pngFile(*shown.Load())); err != nil {
					return
				}
			}
		case !ok:
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
		case user+password != "mehush":
			t.Errorf("asked by %s", user)
		default:
			w.Write(pngFile(*shown.Load()))
		}
	})
	address := strings.Replace(camera, "//", "//me:hush@", 1)
	file := t.TempDir() + "/latest.png"
	noError(t, os.WriteFile(file, pngFile("a file"), 0o600))
	s := sourced(t, source.Named{"porch": address + "/snapshot?token=secret", "hall": camera + "/mjpeg", "desk": file}, kept(t))
	ask := func(query string) reply { return s.do(t, "GET", "/v1/classify?"+query, "") }
	const prompts = "&prompts=other&prompts=an+image&prompts=a+file&top_k=2"
	for name, want := range map[string]string{"porch": goodImage, "hall": goodImage, "desk": "a file"} {
		got := ask("source=" + name + prompts).flat(t)
		if got.Label != want || got.Source != name || len(got.Labels) != 2 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	shown.Store(new("other"))
	if got := ask("source=porch" + prompts).flat(t); got.Label != "other" {
		t.Errorf("%+v", got)
	}
	var full classifyAnswer
	if ask("source=porch&flat=0"+prompts).into(t, &full); len(full.Classifications) != 2 {
		t.Errorf("%+v", full)
	}
	s.put(t, "kinds", `{"labels":[{"name":"image","prompts":["an image"]},{"name":"none","prompts":["other"]}]}`)
	if got := ask("source=porch&prompt_set=kinds&timings=1").flat(t); got.Label != "none" || got.PromptSet != "kinds" || got.Timings["encode"] == 0 || got.Timings["fetch"] == 0 {
		t.Errorf("%+v", got)
	}
	s.name(source.Named{"desk": file})
	ask("source=porch"+prompts).wantError(t, 404, "source_not_found", `"porch"`)
	s.allReturned(t)
	if text := s.log.String(); strings.Contains(text, "hush") || strings.Contains(text, "secret") {
		t.Error(text)
	}
}

// TestStreamAsSource: a stream that is pulled is a source by its name, while its host is allowed.
func TestStreamAsSource(t *testing.T) {
	camera, _ := host(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(pngFile(goodImage)) })
	allowed := outbound.New(outbound.Config{Allow: []string{"127.0.0.1"}})
	s := serve(t, kept(t))
	hub := must(stream.NewHub(stream.Config{MaxStreams: 16, MaxListeners: 4, Linger: time.Minute}, stream.Parts{
		Engine: s.svc.Engine, Bus: s.svc.Bus, Store: s.svc.Store, Limits: stream.Limits{Prompts: 10, PromptBytes: 100}, Allowed: allowed,
		Timeout: testRequestLimit, Frames: source.Limits{FrameBytes: 1 << 20}, Buffers: s.bodies.Buffers(), Log: s.svc.Log, Encode: AppendAnswer,
	}))
	noError(t, s.svc.Hub.Close(t.Context()))
	s.svc.Hub = hub
	t.Cleanup(func() { noError(t, hub.Close(context.Background())) })
	made := s.json(t, "PUT", "/v1/streams/gate", fmt.Sprintf(`{"prompts":["x"],"source":%q}`, camera))
	if made.status != 201 {
		t.Fatalf("%s", made.body)
	}
	if got := s.do(t, "GET", "/v1/classify?source=gate&labels=an+image&labels=x", "").flat(t); got.Label != goodImage || got.Source != "gate" {
		t.Errorf("%+v", got)
	}
	allowed.Apply(outbound.Config{})
	s.do(t, "GET", "/v1/classify?source=gate&labels=x", "").wantError(t, 503, "unavailable", "see the service's log")
	s.json(t, "PUT", "/v1/streams/pushed", `{"prompts":["x"]}`)
	s.do(t, "GET", "/v1/classify?source=pushed&labels=x", "").wantError(t, 404, "source_not_found", "")
}

// TestSourcesRefused has what is wrong with a request, and with a source, of which only the log has more.
func TestSourcesRefused(t *testing.T) {
	asked := atomic.Int32{}
	gone, _ := host(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "a secret", http.StatusNotFound)
	})
	silent, _ := host(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	good := t.TempDir() + "/good.png"
	noError(t, os.WriteFile(good, pngFile(goodImage), 0o600))
	s := sourced(t, source.Named{"gone": gone, "silent": silent, "file": t.TempDir() + "/none.png", "text": "../api/flat_test.go", "good": good}, nil)
	for query, c := range map[string]struct {
		status int
		code   string
		text   string
		lines  []string
	}{
		"":                                        {400, "invalid_request", "'source'", nil},
		"prompts=x":                               {400, "invalid_request", "'source'", nil},
		"source=&prompts=x":                       {400, "invalid_request", "'source'", nil},
		"source=gone&source=gone&prompts=x":       {400, "invalid_request", "'source'", nil},
		"source=..%2Fetc&prompts=x":               {400, "invalid_request", "'source'", nil},
		"source=http://127.0.0.1/&prompts=x":      {400, "invalid_request", "'source'", nil},
		"source=gone":                             {400, "invalid_prompts", "", nil},
		"source=gone&prompts=x&prompt_set=y":      {400, "invalid_request", "exclude", nil},
		"source=gone&prompts=x&top_k=0":           {400, "invalid_request", "'top_k'", nil},
		"source=gone&prompts=x&flat=x":            {400, "invalid_request", "'flat'", nil},
		"source=gone&prompts=x&timings=x":         {400, "invalid_request", "'timings'", nil},
		"source=gone&prompts=%ff":                 {400, "invalid_prompts", "UTF-8", nil},
		"source=gone&prompts=x&image_url=" + gone: {400, "invalid_request", "image_url", nil},
		"source=none&prompts=x":                   {404, "source_not_found", "", nil},
		"source=gone&prompts=x":                   {503, "unavailable", "see the service's log for this request_id", nil},
		"source=file&prompts=x":                   {503, "unavailable", "see the service's log for this request_id", nil},
		"source=text&prompts=x":                   {503, "unavailable", "see the service's log for this request_id", nil},
		"source=silent&prompts=x":                 {504, "deadline_exceeded", "", []string{headerTimeout, "50"}},
		"source=silent&prompts=x&":                {503, "unavailable", "see the service's log", nil},
		"source=gone&prompts=x&cross":             {403, "origin_not_allowed", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}},
		"source=gone&prompts=x&image":             {403, "origin_not_allowed", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}},
		"source=gone&prompts=x&port":              {403, "origin_not_allowed", "", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}},
		"source=gone&prompts=x&fetch":             {403, "origin_not_allowed", "", []string{"Origin", "http://evil.example"}},
		"source=gone&prompts=x&own":               {503, "unavailable", "", []string{"Sec-Fetch-Site", "same-origin"}},
		"source=gone&prompts=x&typed":             {503, "unavailable", "", []string{"Sec-Fetch-Site", "none"}},
	} {
		t.Run(query, func(t *testing.T) {
			s.fetcher.patience = time.Minute
			if strings.HasSuffix(query, "&") {
				s.fetcher.patience = 50 * time.Millisecond
			}
			before := asked.Load()
			r := s.do(t, "GET", "/v1/classify?"+query, "", c.lines...)
			r.wantError(t, c.status, c.code, c.text)
			for _, secret := range []string{"a secret", gone[len("http://"):], "none.png"} {
				if strings.Contains(string(r.body), secret) {
					t.Errorf("%s", r.body)
				}
			}
			if c.status == 403 && asked.Load() > before {
				t.Error("the camera was asked")
			}
			if (r.header.Get("Retry-After") != "") != (c.status == 503) {
				t.Error(r.header)
			}
		})
	}
	if log := s.log.String(); !strings.Contains(log, "the camera has no such address: 404 Not Found") {
		t.Errorf("the log does not have the reason: %s", log)
	}
	s.do(t, "GET", "/v1/classify?source=gone&prompts=x", "a body").wantError(t, 413, "body_too_large", "")
	for _, empty := range []string{"Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
		only(t, s.send(t, "GET /v1/classify?source=good&prompts=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+empty)).wantOK(t)
	}
	s.allReturned(t)
	s.lose("no device")
	s.do(t, "GET", "/v1/classify?source=gone&prompts=x", "").wantError(t, 503, "not_ready", "")
	s.allReturned(t)
}
