package stream

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/api/outbound"
	"hailoclip/api/stream/source"
)

// camera sends images as cameras do, as many as are in the channel; each connection begins anew.
type camera struct {
	*httptest.Server
	images chan string   // colours; "" ends a connection
	opened atomic.Int32  // connections
	gone   chan struct{} // closed at the end
}

func newCamera(t testing.TB) *camera {
	c := &camera{images: make(chan string), gone: make(chan struct{})}
	c.Server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(func() {
		close(c.gone)
		c.Close()
	})
	return c
}

func (c *camera) serve(w http.ResponseWriter, r *http.Request) {
	if _, password, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/locked") && password != "secret" {
		w.Header().Set("WWW-Authenticate", `Basic realm="camera"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	c.opened.Add(1)
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case colour := <-c.images:
			if colour == "" {
				return
			}
			b := pngOf(colour)
			fmt.Fprintf(w, "--frame\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%s\r\n--frame\r\n", len(b), b)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		case <-c.gone:
			return
		}
	}
}

// pngOf is an image of one colour.
func pngOf(colour string) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		v := colours[colour]
		m.Set(i%8, i/8, color.RGBA{v[0], v[1], v[2], 255})
	}
	var b bytes.Buffer
	_ = png.Encode(&b, m) // into memory
	return b.Bytes()
}

// lender lends memory and knows what is not back.
type lender struct{ lent atomic.Int32 }

func (l *lender) buffers() Buffers {
	return Buffers{
		Get: func(_ string, size int) ([]byte, error) { l.lent.Add(1); return make([]byte, 0, size), nil },
		Put: func(string, []byte) { l.lent.Add(-1) },
	}
}

// await blocks until something is so.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// pulls makes a hub that keeps definitions and may pull from this machine.
func pulls(t testing.TB, memory *lender) *yard {
	store := openStore(t, newPath(t))
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return newYard(t, func(y *yard) {
		y.parts.Store, y.parts.Buffers = store, memory.buffers()
		y.parts.Allowed = outbound.New(outbound.Config{Allow: []string{"127.0.0.0/8"}})
		y.parts.Frames = source.Limits{FrameBytes: 1 << 20}
	})
}

// TestPull has a camera that is pulled from, goes away and comes back, is changed for another one, and deleted.
func TestPull(t *testing.T) {
	c, memory := newCamera(t), &lender{}
	y := pulls(t, memory)
	definition := fmt.Sprintf(`{"prompts": ["red", "green"], "source": "%s/a", "events": {"min_frames": 1}}`, c.URL)
	if _, created, err := y.Put(t.Context(), "gate", []byte(definition)); err != nil || !created {
		t.Fatal(err)
	}
	info := func() Info {
		i, err := y.Get("gate")
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	c.images <- "red"
	await(t, "red does not hold", func() bool {
		i := info()
		return i.Fed && i.Stats.Answered == 1 && len(i.State) == 1 && i.State[0].State == "red"
	})
	if _, err := y.tryFeed(t.Context(), "gate", ""); err == nil || !strings.Contains(err.Error(), ErrFed.Error()) {
		t.Errorf("error %v", err)
	}
	c.images <- ""
	await(t, "nobody has noticed", func() bool { i := info(); return !i.Fed && i.Trouble != "" && i.Code == "unavailable" })
	c.images <- "green"
	await(t, "it did not come again", func() bool {
		i := info()
		return i.Fed && i.Trouble == "" && i.State[0].State == "green" && i.Stats.Answered == 2
	})
	if _, _, err := y.Put(t.Context(), "gate", []byte(strings.Replace(definition, "/a", "/b", 1))); err != nil {
		t.Fatal(err)
	}
	await(t, "it was not changed", func() bool {
		select {
		case c.images <- "red": // which the former connection may get
		default:
		}
		i := info()
		return i.State[0].State == "red" && strings.HasSuffix(i.Source, "/b")
	})
	if n := c.opened.Load(); n != 3 {
		t.Errorf("it was opened %d times", n)
	}
	if err := y.Delete(t.Context(), "gate"); err != nil {
		t.Error(err)
	}
	await(t, "memory is missing", func() bool { return memory.lent.Load() == 0 })
}

// TestMaskedPassword: nobody is told it, and who puts back what he was told changes nothing.
func TestMaskedPassword(t *testing.T) {
	c, memory := newCamera(t), &lender{}
	y := pulls(t, memory)
	address := strings.Replace(c.URL, "://", "://user:%s@", 1) + "/locked"
	put := func(password string) Info {
		info, _, err := y.Put(t.Context(), "gate", fmt.Appendf(nil, `{"prompts": ["red"], "source": %q}`, fmt.Sprintf(address, password)))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	put("wrong")
	await(t, "it was let in", func() bool { i, _ := y.Get("gate"); return i.Code == "auth" && !strings.Contains(i.Trouble, "wrong") })
	masked := put("secret").Source
	if strings.Contains(masked, "secret") {
		t.Fatal(masked)
	}
	c.images <- "red"
	if _, _, err := y.Put(t.Context(), "gate", fmt.Appendf(nil, `{"prompts": ["green"], "source": %q}`, masked)); err != nil {
		t.Fatal(err)
	}
	c.images <- "red"
	if n := c.opened.Load(); n != 1 {
		t.Errorf("it was opened %d times", n)
	}
	kept, err := y.parts.Store.Streams()
	if err != nil || !strings.Contains(string(kept["gate"]), "secret") || !strings.Contains(string(kept["gate"]), "green") {
		t.Errorf("%s, %v", kept["gate"], err)
	}
}

// TestRefusedSources are not in fetch.allow, or no addresses that callers may name.
func TestRefusedSources(t *testing.T) {
	y := pulls(t, &lender{})
	for _, address := range []string{"/dev/video0", "file:///etc/passwd", "ftp://127.0.0.1/", "-", "http://"} {
		if _, _, err := y.Put(t.Context(), "gate", fmt.Appendf(nil, `{"prompts": ["red"], "source": %q}`, address)); err == nil {
			t.Errorf("%s is good", address)
		}
	}
	if _, _, err := y.Put(t.Context(), "gate", []byte(`{"prompts": ["red"], "source": "http://[::1]:9/"}`)); err == nil {
		await(t, "it is allowed", func() bool { i, _ := y.Get("gate"); return i.Code == "not_allowed" })
	}
}

// TestManyRestarts of cameras and of the stream leave nothing.
func TestManyRestarts(t *testing.T) {
	c, memory := newCamera(t), &lender{}
	y := pulls(t, memory)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		for ctx.Err() == nil {
			select {
			case c.images <- "red":
			case <-ctx.Done():
			}
		}
	})
	for i := range 100 {
		if _, _, err := y.Put(t.Context(), "gate", fmt.Appendf(nil, `{"prompts": ["red"], "source": "%s/%d"}`, c.URL, i)); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if err := y.Delete(t.Context(), "gate"); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(t, "no frames come", func() bool { return y.Stats().Answered > 0 })
	if err := y.Close(context.Background()); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	// A frame that has expired is answered, and given back only when the engine is done with it.
	await(t, "not all buffers come back", func() bool { return memory.lent.Load() == 0 })
}
