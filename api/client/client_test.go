package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// must is for what cannot fail in a sound test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// refusal is an answer with an error.
type refusal struct {
	status     int
	code       string
	retryAfter string
}

// transport answers requests in turn, and the last answer for ever; status 200 is a good one.
type transport struct {
	answers []refusal
	asked   []time.Time // each request
	sent    []string    // their bodies
}

func (s *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	a := s.answers[min(len(s.asked), len(s.answers)-1)]
	body, err := io.ReadAll(r.Body)
	s.asked, s.sent = append(s.asked, time.Now()), append(s.sent, string(body))
	text := `{"classifications":[{"text":"a cat","score":0.9}],"model":"demo"}`
	if a.status != http.StatusOK {
		text = fmt.Sprintf(`{"error":"It says no","code":%q,"request_id":"r1"}`, a.code)
	}
	response := &http.Response{StatusCode: a.status, Header: http.Header{"X-Request-Id": {"r1"}}, Body: io.NopCloser(strings.NewReader(text))}
	if a.retryAfter != "" {
		response.Header.Set("Retry-After", a.retryAfter)
	}
	return response, err
}

func (s *transport) client(o Options) *Client {
	o.HTTP = &http.Client{Transport: s}
	return must(New("http://service", o))
}

// question is one that is asked again.
func question(ctx context.Context, c *Client) error {
	_, err := c.Classify(ctx, Question{Image: Image{Data: []byte("an image")}, Prompts: []string{"a cat"}})
	return err
}

// change is one that must not be made twice.
func change(ctx context.Context, c *Client) error {
	_, _, err := c.PutPromptSet(ctx, "door", Definition{}, Condition{IfMatch: "1"})
	return err
}

// TestAsksAgain has the answers of a service, and the pauses before each further request.
func TestAsksAgain(t *testing.T) {
	const ok = http.StatusOK
	second := time.Second
	for _, c := range []struct {
		name    string
		ask     func(context.Context, *Client) error
		options Options
		answers []refusal
		pauses  []time.Duration // at least; at most a quarter more
		code    string          // of the error in the end
	}{
		{"never refused", question, Options{}, []refusal{{ok, "", ""}}, nil, ""},
		{"full", question, Options{}, []refusal{{429, "queue_full", "2"}, {ok, "", ""}}, []time.Duration{2 * second}, ""},
		{"away, then full", question, Options{}, []refusal{{503, "unavailable", "5"}, {429, "queue_full", "1"}, {ok, "", ""}}, []time.Duration{5 * second, second}, ""},
		{"without a time", question, Options{}, []refusal{{503, "", ""}, {503, "", "soon"}, {503, "", "-1"}, {503, "", "0"}, {ok, "", ""}},
			[]time.Duration{firstPause, 2 * firstPause, 4 * firstPause, 8 * firstPause}, ""},
		{"a date", question, Options{}, []refusal{{503, "", "Sat, 01 Jan 2000 00:00:03 GMT"}, {ok, "", ""}}, []time.Duration{3 * second}, ""},
		{"a date that is over", question, Options{}, []refusal{{503, "", "Fri, 31 Dec 1999 23:59:00 GMT"}, {ok, "", ""}}, []time.Duration{firstPause}, ""},
		{"always full", question, Options{}, []refusal{{429, "queue_full", "1"}}, []time.Duration{second, second, second, second}, "queue_full"},
		{"twice at most", question, Options{Retries: 2}, []refusal{{429, "queue_full", "1"}}, []time.Duration{second, second}, "queue_full"},
		{"not at all", question, Options{Retries: -1}, []refusal{{429, "queue_full", "1"}}, nil, "queue_full"},
		{"in an hour", question, Options{}, []refusal{{503, "not_ready", "3600"}}, nil, "not_ready"},
		{"beyond all numbers", question, Options{}, []refusal{{503, "not_ready", "99999999999999999999"}, {ok, "", ""}}, []time.Duration{firstPause}, ""},
		{"failed", question, Options{}, []refusal{{500, "internal_error", "1"}}, nil, "internal_error"},
		{"too late", question, Options{}, []refusal{{504, "deadline_exceeded", ""}}, nil, "deadline_exceeded"},
		{"not ready", question, Options{}, []refusal{{409, "prompt_set_not_ready", "1"}}, nil, "prompt_set_not_ready"},
		{"a change that was refused", change, Options{}, []refusal{{429, "queue_full", "1"}, {503, "not_ready", "1"}, {503, "too_many_connections", "1"}, {ok, "", ""}},
			[]time.Duration{second, second, second}, ""},
		{"a change that may have been made", change, Options{}, []refusal{{503, "stopping", "1"}}, nil, "stopping"},
		{"a change behind a proxy", change, Options{}, []refusal{{503, "", "1"}}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &transport{answers: c.answers}
				err := c.ask(t.Context(), s.client(c.options))
				var e *Error
				if failed := c.answers[len(c.answers)-1].status != ok; errors.As(err, &e) != failed || !failed && err != nil {
					t.Fatal(err)
				}
				if e != nil && (e.Code != c.code || e.Status != c.answers[len(c.answers)-1].status || e.Message != "It says no" || e.RequestID != "r1") {
					t.Errorf("%+v", e)
				}
				if len(s.asked) != 1+len(c.pauses) {
					t.Fatalf("asked %d times, want %d", len(s.asked), 1+len(c.pauses))
				}
				for i, want := range c.pauses {
					if got := s.asked[i+1].Sub(s.asked[i]); got < want || got > want+want/4 {
						t.Errorf("pause %d: %v, want %v", i, got, want)
					}
					if s.sent[0] == "" || len(s.sent[i+1]) != len(s.sent[0]) {
						t.Errorf("sent %q, then %q", s.sent[0], s.sent[i+1])
					}
				}
			})
		})
	}
}

// TestEndsWithTheContext has contexts that end before the service may be asked again.
func TestEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &transport{answers: []refusal{{429, "queue_full", "10"}}}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		var e *Error
		if err := question(ctx, s.client(Options{})); !errors.As(err, &e) || e.RetryAfter != 10*time.Second || time.Since(start) != 0 {
			t.Errorf("after %v: %v: it waits for what it cannot have", time.Since(start), err)
		}
		canceled, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { stop(io.ErrClosedPipe) })
		if err := question(canceled, s.client(Options{})); !errors.As(err, &e) || !errors.Is(err, io.ErrClosedPipe) || time.Since(start) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if len(s.asked) != 2 {
			t.Errorf("asked %d times", len(s.asked))
		}
	})
}

// TestEndsWithinAnAnswer has contexts that end while the service thinks, and while its answer comes.
func TestEndsWithinAnAnswer(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	begun := make(chan struct{}, 1)
	for _, begin := range []string{"", `{"classifications":[`} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			io.WriteString(w, begin)
			if begin != "" {
				w.(http.Flusher).Flush()
			}
			begun <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}))
		defer s.Close()
		c := must(New(s.URL, Options{}))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		if err := question(ctx, c); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		c.Close()
	}
}

func TestURLs(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:5000", "ftp://127.0.0.1", "http://", "http://u:p@127.0.0.1", "http://127.0.0.1/?a=b", "http://[::1", "http://a/#b"} {
		if _, err := New(url, Options{}); err == nil {
			t.Errorf("%q is accepted", url)
		}
	}
	paths := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.RequestURI
		io.WriteString(w, `{}`)
	}))
	defer s.Close()
	c := must(New(s.URL+"/clip/", Options{}))
	defer c.Close()
	for name, want := range map[string]string{"door": "/clip/v1/prompt-sets/door", "a/../b?c#d e": "/clip/v1/prompt-sets/a%2F..%2Fb%3Fc%23d%20e"} {
		if _, err := c.PromptSet(t.Context(), name, false); err != nil {
			t.Error(err)
		}
		if got := <-paths; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
}

// TestHostileAnswers has services that answer with what is none, for ever, or lead elsewhere.
func TestHostileAnswers(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	write := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	endless := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			for junk := make([]byte, 1<<12); ; {
				if _, err := w.Write(junk); err != nil {
					return
				}
			}
		}
	}
	classify := question
	embed := func(ctx context.Context, c *Client) error { _, err := c.EmbedText(ctx, "a cat"); return err }
	batch := func(ctx context.Context, c *Client) error {
		_, err := c.ClassifyBatch(ctx, BatchQuestion{Images: []Image{{}, {}}, PromptSet: "door"})
		return err
	}
	compare := func(ctx context.Context, c *Client) error {
		_, err := c.Compare(ctx, []Item{{Text: "a"}}, []Item{{Text: "b"}, {Text: "c"}})
		return err
	}
	embedBatch := func(ctx context.Context, c *Client) error {
		_, _, err := c.EmbedBatch(ctx, nil, []string{"a", "b"})
		return err
	}
	for _, c := range []struct {
		name    string
		ask     func(context.Context, *Client) error
		is      error // nil: any
		says    string
		handler http.HandlerFunc
	}{
		{"redirects", classify, nil, "status 307", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}},
		{"is another program", classify, ErrAnswer, "not an answer", write("hello")},
		{"is not healthy", func(ctx context.Context, c *Client) error { _, err := c.Health(ctx); return err }, ErrAnswer, "not an answer", write("hello")},
		{"has another type", classify, ErrAnswer, "cannot unmarshal", write(`{"classifications":"none"}`)},
		{"nests without end", classify, ErrAnswer, "depth", write(strings.Repeat("[", 1<<15))},
		{"refuses with a page", classify, nil, `status 502: "<h1>\x1b[2J`, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<h1>\x1b[2J"+strings.Repeat("bad ", 1000))
		}},
		{"refuses with nothing", classify, nil, "status 403: Forbidden", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }},
		{"promises too much", classify, nil, "EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000")
			io.WriteString(w, "{}")
		}},
		{"is larger than allowed", classify, ErrAnswerTooLarge, "65536", write(strings.Repeat(" ", 65537))},
		{"never ends", classify, ErrAnswerTooLarge, "65536", endless(http.StatusOK)},
		{"a refusal never ends", classify, ErrAnswerTooLarge, "65536", endless(http.StatusTooManyRequests)},
		{"an embedding in JSON", embed, ErrAnswer, "text/plain", write(`{"embedding":[1]}`)},
		{"half a number", embed, ErrAnswer, "7 bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaBytes)
			io.WriteString(w, "1234567")
		}},
		{"an empty embedding", embed, ErrAnswer, "0 bytes", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", mediaBytes) }},
		{"too few results", batch, ErrAnswer, "1 results for 2 images", write(`{"results":[{}]}`)},
		{"too many results", batch, ErrAnswer, "3 results for 2 images", write(`{"results":[{},{},{}]}`)},
		{"results of another kind", batch, ErrAnswer, "cannot unmarshal", write(`{"results":[1,2]}`)},
		{"half a vector", embedBatch, ErrAnswer, "3 bytes", write(`{"texts":[{"embedding":"AAAA"},{"embedding":[1]}]}`)},
		{"too few rows", compare, ErrAnswer, "0 results for 1 items", write(`{"cosine":[]}`)},
		{"too few columns", compare, ErrAnswer, "1 results for 2 items", write(`{"cosine":[[1]]}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			client := must(New(s.URL, Options{MaxAnswer: 1 << 16}))
			defer client.Close()
			err := c.ask(t.Context(), client)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1000 {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
		})
	}
	c := must(New(elsewhere.URL, Options{}))
	elsewhere.Close()
	if err := question(t.Context(), c); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}

// TestOneConnection: what is asked one after the other goes over one connection, whatever the answers are.
func TestOneConnection(t *testing.T) {
	var n, opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusBadRequest)
		}
		io.WriteString(w, "{}"+strings.Repeat(" ", 100_000))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := must(New(s.URL, Options{}))
	defer c.Close()
	for range 10 {
		_ = question(t.Context(), c)
		_ = change(t.Context(), c)
	}
	if n.Load() != 20 || opened.Load() != 1 {
		t.Errorf("%d requests over %d connections", n.Load(), opened.Load())
	}
}

// TestClosedConnection has a service that closes connections which a client takes for open ones, at the moment of its
// request. What may be done twice is sent again; a change fails.
func TestClosedConnection(t *testing.T) {
	var n, served atomic.Int64
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { // it answers the first request, and closes when the second begins
				defer conn.Close()
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				served.Add(1)
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
				_, _ = conn.Read(make([]byte, 1))
				n.Add(1)
			})
		}
	})
	c := must(New("http://"+ln.Addr().String(), Options{}))
	for range 2 {
		if err := question(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if n.Load() != 1 || served.Load() != 2 {
		t.Errorf("closed %d times, served %d", n.Load(), served.Load())
	}
	if err := change(t.Context(), c); err == nil || served.Load() != 2 {
		t.Errorf("%v: a change was sent %d times", err, served.Load()-1)
	}
	c.Close()
	ln.Close()
}

// TestBodies looks at what is sent.
func TestBodies(t *testing.T) {
	jpeg, frame := Image{Data: []byte("\xff\xd8\xff an image")}, Image{Data: make([]byte, 12), Frame: &Frame{Format: "rgb24", Width: 2, Height: 2}}
	half := 0.5
	type sent struct {
		uri, media, frame, accept, timeout string
		body                               string
	}
	got := make(chan sent, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		one := sent{r.Method + " " + r.RequestURI, h.Get("Content-Type"), h.Get("X-Frame-Format"), h.Get("Accept"), h.Get("X-Request-Timeout-Ms"), ""}
		if media, params, _ := mime.ParseMediaType(one.media); media == "multipart/form-data" {
			one.media = media
			for parts := multipart.NewReader(r.Body, params["boundary"]); ; {
				p, err := parts.NextRawPart()
				if err != nil {
					break
				}
				data, _ := io.ReadAll(p)
				one.body += fmt.Sprintf("%s %q %s %q\n", p.Header.Get("Content-Type"), p.FormName(), p.Header.Get("X-Frame-Format"), data)
			}
		} else {
			b, _ := io.ReadAll(r.Body)
			one.body = string(b)
		}
		for _, name := range []string{"If-Match", "If-None-Match", "Idempotency-Key"} {
			if v, ok := h[name]; ok {
				one.body += fmt.Sprint(name, v)
			}
		}
		got <- one
		io.WriteString(w, "{}")
	}))
	defer s.Close()
	c := must(New(s.URL, Options{}))
	defer c.Close()
	ctx := t.Context()
	for i, c := range []struct {
		ask  func()
		want sent
	}{
		{func() { c.Classify(ctx, Question{Image: jpeg, PromptSet: "door", TopK: 1, Threshold: &half}) },
			sent{"POST /v1/classify?prompt_set=door&threshold=0.5&top_k=1", "image/jpeg", "", mediaJSON, "", "\xff\xd8\xff an image"}},
		{func() { c.Classify(ctx, Question{Image: jpeg, Prompts: []string{"a cat", "a\r\ndog"}, TopK: 2}) },
			sent{"POST /v1/classify", "multipart/form-data", "", mediaJSON, "",
				` "prompts"  "a cat"` + "\n" + ` "prompts"  "a\r\ndog"` + "\n" + ` "top_k"  "2"` + "\n" + `image/jpeg "image"  "\xff\xd8\xff an image"` + "\n"}},
		{func() { c.EmbedImage(ctx, frame) },
			sent{"POST /v1/embed/image", mediaBytes, "rgb24; 2x2", mediaBytes, "", strings.Repeat("\x00", 12)}},
		{func() { c.EmbedText(ctx, "a cat") }, sent{"POST /v1/embed/text", mediaJSON, "", mediaBytes, "", `{"text":"a cat"}`}},
		{func() { c.ClassifyBatch(ctx, BatchQuestion{Images: []Image{jpeg, frame}, PromptSet: "door"}) },
			sent{"POST /v1/classify/batch", "multipart/form-data", "", mediaJSON, "",
				` "prompt_set"  "door"` + "\n" + `image/jpeg "image"  "\xff\xd8\xff an image"` + "\n" +
					`application/octet-stream "image" rgb24; 2x2 "` + strings.Repeat(`\x00`, 12) + `"` + "\n"}},
		{func() {
			c.Evaluate(ctx, "door", []LabeledImage{{`a "cat", %22ä`, jpeg.Data}}, EvaluateOptions{Precision: 0.9, Apply: true})
		},
			sent{"POST /v1/prompt-sets/door/evaluate?apply=true&precision=0.9", "multipart/form-data", "", mediaJSON, "",
				`image/jpeg "a \"cat\", %22ä"  "\xff\xd8\xff an image"` + "\n"}},
		{func() { c.AddExample(ctx, "door", "wide open", jpeg.Data, nil, Condition{IfMatch: "abc"}) },
			sent{"POST /v1/prompt-sets/door/examples?label=wide+open", "image/jpeg", "", mediaJSON, "", "\xff\xd8\xff an image" + `If-Match["abc"]`}},
		{func() { c.AddExample(ctx, "door", BackgroundLabel, nil, []float32{0.5, 1}, Condition{}) },
			sent{"POST /v1/prompt-sets/door/examples", mediaJSON, "", mediaJSON, "", `{"label":"background","vector":[0.5,1]}`}},
		{func() { c.DeletePromptSet(ctx, "door", Condition{IfMatch: "*"}) },
			sent{"DELETE /v1/prompt-sets/door", "", "", mediaJSON, "", "If-Match[*]"}},
		{func() { c.PromptSet(ctx, "door", true) }, sent{"GET /v1/prompt-sets/door?examples=full", "", "", mediaJSON, "", ""}},
		{func() {
			c.PutPromptSet(ctx, "door", Definition{Labels: []Label{{Name: "open"}}, Templates: &Templates{Name: "clip7"}}, Condition{IfNoneMatch: true})
		},
			sent{"PUT /v1/prompt-sets/door", mediaJSON, "", mediaJSON, "", `{"labels":[{"name":"open"}],"templates":"clip7","background":{"auto":false,"prompts":null},` +
				`"fewshot":{"mode":"","alpha":"auto"},"activation":"","temperature":0,"min_cosine":null,"min_margin":null}If-None-Match[*]`}},
	} {
		c.ask()
		if one := <-got; one != c.want {
			t.Errorf("%d: sent\n%q\nwant\n%q", i, one, c.want)
		}
	}
	late, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	c.Health(late)
	var ms int
	if _, err := fmt.Sscan((<-got).timeout, &ms); err != nil || ms <= 0 || ms > 3600_000 {
		t.Errorf("a deadline of %d ms, %v", ms, err)
	}
}

// TestNumbersThatAreNone are refused here, because JSON has no such numbers.
func TestNumbersThatAreNone(t *testing.T) {
	c, none := must(New("http://127.0.0.1:1", Options{})), float32(math.NaN())
	_, compare := c.Compare(t.Context(), []Item{{Vector: []float32{none}}}, nil)
	_, example := c.AddExample(t.Context(), "door", "open", nil, []float32{none}, Condition{})
	_, _, put := c.PutPromptSet(t.Context(), "door", Definition{Temperature: math.Inf(1)}, Condition{})
	for i, err := range []error{compare, example, put} {
		if err == nil || !strings.Contains(err.Error(), "unsupported value") {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, vector := range [][]float32{nil, {1}} {
		var image []byte
		if vector != nil {
			image = []byte{1}
		}
		if _, err := c.AddExample(t.Context(), "door", "open", image, vector, Condition{}); err == nil || !strings.Contains(err.Error(), "an image or a vector") {
			t.Error(err)
		}
	}
}

// TestManyPrompts: more of them than a form has parts are sent as JSON.
func TestManyPrompts(t *testing.T) {
	half := 0.5
	q := Question{Prompts: make([]string, 1000), TopK: 2, Threshold: &half}
	for name, want := range map[string]string{"image": `"AQ=="`, "images": `["AQ=="]`} {
		r := q.post("/v1/classify", name, Image{Data: []byte{1}})
		var body map[string]json.RawMessage
		if err := json.Unmarshal(r.body, &body); err != nil || r.header["Content-Type"] != mediaJSON || string(body[name]) != want || len(body) != 4 ||
			string(body["top_k"]) != "2" || string(body["threshold"]) != "0.5" {
			t.Errorf("%s: %v, %.100s", name, err, r.body)
		}
	}
	if r := q.post("/v1/classify", "image", Image{Frame: &Frame{}}); !strings.HasPrefix(r.header["Content-Type"], "multipart/form-data") {
		t.Errorf("pixels are sent as %s", r.header["Content-Type"])
	}
}

func TestMediaTypes(t *testing.T) {
	for start, want := range map[string]string{
		"\xff\xd8\xff\xe0": "image/jpeg", "\x89PNG\r\n\x1a\n": "image/png", "GIF89a": "image/gif", "RIFF1234WEBPVP8 ": "image/webp",
		"BM": "image/bmp", "II*\x00": "image/tiff", "MM\x00*": "image/tiff", "<svg>": "image/jpeg", "": "image/jpeg",
	} {
		if got := (Image{Data: []byte(start)}).media(); got != want {
			t.Errorf("%q: %s, want %s", start, got, want)
		}
	}
	f := Frame{"nv12", 640, 480, 704, "bt709", "full"}
	if f.String() != "nv12; 640x480; stride=704; matrix=bt709; range=full" {
		t.Error(f.String())
	}
}

func TestDefinitionInJSON(t *testing.T) {
	const text = `{"labels":[{"name":"a"}],"templates":["{}"],"background":{"auto":true,"prompts":["b"]},"fewshot":{"mode":"gda","alpha":0.1},"activation":"pair","temperature":2,"min_cosine":0.1,"min_margin":null}`
	var d Definition
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if got := must(json.Marshal(d)); string(got) != text {
		t.Errorf("%s, want %s", got, text)
	}
	var r ClassificationResult
	if err := json.Unmarshal([]byte(`{"error":"Not an image","code":"invalid_image"}`), &r); err != nil || r.Err == nil || !strings.Contains(r.Err.Error(), "Not an image (invalid_image)") {
		t.Errorf("%v, %+v", err, r)
	}
	for text, want := range map[string]bool{`{}`: true, `{"matched":false,"reason":"negative"}`: false, `{"matched":true}`: true} {
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.Err != nil || r.Matched != want {
			t.Errorf("%s: %v, %+v", text, err, r)
		}
	}
}

// TestUnhealthy: a service that says how ill it is has answered.
func TestUnhealthy(t *testing.T) {
	body := `{"service":"hailo-clip","status":"unhealthy","reason":"no device"}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, body)
	}))
	defer s.Close()
	c := must(New(s.URL, Options{}))
	defer c.Close()
	if h, err := c.Health(t.Context()); err != nil || h.Status != "unhealthy" || h.Reason != "no device" {
		t.Errorf("%+v, %v", h, err)
	}
	body = `{"error":"Too many connections","code":"too_many_connections"}`
	var e *Error
	if h, err := c.Health(t.Context()); !errors.As(err, &e) || e.Code != "too_many_connections" {
		t.Errorf("%+v, %v", h, err)
	}
}
