package source

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/api/outbound"
)

var local = outbound.New(outbound.Config{Allow: []string{"127.0.0.0/8"}})

func options() Options { return Options{Allowed: local, Limits: Limits{testFrame}} }

var errEnough = errors.New("enough")

// collect runs a source until it has given n images.
func collect(t *testing.T, address string, o Options, n int) (images [][]byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = Run(ctx, address, o, func(f Frame) error {
		images = append(images, bytes.Clone(f.Image))
		if len(images) == n {
			return errEnough
		}
		return nil
	})
	return images, err
}

// trouble runs a source until it says what is wrong with it.
func trouble(t *testing.T, address string, o Options) *Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var said *Error
	o.State = func(err error) {
		if e, ok := errors.AsType[*Error](err); ok && said == nil {
			said = e
			cancel()
		}
	}
	err := Run(ctx, address, o, func(Frame) error { return nil })
	if e, ok := errors.AsType[*Error](err); ok && said == nil {
		return e
	}
	if said == nil {
		t.Fatalf("%s: no trouble: %v", Mask(address), err)
	}
	return said
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func serve(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func writeStream(w http.ResponseWriter, images ...[]byte) {
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=--cam")
	for _, m := range images {
		fmt.Fprintf(w, "--cam\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", len(m))
		w.Write(m)
		io.WriteString(w, "\r\n")
		w.(http.Flusher).Flush()
	}
}

func TestStreamOverHTTP(t *testing.T) {
	a, b := jpegOf(1, 60, 40), jpegOf(2, 50, 50)
	var asked atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		writeStream(w, a, b)
	})
	o := options()
	var states []string
	o.State = func(err error) { states = append(states, fmt.Sprint(err)) }
	got, err := collect(t, url, o, 5) // over two breaks
	if !errors.Is(err, errEnough) || !slices.EqualFunc(got, [][]byte{a, b, a, b, a}, bytes.Equal) || asked.Load() != 3 {
		t.Errorf("%d frames of %d requests, %v", len(got), asked.Load(), err)
	}
	const lost = "the camera has ended the stream"
	if want := []string{"<nil>", lost, "<nil>", lost, "<nil>"}; !slices.Equal(states, want) {
		t.Errorf("%q", states)
	}
}

// With buffers lent, each frame has its own, and all of them come back.
func TestLentBuffers(t *testing.T) {
	var images [][]byte
	for i := range 20 {
		images = append(images, jpegOf(uint64(i), 60+10*i, 40))
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { writeStream(w, images...) })
	out := map[*byte]bool{}
	o := options()
	refuse, skipped := 0, 0
	o.Skipped = func(n int) { skipped += n }
	o.Buffers = &Buffers{
		Get: func(size int) ([]byte, error) {
			if refuse++; refuse%6 > 3 {
				return nil, errors.New("full")
			}
			b := make([]byte, 0, size)
			out[&b[:1][0]] = true
			return b, nil
		},
		Put: func(b []byte) {
			if !out[&b[:1][0]] {
				t.Error("a buffer comes back twice, or is another")
			}
			delete(out, &b[:1][0])
		},
	}
	var kept [][]byte
	err := Run(t.Context(), url, o, func(f Frame) error {
		kept = append(kept, f.Image)
		if len(kept) == 12 {
			return errEnough
		}
		return nil
	})
	for _, m := range kept {
		if !slices.ContainsFunc(images, func(b []byte) bool { return bytes.Equal(b, m) }) {
			t.Error("a frame was written over")
		}
		o.Buffers.Put(m)
	}
	if !errors.Is(err, errEnough) || len(out) > 0 || skipped == 0 {
		t.Errorf("%v; %d buffers are out; %d skipped", err, len(out), skipped)
	}
}

func TestSnapshots(t *testing.T) {
	a, b := jpegOf(1, 60, 40), pngOf(2, 50, 50)
	var asked, unchanged atomic.Int32
	conns := map[string]bool{}
	var mu sync.Mutex
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		mu.Unlock()
		n := asked.Add(1)
		tag := fmt.Sprintf(`"%d"`, n/3)
		if r.Header.Get("If-None-Match") == tag {
			unchanged.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", tag)
		if n/3%2 == 0 {
			w.Header().Set("Content-Type", "image/jpeg")
			w.Write(a)
		} else {
			w.Header()["Content-Type"] = nil
			w.Write(b)
		}
	})
	o := options()
	o.FPS = 100
	got, err := collect(t, url, o, 4)
	if !errors.Is(err, errEnough) || !slices.EqualFunc(got, [][]byte{a, b, a, b}, bytes.Equal) || unchanged.Load() < 5 {
		t.Errorf("%d frames, %d unchanged, %v", len(got), unchanged.Load(), err)
	}
	if len(conns) != 1 {
		t.Errorf("%d connections", len(conns))
	}
}

// A camera with users, as RFC 7616 has it: what the client sends is worked out again here.
func digestCamera(user, password string, algorithms []string, image []byte, asked *atomic.Int32) http.HandlerFunc {
	field := func(header, name string) string {
		m := regexp.MustCompile(`[ ,]` + name + `="?([^",]*)"?`).FindStringSubmatch(header)
		if m == nil {
			return ""
		}
		return m[1]
	}
	hash := func(algorithm, s string) string {
		if algorithm == "SHA-256" {
			b := sha256.Sum256([]byte(s))
			return hex.EncodeToString(b[:])
		}
		b := md5.Sum([]byte(s))
		return hex.EncodeToString(b[:])
	}
	return func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		h := r.Header.Get("Authorization")
		alg := algorithms[len(algorithms)-1]
		a1 := hash(alg, user+":cam, era:"+password)
		want := hash(alg, a1+":"+field(h, "nonce")+":"+field(h, "nc")+":"+field(h, "cnonce")+":auth:"+hash(alg, "GET:"+r.URL.RequestURI()))
		if strings.HasPrefix(h, "Digest ") && field(h, "response") == want && field(h, "uri") == r.URL.RequestURI() && n%7 != 0 {
			w.Header().Set("Content-Type", "image/jpeg")
			w.Write(image)
			return
		}
		w.Header().Add("WWW-Authenticate", `Basic realm="cam, era"`)
		for _, alg := range algorithms {
			w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Digest realm="cam, era", qop="auth-int, auth", nonce="n%d", algorithm=%s, opaque="x"`, n, alg))
		}
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "no")
	}
}

func TestAuthentication(t *testing.T) {
	a := jpegOf(1, 60, 40)
	login := func(url, userinfo string) string { return strings.Replace(url, "://", "://"+userinfo+"@", 1) }
	for _, algorithms := range [][]string{{"MD5"}, {"MD5", "SHA-256"}} {
		var asked atomic.Int32
		url := serve(t, digestCamera("ad:min", "p@ss/wörd", algorithms, a, &asked)) + "/snap.jpg?channel=1&x=%20"
		o := options()
		o.FPS = 100
		got, err := collect(t, login(url, "ad%3Amin:p%40ss%2Fw%C3%B6rd"), o, 10)
		if !errors.Is(err, errEnough) || len(got) != 10 {
			t.Errorf("%v: %d frames, %v", algorithms, len(got), err)
		}
		if n := asked.Load(); n > 14 { // one to be asked, ten, and one for each nonce that is stale
			t.Errorf("%d requests", n)
		}
		asked.Store(0)
		if e := trouble(t, login(url, "ad%3Amin:wrong"), o); e.Code != "auth" || asked.Load() != 2 {
			t.Errorf("%s after %d requests: %v", e.Code, asked.Load(), e)
		}
		if e := trouble(t, url, o); e.Code != "auth" {
			t.Error(e)
		}
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		writeStream(w, a)
	})
	if got, err := collect(t, login(url, "u:secret"), options(), 1); !errors.Is(err, errEnough) || len(got) != 1 {
		t.Error(len(got), err)
	}
	if e := trouble(t, login(url, "u:other"), options()); e.Code != "auth" {
		t.Error(e)
	}
}

// What is wrong is said by a code, and without credentials.
func TestTrouble(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/404":
			w.WriteHeader(http.StatusNotFound)
		case "/403":
			w.WriteHeader(http.StatusForbidden)
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/html":
			io.WriteString(w, "<html>secretpass</html>")
		case "/bytes":
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Write(make([]byte, 10000))
		case "/garbage":
			w.Header().Set("Content-Type", "multipart/x-mixed-replace;boundary=x")
			for range 200 {
				w.Write(bytes.Repeat([]byte("garbage "), 8192))
			}
		case "/elsewhere":
			http.Redirect(w, r, "http://elsewhere.example/?token=secretpass", http.StatusFound)
		case "/weird":
			w.Header().Set("Location", "http://x:%zz")
			w.WriteHeader(http.StatusFound)
		case "/close":
			panic(http.ErrAbortHandler)
		case "/headers":
			conn, _, _ := w.(http.Hijacker).Hijack()
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for range 10_000 {
				if _, err := io.WriteString(conn, "X-Long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"); err != nil {
					return
				}
			}
		}
	})
	for address, want := range map[string]string{
		url + "/404?pwd=secretpass":             "not_found",
		url + "/403":                            "auth",
		url + "/503?user=x&password=secretpass": "unavailable",
		url + "/html":                           "codec",
		url + "/bytes":                          "codec",
		url + "/garbage":                        "codec",
		url + "/elsewhere":                      "not_allowed",
		url + "/weird":                          "unavailable",
		url + "/close?token=secretpass":         "unavailable",
		url + "/headers":                        "unavailable",
		"http://user:secretpass@127.0.0.1:1/x?pass=secretpass": "unavailable",
		"http://user:secretpass@10.1.2.3/":                     "not_allowed",
		"http://user:secretpass@[::1]/":                        "not_allowed",
		"rtsp://user:secretpass@10.1.2.3/":                     "not_allowed",
		"file:///etc/passwd":                                   "not_allowed",
		"/etc/passwd":                                          "not_allowed",
		"/dev/video0":                                          "not_allowed",
		"-":                                                    "not_allowed",
		"":                                                     "not_allowed",
		"concat:/etc/passwd":                                   "not_allowed",
		"ftp://127.0.0.1/secretpass":                           "not_allowed",
		"http://user:secretpass@127.0.0.1:99999/":                   "not_allowed",
		"http://user:secretpass@127.0.0.1:x/":                       "not_allowed",
		"http://user:secretpass@/":                                  "not_allowed",
		"http://127.0.0.1/\r\nX: secretpass":                        "not_allowed",
		"http://127.0.0.1/" + strings.Repeat("secretpass", 500):     "not_allowed",
		"rtsp://127.0.0.1:1/?user=a&pw_token=secretpass -i /secret": "not_allowed",
	} {
		o := options()
		var log bytes.Buffer
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		e := trouble(t, address, o)
		if e.Code != want || strings.Contains(e.Error()+log.String(), "secretpass") || len(e.Error()) > 400 {
			t.Errorf("%s: %s: %v; want %s", address, e.Code, e, want)
		}
		if refused := Check(address, o); (want == "not_allowed" && !strings.HasSuffix(address, "/elsewhere")) != (refused != nil) {
			t.Errorf("%s: %v", address, refused)
		}
	}
}

func TestMask(t *testing.T) {
	for address, want := range map[string]string{
		"rtsp://user:pass@10.0.0.1:554/a?b=c":             "rtsp://user:***@10.0.0.1:554/a?b=c",
		"http://cam/snap.cgi?user=a&pwd=b&x=1":            "http://cam/snap.cgi?user=a&pwd=***&x=1",
		"http://cam/?loginuse=a&loginpas=b&Token=c;d=e#f": "http://cam/?loginuse=a&loginpas=b&Token=***;d=e#f",
		"http://u:p%zz@cam:x/ y":                          "http://u:***@cam:x/ y",
		"http://u:a:b@c@cam/":                             "http://u:***@cam/",
		"http://u@cam/":                                   "http://u@cam/",
		"/dev/video0":                                     "/dev/video0",
	} {
		if got := Mask(address); got != want {
			t.Errorf("%s: %s; want %s", address, got, want)
		}
	}
}

func TestLive(t *testing.T) {
	for address, want := range map[string]bool{
		"http://a/b": true, "HTTPS://a": true, "rtsp://a": true, "rtsps://a": true, "/dev/video2": true,
		"-": false, "a.mp4": false, "/tmp": false, "file:///x": false, "http": false,
	} {
		if Live(address) != want {
			t.Errorf("%s: %v", address, !want)
		}
	}
}

// The pauses double up to half a minute, with jitter, begin anew after a source has worked, and are long at once where a camera
// refuses.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := func(open func(n int, d *delivery) error, n int) (all []time.Duration) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := newDelivery(ctx, options(), true, func(Frame) error { return nil })
			var left time.Time
			err := d.retry(ctx, "x", func(ctx context.Context, d *delivery) error {
				if !left.IsZero() {
					all = append(all, time.Since(left))
				}
				if len(all) == n {
					cancel()
					return ctx.Err()
				}
				err := open(len(all), d)
				left = time.Now()
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return all
		}
		within := func(p, most time.Duration) bool { return p >= most/2 && p <= most }
		down := func(int, *delivery) error { return io.EOF }
		most := firstPause
		for i, p := range pauses(down, 12) {
			if !within(p, most) {
				t.Errorf("pause %d is %v, of %v", i, p, most)
			}
			most = min(2*most, longPause)
		}
		for i, p := range pauses(func(int, *delivery) error { return fail(codeAuth, "no") }, 5) {
			if !within(p, longPause) {
				t.Errorf("pause %d is %v", i, p)
			}
		}
		got := pauses(func(n int, d *delivery) error {
			if n == 6 {
				d.deliver(Frame{})
				time.Sleep(worked)
			}
			return io.EOF
		}, 8)
		if !within(got[5], 16*time.Second) || !within(got[6], firstPause) || !within(got[7], 2*firstPause) {
			t.Errorf("%v", got)
		}
		one := pauses(down, 3)
		if slices.Equal(one, pauses(down, 3)) {
			t.Error("no jitter")
		}
	})
}

// transport answers without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A camera that trickles, or is silent, is given up after a while without a frame; however long the frames are looked at.
func TestSilence(t *testing.T) {
	for name, trickle := range map[string]bool{"silent": false, "trickling": true} {
		synctest.Test(t, func(t *testing.T) {
			frame := append([]byte("--b\r\n\r\n"), jpegOf(1, 60, 40)...)
			client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
				in, out := io.Pipe()
				context.AfterFunc(r.Context(), func() { out.CloseWithError(r.Context().Err()) })
				go func() {
					out.Write(frame)
					for i := 0; trickle; i = (i + 1) % 500 {
						if _, err := out.Write(frame[i : i+1]); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				}()
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"multipart/x-mixed-replace; boundary=b"}}, Body: in}, nil
			})}
			a, err := parse("http://127.0.0.1/", options())
			if err != nil {
				t.Fatal(err)
			}
			frames := 0
			d := newDelivery(t.Context(), options(), true, func(Frame) error {
				frames++
				time.Sleep(time.Hour)
				return nil
			})
			start := time.Now()
			_, err = newHTTP(a, options()).readOnce(t.Context(), client, d)
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != "timeout" || frames != 1 || time.Since(start) != time.Hour+silence {
				t.Errorf("%s: %v after %v, %d frames", name, err, time.Since(start), frames)
			}
			time.Sleep(2 * time.Second) // the camera notices
		})
	}
}

// A thousand cameras that come and go leave nothing behind.
func TestRestartsLeaveNothing(t *testing.T) {
	a := jpegOf(1, 60, 40)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { writeStream(w, a, a) })
	run := func(n int) {
		for range n {
			if _, err := collect(t, url, options(), 1); !errors.Is(err, errEnough) {
				t.Fatal(err)
			}
		}
	}
	run(10)
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	run(1000)
	if n := openFiles(t); n > files+4 {
		t.Errorf("%d descriptors, and then %d", files, n)
	}
	if n := runtime.NumGoroutine(); n > goroutines+20 { // the server's
		t.Errorf("%d goroutines, and then %d", goroutines, n)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b := jpegOf(1, 60, 40), pngOf(2, 50, 50)
	put("img10.jpg", a)
	put("img9.PNG", b)
	put("img009a.webp", webpOf(3))
	put("a.txt", []byte("no"))
	put(".hidden.jpg", a)
	put("large.jpg", make([]byte, testFrame+1))
	if err := os.Mkdir(filepath.Join(dir, "sub.jpg"), 0o700); err != nil {
		t.Fatal(err)
	}
	put("clip.mjpeg", slices.Concat(a, a, b))

	o := options()
	o.Local = true
	skipped := 0
	o.Skipped = func(n int) { skipped += n }
	read := func(address string) (got []string, err error) {
		err = Run(t.Context(), address, o, func(f Frame) error {
			got = append(got, fmt.Sprintf("%s %v %d", f.Name, f.Time, len(f.Image)))
			return nil
		})
		return got, err
	}
	line := func(name, at string, b []byte) string { return fmt.Sprintf("%s %s %d", name, at, len(b)) }
	for address, want := range map[string][]string{
		dir:                              {line("img9.PNG", "0s", b), line("img009a.webp", "1s", webpOf(3)), line("img10.jpg", "2s", a)},
		filepath.Join(dir, "img10.jpg"):  {line("img10.jpg", "0s", a)},
		filepath.Join(dir, "clip.mjpeg"): {line("", "0s", a), line("", "40ms", a), line("", "80ms", b)},
		"-":                              {line("", "-1ns", a), line("", "-1ns", b)},
	} {
		o.Stdin = bytes.NewReader(slices.Concat([]byte("--x\r\n\r\n"), a, []byte("\r\n--x\r\n\r\n"), b))
		skipped = 0
		if got, err := read(address); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", address, got, err, want)
		}
		if address == dir && skipped != 2 {
			t.Errorf("%d skipped", skipped)
		}
	}
	for address, code := range map[string]string{
		filepath.Join(dir, "none.jpg"): "not_found", os.DevNull: "not_allowed", t.TempDir(): "not_found",
	} {
		if _, err := read(address); codeOf(err) != code {
			t.Errorf("%s: %v", address, err)
		}
	}
	o.Stdin = strings.NewReader("nothing")
	if _, err := read("-"); codeOf(err) != "codec" {
		t.Error(err)
	}
}

// A read of standard input that waits ends with ctx.
func TestStdinEnds(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	w.Write(jpegOf(1, 20, 20))
	o := options()
	o.Local, o.Stdin = true, r
	ctx, cancel := context.WithCancel(t.Context())
	if err := Run(ctx, "-", o, func(Frame) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNatural(t *testing.T) {
	names := []string{"b", "a10", "a2", "a02", "a", "a2b", "10", "9", "a2a10", "a2a9"}
	slices.SortFunc(names, Natural)
	if got := strings.Join(names, " "); got != "9 10 a a02 a2 a2a9 a2a10 a2b a10 b" {
		t.Error(got)
	}
}
