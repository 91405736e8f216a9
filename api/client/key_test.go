package client

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
)

// TestKey: it goes with every request, also of what lasts, and with nothing else.
func TestKey(t *testing.T) {
	got := make(chan string, 10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(http.StatusFound)
	})
	s := httptest.NewServer(handler)
	defer s.Close()
	for key, want := range map[string]string{"": "", "hc_x": "Bearer hc_x"} {
		c := must(New(s.URL, Options{Key: key}))
		_, _ = c.Health(t.Context())
		_, _, _ = c.upgrade(t.Context(), "/v1/stream")
		for range c.Events(t.Context(), "x", EventsOptions{}) {
			break
		}
		for range 3 {
			if sent := <-got; sent != want {
				t.Errorf("%q, want %q", sent, want)
			}
		}
		c.Close()
	}
	if len(got) > 0 {
		t.Error("a redirect is followed")
	}
	if _, err := must(New(s.URL, Options{Key: "a\r\nX: b", Retries: -1})).Health(t.Context()); err == nil {
		t.Error("a key that is two lines is sent")
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"service":"hailo-clip"}`))
	}))
	s.Listener.Close()
	s.Listener = must(net.Listen("unix", path))
	s.Start()
	defer s.Close()
	c := must(New("unix:"+path, Options{}))
	defer c.Close()
	if h, err := c.Health(t.Context()); err != nil || h.Service != "hailo-clip" {
		t.Errorf("%+v %v", h, err)
	}
	for _, bad := range []string{"unix:", "unix:relative"} {
		if _, err := New(bad, Options{}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
