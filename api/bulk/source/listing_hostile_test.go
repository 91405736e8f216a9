package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hailoclip/api/bulk"
	"hailoclip/api/outbound"
)

// TestEndlessListings has servers that make up folders, and ones that follow links back.
func TestEndlessListings(t *testing.T) {
	var asked atomic.Int64
	host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if !strings.HasSuffix(r.URL.Path, ".jpg") {
			fmt.Fprintf(w, `<a href="%d/">x</a>`, asked.Load())
		}
	})
	got := lines(t, openFast(t, host, Options{}))
	if len(got) != 1 || !strings.HasSuffix(got[0], "! it is more than 32 folders deep") || asked.Load() != maxDepth+1 {
		t.Errorf("%d requests: %q", asked.Load(), got)
	}
	wide := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		for n := range 10 {
			fmt.Fprintf(w, `<a href="%d/">x</a>`, n)
		}
	})
	got = lines(t, openFast(t, wide, Options{MaxEntries: 1000}))
	if want := wide + "/! the listing has more than 1000 entries"; got[len(got)-1] != want {
		t.Errorf("%q, want %q", got[len(got)-1], want)
	}
	loop := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			_, _ = w.Write([]byte(`[{"name": "a.jpg", "size": 1, "mtime": "Thu, 27 Nov 2025 06:30:00 GMT", "type": "file"}, {"name": "loop", "type": "directory"}, {"name": "loop2/"}]`))
		} else {
			_, _ = w.Write([]byte("a"))
		}
	})
	const self = "it has what a folder above it has, so it is that"
	want := []string{loop + "/a.jpg: a", loop + "/loop/! " + self, loop + "/loop2/! " + self}
	if diff := cmp.Diff(want, lines(t, openFast(t, loop, Options{}))); diff != "" {
		t.Error(diff)
	}
}

func TestHugeListings(t *testing.T) {
	const many = 20_000
	half := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		json := r.URL.Path == "/json/"
		_, _ = w.Write([]byte(map[bool]string{true: "["}[json]))
		for n := range many {
			if comma := map[bool]string{true: ","}[n > 0]; json {
				fmt.Fprintf(w, `%s{"name":"image%d.jpg","size":%d,"mtime":"Thu, 27 Nov 2025 06:30:00 GMT"}`, comma, n, n)
			} else {
				fmt.Fprintf(w, "<a href=\"image%d.jpg\">x</a> 27-Nov-2025 06:30   %d\n", n, n)
			}
		}
		_, _ = w.Write([]byte(map[bool]string{true: "]"}[json]))
	})
	for _, path := range []string{"/json/", "/html/"} {
		n := int64(0)
		if err := openFast(t, half+path, Options{}).Each(t.Context(), func(item bulk.Item) error {
			if item.Size != n {
				t.Fatalf("%s has %d bytes", item.Path, item.Size)
			}
			n++
			return nil
		}); err != nil || n != many {
			t.Error(n, err)
		}
	}
	endless := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/links/":
			for n := 0; ; n++ {
				if _, err := fmt.Fprintf(w, `<a href="%d.jpg">`, n); err != nil {
					return
				}
			}
		case "/header/":
			w.Header().Set("X", strings.Repeat("x", 200<<10))
		case "/deep/":
			_, _ = w.Write([]byte("[" + strings.Repeat(`{"name":[`, 100_000)))
		}
		begin := map[string]string{"/attribute/": `<a href="`, "/string/": `[{"name": "`, "/space/": "[", "/text/": `<a href="a.jpg">x</a>`, "/bucket/": "<ListBucketResult><Contents><Key>"}[r.URL.Path]
		_, _ = w.Write([]byte(begin))
		block := []byte(strings.Repeat("x", 64<<10))
		if r.URL.Path == "/space/" {
			block = []byte(strings.Repeat(" ", 64<<10))
		}
		for begin != "" {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	for path, want := range map[string]string{
		"/links/": "more than 10000 entries", "/attribute/": "buffer", "/string/": "too long", "/space/": "too long", "/text/": "buffer", "/bucket/": "too long",
		"/header/": "header", "/deep/": "cannot be read",
	} {
		s := openFast(t, endless+path, Options{}).(*listing)
		s.room = 10_000
		got := lines(t, s)
		if last := got[len(got)-1]; len(got) != 1 || !strings.HasPrefix(last, endless+path+"! ") || !strings.Contains(last, want) {
			t.Errorf("%s: %.300q", path, got)
		}
	}
	got := lines(t, openFast(t, endless+"/links/", Options{MaxTotalBytes: 1 << 20}))
	if len(got) != 1 || !strings.HasSuffix(got[0], errTooMuch.Error()) {
		t.Errorf("%.300q", got)
	}
}

func TestBusyHost(t *testing.T) {
	var tried atomic.Int64
	host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		n := tried.Add(1)
		switch {
		case r.URL.Path == "/gone.jpg":
			http.NotFound(w, r)
		case r.URL.Path == "/dead.jpg", n%3 == 1:
			w.WriteHeader(http.StatusBadGateway)
		case n%3 == 2: // and the connection ends in the middle
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`<a href="x.jpg">`))
		case r.URL.Path == "/":
			_, _ = w.Write([]byte(`<a href="a.jpg">a</a> 27-Nov-2025 06:31 6`))
		default:
			_, _ = w.Write([]byte(r.URL.Path))
		}
	})
	if diff := cmp.Diff([]string{host + "/a.jpg: /a.jpg"}, lines(t, openFast(t, host, Options{}))); diff != "" || tried.Load() != 6 {
		t.Error(diff, tried.Load())
	}
	for path, passes := range map[string]bool{"/dead.jpg": true, "/gone.jpg": false} {
		tried.Store(0)
		items, err := all(t, openFast(t, host+path, Options{}))
		if err != nil || len(items) != 1 || items[0].Size != -1 {
			t.Fatal(err, items)
		}
		before := tried.Load()
		_, err = items[0].Open(t.Context())
		var temporary interface{ Temporary() bool }
		if err == nil || errors.As(err, &temporary) != passes || (tried.Load()-before == tries) != passes {
			t.Errorf("%s: %v after %d tries", path, err, tried.Load()-before)
		}
	}
}

// TestLostHost: where nobody is, requests are not tried again for ever, and are when somebody is back.
func TestLostHost(t *testing.T) {
	var asked atomic.Int64
	var back atomic.Bool
	host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); !back.Load() || n%2 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	h := newHosts(Options{}.withDefaults(), outbound.Any())
	h.pause = time.Millisecond
	u := mustURL(t, host+"/a.jpg")
	for range 100 {
		if _, err := h.image(t.Context(), u); err == nil {
			t.Fatal("an image")
		}
	}
	if want := int64(atOnce*tries + 100 - atOnce); asked.Load() != want {
		t.Errorf("%d requests, want %d", asked.Load(), want)
	}
	back.Store(true)
	asked.Store(0)
	for range 10 {
		if _, err := h.image(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != 19 {
		t.Errorf("%d requests", asked.Load())
	}
}

// TestSilentHost has a server that begins an answer and never ends it.
func TestSilentHost(t *testing.T) {
	host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`<a href="a.jpg">`))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s := openFast(t, host, Options{}).(*listing)
	s.pageTime = 20 * time.Millisecond
	if got := lines(t, s); len(got) != 1 || got[0] != host+"/! it took more than 20ms" {
		t.Errorf("%q", got)
	}
	s.pageTime = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Each(ctx, func(bulk.Item) error { t.Error("an item"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestNamesLikeSecrets: only what follows a question mark can be a secret. A name that looks like one stays, so that no two images have one path.
func TestNamesLikeSecrets(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a&key=1.jpg": "1", "a&key=2.jpg": "2", "b;token=3.jpg": "3", "c:d@e.jpg": "4", "f&auth=5/x.jpg": "5", "f&auth=6/x.jpg": "6"})
	host := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer host.Close()
	paths := map[string]bool{}
	for _, l := range lines(t, open(t, host.URL, Options{})) {
		path, _, _ := strings.Cut(l, ".jpg: ")
		paths[path] = true
		if strings.Contains(l, "***") {
			t.Error(l)
		}
	}
	if len(paths) != 6 {
		t.Errorf("%v", paths)
	}
	if err := open(t, host.URL+"/a&key=1.jpg?token=secret", Options{}).Each(t.Context(), func(i bulk.Item) error {
		if strings.Contains(i.Path, "secret") || !strings.Contains(i.Path, "a&key=1.jpg") {
			t.Error(i.Path)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
