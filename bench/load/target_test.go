package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestURLs(t *testing.T) {
	bodies, _ := NewBodies([]Image{{Name: "one", Data: []byte{1}}}, Ask{Prompts: 1})
	for _, url := range []string{"", "127.0.0.1:5000", "ftp://127.0.0.1", "http://", "http://u:p@127.0.0.1", "http://127.0.0.1/?a=b", "http://[::1", "http://a/#b"} {
		if _, err := NewTarget(url, "", bodies, time.Second); err == nil {
			t.Errorf("%q is accepted", url)
		}
	}
	for url, addr := range map[string]string{"http://127.0.0.1": "127.0.0.1:80", "https://pi/clip": "pi:443", "http://[::1]:5000": "[::1]:5000"} {
		target, err := NewTarget(url, "", bodies, time.Second)
		if err != nil || target.http.Addr != addr {
			t.Errorf("%q: %v, %+v", url, err, target)
		}
	}
}

// TestHostileServices answer the check with what is no answer, and are told from one another.
func TestHostileServices(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	defer elsewhere.Close()
	cases := []struct {
		name, says string
		handler    http.HandlerFunc
	}{
		{"redirects", "status 302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }},
		{"refuses", "status 503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{"is another program", "not a JSON object", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }},
		{"has another interface", `no "classifications"`, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"a":1}`) }},
		{"promises too much", "body size exceeds", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000000000")
			w.WriteHeader(http.StatusOK)
		}},
		{"never ends", "body size exceeds", func(w http.ResponseWriter, _ *http.Request) {
			for junk := make([]byte, 1<<16); ; {
				if _, err := w.Write(junk); err != nil {
					return
				}
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			target := newTestTarget(t, s.URL)
			if err := target.Check(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
			target.Close() // before the server, which waits for its connections
		})
	}
	elsewhere.Close()
	target := newTestTarget(t, elsewhere.URL)
	if code := target.ask(target.newExchange()); code != codeRefused {
		t.Errorf("code %q of one that is not there", code)
	}
}

// TestWrongAnswers: an answer that would be good for another image is a bad one, in the load and in the check before it.
func TestWrongAnswers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"embedding":[0.5]}`) }))
	defer s.Close()
	bodies, err := NewBodies([]Image{
		{Name: "right", Data: []byte("1"), Answer: []byte(`"embedding":[0.5]`)},
		{Name: "wrong", Data: []byte("2"), Answer: []byte(`"embedding":[0.25]`)},
	}, Ask{Body: Binary})
	if err != nil {
		t.Fatal(err)
	}
	target, err := NewTarget(s.URL, "", bodies, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	x := target.newExchange()
	if first, second := target.ask(x), target.ask(x); first != "" || second != codeBad {
		t.Errorf("%q, %q", first, second)
	}
	if err := target.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "the answer is wrong") {
		t.Error(err)
	}
}

func TestBodies(t *testing.T) {
	images := []Image{{Name: "one", Data: []byte("first")}, {Name: "two", Data: []byte("second")}}
	var r, again struct {
		Image   []byte
		Prompts []string
	}
	seen := func(bodies *Bodies, n int) int { // different prompts in n requests
		all, buffer := map[string]bool{}, []byte(nil)
		for i := range n {
			again, r = r, again
			r.Prompts = nil
			if body, _, _ := bodies.get(&buffer); json.Unmarshal(body, &r) != nil || string(r.Image) != []string{"first", "second"}[i%2] {
				t.Fatalf("request %d: %.100q", i, body)
			}
			for _, p := range r.Prompts {
				all[p] = true
			}
		}
		return len(all)
	}
	for _, c := range []struct {
		prompts int
		fresh   bool
		want    int
	}{{1000, false, 1000}, {20, true, 20 * 100}, {0, true, 0}} {
		bodies, err := NewBodies(images, Ask{Prompts: c.prompts, Fresh: c.fresh})
		if err != nil {
			t.Fatal(err)
		}
		if n := seen(bodies, 100); n != c.want || len(r.Prompts) != c.prompts || slices.Equal(r.Prompts, again.Prompts) != (c.want < 2000) {
			t.Errorf("%+v: %d different prompts in 100 requests", c, n)
		}
		if want := map[bool]string{true: "/v1/embed/image", false: "/v1/classify"}[c.prompts == 0]; bodies.path != want {
			t.Errorf("%d prompts go to %s", c.prompts, bodies.path)
		}
	}
	for _, n := range []int{-1, MaxPrompts + 1} {
		if _, err := NewBodies(images, Ask{Prompts: n}); err == nil {
			t.Errorf("%d prompts are accepted", n)
		}
	}
	if _, err := NewBodies(nil, Ask{Prompts: 1}); err == nil {
		t.Error("no image is accepted")
	}
}

// TestRegister has a service without the set that encodes it for a while, one that fails to, and one without prompt sets.
func TestRegister(t *testing.T) {
	bodies, err := NewBodies([]Image{{Name: "one", Data: []byte("first")}}, Ask{Prompts: 3, Set: "bench"})
	if err != nil {
		t.Fatal(err)
	}
	var buffer []byte
	if body, _, _ := bodies.get(&buffer); string(body) != `{"image":"Zmlyc3Q=","prompt_set":"bench"}` || !strings.Contains(bodies.String(), "the prompt set bench") {
		t.Errorf("%s: %s", bodies, body)
	}
	for kind, path := range map[string]string{Binary: "/v1/classify?prompt_set=bench", Multipart: "/v1/classify"} {
		b, err := NewBodies([]Image{{Name: "one", Data: []byte("first")}}, Ask{Body: kind, Prompts: 3, Set: "bench"})
		if err != nil {
			t.Fatal(err)
		}
		if body, _, _ := b.get(&buffer); b.path != path || !strings.Contains(string(body), "first") || strings.Contains(string(body), "photo") {
			t.Errorf("%s: %s %q", kind, b.path, body)
		}
	}
	for _, ask := range []Ask{{Set: "bench"}, {Prompts: 1, Set: "bench", Fresh: true}, {Body: Binary, Prompts: 1, Fresh: true}, {Body: "xml"}, {Body: Raw}} {
		if _, err := NewBodies([]Image{{Name: "one", Data: []byte("first")}}, ask); err == nil {
			t.Errorf("%+v is accepted", ask)
		}
	}
	for end, says := range map[string]string{"ready": "", "failed": "no encoder", "": "status 404"} {
		var asked []string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, r.Method)
			state := map[bool]string{true: end, false: "encoding"}[len(asked) == 4]
			switch {
			case end == "", len(asked) == 1:
				w.WriteHeader(http.StatusNotFound)
				if end != "" {
					io.WriteString(w, `{"error":"There is none","code":"prompt_set_not_found"}`)
				}
				return
			case r.Method == http.MethodPut:
				if r.URL.Path != "/v1/prompt-sets/bench" || strings.Count(string(body), `"name"`) != 3 {
					t.Errorf("%s: %s", r.URL, body)
				}
				w.WriteHeader(http.StatusCreated)
			case r.Method == http.MethodDelete:
				w.WriteHeader(http.StatusNoContent)
				return
			}
			io.WriteString(w, `{"state":"`+state+`","reason":"no encoder"}`)
		}))
		target, err := NewTarget(s.URL, "", bodies, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		remove, err := target.Register(t.Context())
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", end, err)
		}
		if target.Close(); err == nil {
			remove()
		}
		if want := map[bool]string{true: "[GET]", false: "[GET PUT GET GET DELETE]"}[end == ""]; fmt.Sprint(asked) != want {
			t.Errorf("%q: asked %s, want %s", end, asked, want)
		}
		s.Close()
	}
}

func TestChild(t *testing.T) {
	start := func(kind string) (*Child, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if kind == "hangs" {
			cancel()
		}
		return StartChild(ctx, append(os.Environ(), asService+"="+kind), os.Args[0])
	}
	if _, err := start("fails"); err == nil || !strings.Contains(err.Error(), "cannot open the device") {
		t.Errorf("error %v does not tell the log", err)
	}
	if _, err := start("hangs"); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("error %v", err)
	}
	c, err := start("serves")
	if err != nil || c.URL != "http://127.0.0.1:1" {
		t.Fatalf("%v, %+v", err, c)
	}
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "did not end well") { // it has no handler for SIGTERM
		t.Errorf("error %v", err)
	}
	if c, err = start("serves"); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Process.Kill()
	<-c.ended
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("error %v", err)
	}
}
