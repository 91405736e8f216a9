package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/console"
)

// withSample is a service whose console has a sample.
func withSample(_ *Config, svc *Service) {
	svc.Samples = []Sample{{Name: "cat.jpg", JPEG: []byte("a cat")}}
}

func TestHome(t *testing.T) {
	s := serve(t, withSample)
	for accept, isJSON := range map[string]bool{
		"": false, "*/*": false, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": false, "text/html, application/json;q=0.5": false,
		"application/json": true, "Application/JSON; charset=utf-8": true, "application/json, */*": true,
	} {
		r := s.do(t, "GET", "/", "", "Accept", accept)
		want := "text/html; charset=utf-8"
		if isJSON {
			want = "application/json"
		}
		if r.status != 200 || r.header.Get("Content-Type") != want || r.header.Get("Vary") != "Accept" {
			t.Errorf("Accept %q: %d %v", accept, r.status, r.header)
		}
	}
	var served struct {
		Service string
		Version string
		Paths   map[string][]string
		Compat  map[string][]string
	}
	noError(t, json.Unmarshal(s.do(t, "GET", "/", "", "Accept", "application/json").body, &served))
	if served.Service != "hailo-clip" || served.Version != "1.2.3" || !slices.Equal(served.Paths["/v1/prompt-sets/{name}"], []string{"GET", "DELETE", "PUT"}) ||
		!slices.Equal(served.Paths["/v1/models/{id}"], []string{"GET", "HEAD"}) || !slices.Contains(served.Compat["openai"], "/v1/embeddings") {
		t.Errorf("%+v", served)
	}
}

func TestConsoleFiles(t *testing.T) {
	s := serve(t, withSample)
	paths := []string{"/", consolePath + "config.json", consolePath + "cat.jpg"}
	for name := range console.Files() {
		paths = append(paths, consolePath+name)
	}
	for i := range 2 * len(paths) {
		path, coding := paths[i/2], [...]string{"identity", "gzip"}[i%2]
		ask := func(method string, more ...string) reply {
			return s.do(t, method, path, "", append([]string{"Accept-Encoding", coding}, more...)...)
		}
		r := ask("GET")
		h := r.header
		if r.status != 200 || len(r.body) == 0 || h.Get("Content-Type") == "" || h.Get("Cache-Control") != "no-cache" || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Content-Security-Policy") != "default-src 'self'; frame-ancestors 'none'" || h.Get("Referrer-Policy") != "no-referrer" ||
			h.Get("Permissions-Policy") != "camera=(self)" {
			t.Errorf("%s: %d %v", path, r.status, h)
		}
		if h.Get("Content-Encoding") == "gzip" {
			plain, err := gzip.NewReader(bytes.NewReader(r.body))
			noError(t, err)
			body, err := io.ReadAll(plain)
			noError(t, err)
			was := s.do(t, "GET", path, "", "Accept-Encoding", "identity")
			if !bytes.Equal(body, was.body) || len(r.body) >= len(body) || was.header.Get("ETag") == h.Get("ETag") || !slices.Contains(h.Values("Vary"), "Accept-Encoding") {
				t.Errorf("%s compressed: %d bytes of %d, %v", path, len(r.body), len(body), h)
			}
		}
		head := ask("HEAD")
		if head.status != 200 || len(head.body) > 0 || head.header.Get("ETag") != h.Get("ETag") || head.header.Get("Content-Length") != h.Get("Content-Length") {
			t.Errorf("HEAD %s: %d %v", path, head.status, head.header)
		}
		for _, known := range []string{h.Get("ETag"), "W/" + h.Get("ETag"), `"other", ` + h.Get("ETag"), "*"} {
			if again := ask("GET", "If-None-Match", known); again.status != 304 || len(again.body) > 0 || again.header.Get("ETag") != h.Get("ETag") {
				t.Errorf("%s with %s: %d %q", path, known, again.status, again.body)
			}
		}
		if again := ask("GET", "If-None-Match", `"other"`); again.status != 200 {
			t.Errorf("%s, which is another one now: %d", path, again.status)
		}
	}
	for _, path := range []string{consolePath, consolePath + "none.js", consolePath + "..%2fconsole.go", consolePath + "www"} {
		if r := s.do(t, "GET", path, ""); r.status != 404 || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := s.do(t, "DELETE", "/", ""); r.status != 405 { // POST is Hugging Face's
		t.Errorf("DELETE /: %d", r.status)
	}
}

func TestConsoleConfig(t *testing.T) {
	s := serve(t, withSample)
	var got struct {
		ImageSize int `json:"image_size"`
		Fit       string
		Samples   []string
	}
	noError(t, json.Unmarshal(s.do(t, "GET", "/console/config.json", "").body, &got))
	if got.ImageSize != testSize || got.Fit != "crop" || !slices.Equal(got.Samples, []string{"cat.jpg"}) {
		t.Errorf("%+v", got)
	}
}

// TestLinkToConsole: a link on a page of somebody else may lead to the console, and to nothing else.
func TestLinkToConsole(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct {
		path, mode, dest string
		status           int
	}{
		{"/", "navigate", "document", 200},
		{"/", "navigate", "iframe", 403},
		{"/", "no-cors", "script", 403},
		{"/console/main.js", "no-cors", "script", 403},
		{"/v1/stats", "navigate", "document", 403},
	} {
		r := s.do(t, "GET", c.path, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", c.mode, "Sec-Fetch-Dest", c.dest)
		if r.status != c.status {
			t.Errorf("%+v: %d", c, r.status)
		}
	}
}

func TestTokens(t *testing.T) {
	s := serve(t, nil)
	r := s.post(t, "/v1/tokens", `{"prompts":["a cat","`+strings.Repeat("long ", 100)+`"]}`)
	if want := `"prompts":[{"tokens":4,"truncated":false},{"tokens":77,"truncated":true}]`; r.status != 200 || !strings.Contains(string(r.body), want) {
		t.Errorf("%d %s", r.status, r.body)
	}
	for body, code := range map[string]string{`{}`: "invalid_prompts", `{"prompts":[""]}`: "invalid_prompts", `{`: "invalid_json", `{"prompts":["` + strings.Repeat("x", 2049) + `"]}`: "invalid_prompts"} {
		if r := s.post(t, "/v1/tokens", body); r.status != 400 || !strings.Contains(string(r.body), code) {
			t.Errorf("%.40s: %d %s", body, r.status, r.body)
		}
	}
}
