package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// upstream is another server, and what it was sent.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	sent []sentThere
}

type sentThere struct {
	header http.Header
	body   string
	length int64
}

// newUpstream answers with what answer says, or with 200 and "upstream" where that is nil.
func newUpstream(t testing.TB, answer func(w http.ResponseWriter, r *http.Request)) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		u.mu.Lock()
		u.sent = append(u.sent, sentThere{r.Header, string(body), r.ContentLength})
		u.mu.Unlock()
		if r.Method != http.MethodPost || r.URL.String() != "/predict" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if answer != nil {
			answer(w, r)
			return
		}
		fmt.Fprint(w, "upstream")
	}))
	t.Cleanup(u.Close)
	return u
}

// taken returns what was sent since the last call.
func (u *upstream) taken() (sent []sentThere) {
	u.mu.Lock()
	defer u.mu.Unlock()
	sent, u.sent = u.sent, nil
	return sent
}

// TestUpstream: what is not for the model here gets there byte by byte, and its answer back; what is for it stays here.
func TestUpstream(t *testing.T) {
	status := 200
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("X-Secret", "x")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d}`, status)
	})
	s := serve(t, speaksAll)
	s.withUpstream(u.URL + "/")
	image := string(imageFile("a dog")) + "\r\n--\x00\xff"
	for name, entries := range map[string]string{
		"faces":              faceEntries,
		"OCR":                `{"ocr":{"detection":{"modelName":"PP-OCRv5_mobile","options":{"minScore":0.5,"maxResolution":736}},"recognition":{"modelName":"PP-OCRv5_mobile"}}}`,
		"another model":      `{"clip":{"visual":{"modelName":"ViT-L-14__openai"}}}`,
		"and faces":          visualEntries[:len(visualEntries)-1] + "," + faceEntries[1:],
		"a task of tomorrow": `{"smell":{"visual":{"modelName":"ViT-B-32__openai"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, status = range []int{200, 201, 400, 404, 422, 500, 503} {
				contentType, body := asNode("assetId", "ü", "image", image, "entries", entries)
				r := s.do(t, "POST", "/predict", body, "Content-Type", contentType, "Authorization", "Bearer secret", "Cookie", "a=b", "User-Agent", "node",
					headerRequestID, "mine", "Via", "1.0 fred")
				if r.status != status || string(r.body) != fmt.Sprintf(`{"status":%d}`, status) || r.header.Get("Content-Type") != "application/json; charset=utf-8" ||
					r.header.Get("X-Secret") != "" {
					t.Errorf("%d %s %v", r.status, r.body, r.header)
				}
				sent := u.taken()
				if len(sent) != 1 || sent[0].body != body || sent[0].length != int64(len(body)) || sent[0].header.Get("Content-Type") != contentType {
					t.Fatalf("sent: %.500s", fmt.Sprint(sent))
				}
				h := sent[0].header
				if h.Get("Authorization")+h.Get("Cookie")+h.Get("Accept-Encoding") != "" || h.Get("User-Agent") != "node" || h.Get(headerRequestID) != "mine" ||
					h.Get("Via") != "1.0 fred, 1.1 "+s.pseudonym {
					t.Errorf("headers %v", h)
				}
			}
		})
	}
	v, _, _ := clipOf(t, s.predict(t, "entries", visualEntries, "image", image))
	isVectorOf(t, v, "a dog")
	s.predict(t, "entries", "{}", "image", image).wantDetail(t, 422, "No model task")
	s.predict(t, "entries", visualEntries).wantDetail(t, 400, "Either")
	s.predict(t, "entries", visualEntries, "image", notAnImage).wantDetail(t, 400, "image")
	contentType, body := asNode("entries", faceEntries, "image", image, "a%22b", "x")
	s.do(t, "POST", "/predict", body, "Content-Type", contentType).wantDetail(t, 400, "escapes")
	s.do(t, "POST", "/predict", body, "Content-Type", "multipart/form-data; boundary=x").wantDetail(t, 400, "boundary")
	if sent := u.taken(); len(sent) > 0 {
		t.Errorf("sent: %.500s", fmt.Sprint(sent))
	}
	s.withUpstream("")
	s.predict(t, "entries", faceEntries, "image", image).wantDetail(t, 404, "facial-recognition")
	s.allReturned(t)
}

// TestUpstreamWhileAway: what cannot be encoded here for the moment is encoded there, also where that shows only now. A ping says
// that it is not here.
func TestUpstreamWhileAway(t *testing.T) {
	u := newUpstream(t, nil)
	s := serve(t, speaksAll)
	s.withUpstream(u.URL)
	goes := func(parts ...string) {
		t.Helper()
		_, body := asNode(parts...)
		r := s.predict(t, parts...)
		if sent := u.taken(); r.status != 200 || string(r.body) != "upstream" || len(sent) != 1 || sent[0].body != body {
			t.Errorf("%d %s, sent: %.500s", r.status, r.body, fmt.Sprint(sent))
		}
	}
	goes("entries", visualEntries, "image", string(imageFile(lostDevice)))
	goes("entries", textEntries, "text", unavailableText)
	s.predict(t, "entries", visualEntries, "image", string(imageFile(failingImage))).wantDetail(t, 500, "image")
	s.lose("no device")
	goes("entries", visualEntries, "image", string(imageFile("a dog")))
	goes("entries", textEntries, "text", "a dog")
	if r := s.do(t, "GET", "/ping", ""); r.status != 503 {
		t.Errorf("ping: %d", r.status)
	}
	if r := s.post(t, "/v1/embeddings", `{"input":"a dog"}`); r.status != 503 || len(u.taken()) > 0 {
		t.Errorf("another dialect: %d", r.status)
	}
	s.allReturned(t)

	s = serve(t, func(cfg *Config, svc *Service) {
		speaksAll(cfg, svc)
		svc.MadeUp = true
	})
	s.withUpstream(u.URL)
	goes("entries", visualEntries, "image", string(imageFile("a dog")))
}

// TestUpstreamFails: whatever the other server does, Immich gets a 503 that says so, and nothing is left behind.
func TestUpstreamFails(t *testing.T) {
	s := serve(t, func(cfg *Config, svc *Service) {
		speaksAll(cfg, svc)
		cfg.MaxBatchBodyBytes = 1 << 20
	})
	parts := []string{"entries", faceEntries, "image", string(imageFile("a dog")) + strings.Repeat("x", 300<<10)}
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	ln.Close()
	s.withUpstream("http://" + ln.Addr().String())
	s.predict(t, parts...).wantDetail(t, 503, "compat.immich.upstream")
	if !strings.Contains(s.log.String(), "connection refused") {
		t.Error("the log does not say why")
	}
	raw := func(answer string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _ := must2(w.(http.Hijacker).Hijack())
			_, _ = io.WriteString(c, answer)
			c.Close()
		}
	}
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"closes":               raw(""),
		"is no HTTP":           raw("hello\r\n\r\n"),
		"breaks off":           raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
		"breaks off chunks":    raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\"\r\n"),
		"changes the protocol": raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
		"has no status":        raw("HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\n{}"),
		"has a huge head":      raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 128<<10) + "\r\n\r\n"),
		"is too long": func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/predict", http.StatusFound)
		},
		"panics": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s.withUpstream(newUpstream(t, answer).URL)
			r := s.predict(t, parts...)
			r.wantDetail(t, 503, "compat.immich.upstream")
			if strings.Contains(string(r.body), "127.0.0.1") {
				t.Errorf("it tells the address: %s", r.body)
			}
		})
	}
	s.allReturned(t)
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// TestUpstreamHangs: its silence ends at the deadline, and when the client is gone.
func TestUpstreamHangs(t *testing.T) {
	arrived, given := make(chan struct{}, 1), make(chan struct{}, 1)
	silent := func(arrived, given chan struct{}) string {
		return newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			<-r.Context().Done()
			given <- struct{}{}
		}).URL
	}
	s := serve(t, speaksAll)
	contentType, body := asNode("entries", faceEntries, "image", strings.Repeat("x", 500<<10))
	s.withUpstream(silent(make(chan struct{}, 1), make(chan struct{}, 1)))
	s.do(t, "POST", "/predict", body, "Content-Type", contentType, headerTimeout, "50").wantDetail(t, 504, "deadline")
	s.withUpstream(silent(arrived, given))
	ctx, cancel := context.WithCancel(t.Context())
	request := must(http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/predict", strings.NewReader(body)))
	request.Header.Set("Content-Type", contentType)
	over := make(chan error, 1)
	go func() {
		resp, err := s.client.Do(request)
		if err == nil {
			resp.Body.Close()
		}
		over <- err
	}()
	<-arrived
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-given // the request there ends, too
	s.allReturned(t)
}

// TestUpstreamInTurn: where it hangs, one address has no more than its share of what is there at once, the rest waits, and others
// get through.
func TestUpstreamInTurn(t *testing.T) {
	var inside, most atomic.Int32
	held := make(chan struct{})
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "other" {
			return
		}
		n := inside.Add(1)
		defer inside.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-held
	})
	s := serve(t, func(c *Config, svc *Service) {
		speaksAll(c, svc)
		c.MaxConnections = 128
	})
	s.withUpstream(u.URL)
	contentType, body := asNode("entries", faceEntries, "image", "x")
	ask := func(ip, agent string) net.Conn {
		return s.sendFrom(t, ip, fmt.Sprintf("POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			agent, contentType, len(body), body))
	}
	var many []net.Conn
	for range forwardsOfOne + 8 {
		many = append(many, ask("127.0.0.1", "one"))
	}
	until(t, func() bool { return inside.Load() == forwardsOfOne })
	only(t, ask("127.0.0.2", "other")).wantOK(t)
	close(held)
	for _, c := range many {
		only(t, c).wantOK(t)
	}
	if most.Load() != forwardsOfOne || len(s.forwards.own) > 0 {
		t.Errorf("%d at once, %d callers are remembered", most.Load(), len(s.forwards.own))
	}
	s.allReturned(t)
}

// TestUpstreamLoops: a request that comes back is refused, and so is one that has been everywhere.
func TestUpstreamLoops(t *testing.T) {
	a, b, c := serve(t, speaksAll), serve(t, speaksAll), newUpstream(t, nil)
	parts := []string{"entries", faceEntries, "image", "x"}
	a.withUpstream(a.url)
	a.predict(t, parts...).wantLoop(t)
	a.withUpstream(b.url)
	b.withUpstream(a.url)
	a.predict(t, parts...).wantLoop(t)
	b.withUpstream(c.URL) // a chain is none
	if r := a.predict(t, parts...); r.status != 200 || string(r.body) != "upstream" {
		t.Errorf("%d %s", r.status, r.body)
	}
	contentType, body := asNode(parts...)
	b.do(t, "POST", "/predict", body, "Content-Type", contentType, "Via", strings.Repeat("1.1 x, ", 7)+"1.1 x").wantLoop(t)
}

func (r reply) wantLoop(t *testing.T) {
	t.Helper()
	if r.status != 503 || !strings.Contains(string(r.body), "leads back") {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestUpstreamAnswers is for what doctor asks.
func TestUpstreamAnswers(t *testing.T) {
	s := serve(t, speaksAll)
	noError(t, UpstreamAnswers(t.Context(), s.url+"/"))
	s.lose("no device")
	if err := UpstreamAnswers(t.Context(), s.url); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
	s.stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := UpstreamAnswers(ctx, s.url); err == nil {
		t.Error("a server that is gone answers")
	}
}

// TestSentBody: after Close nothing of the buffer is read any more.
func TestSentBody(t *testing.T) {
	b := &sentBody{rest: []byte("abcdef")}
	buffer := make([]byte, 4)
	if n, err := b.Read(buffer); n != 4 || err != nil {
		t.Error(n, err)
	}
	noError(t, b.Close())
	if n, err := b.Read(buffer); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Error(n, err)
	}
	whole := &sentBody{rest: []byte("abcdef")}
	if all, err := io.ReadAll(whole); string(all) != "abcdef" || err != nil {
		t.Error(all, err)
	}
}
