package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"hailoclip/api/client"
	"hailoclip/bench/report"
)

// streamFake is a service of streams without a model: every fourth frame of a stream is superseded, every third of the others reused.
// A frame that is no image is bad.
type streamFake struct {
	fake
	cutAfter int // frames, after which a stream is closed; 0: never

	mu      sync.Mutex
	defined map[string]client.StreamDefinition
	answers map[string]chan string // to listeners
	seen    []client.StreamDefinition
	bad     int // frames that were no image
	halves  int // streams that ended inside a frame
}

func newStreamFake(t testing.TB, f *streamFake) *streamFake {
	t.Helper()
	f.defined, f.answers = map[string]client.StreamDefinition{}, map[string]chan string{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/classify", f.classify)
	mux.HandleFunc("GET /v1/stats", f.serveStats)
	mux.HandleFunc("GET /v1/stream", f.stream)
	mux.HandleFunc("PUT /v1/streams/{id}", f.define)
	mux.HandleFunc("DELETE /v1/streams/{id}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.defined, r.PathValue("id"))
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /v1/streams/{id}/events", f.listen)
	mux.HandleFunc("POST /v1/streams/{id}/frames", f.frames)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func (f *streamFake) add(d client.StreamDefinition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, d)
}

// answer is what becomes of the n-th frame of a stream.
func (f *streamFake) answerTo(n uint64, frame []byte) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked.Add(1)
	switch {
	case !bytes.Contains(frame, []byte("image")):
		f.bad++
		return fmt.Sprintf(`{"seq":%d,"dropped":"bad","error":"No image","code":"invalid_image"}`, n)
	case n%4 == 3:
		return fmt.Sprintf(`{"seq":%d,"dropped":"superseded"}`, n)
	}
	return fmt.Sprintf(`{"seq":%d,"lag_ms":5,"classifications":[],"reused":%v}`, n, n%4 == 2)
}

func (f *streamFake) stream(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	_, first, err := c.Read(r.Context())
	var d client.StreamDefinition
	if err != nil || json.Unmarshal(first, &d) != nil {
		return
	}
	f.add(d)
	for n := 0; ; n++ {
		kind, frame, err := c.Read(r.Context())
		switch {
		case kind == websocket.MessageText && err == nil:
			c.Close(websocket.StatusNormalClosure, "")
			return
		case err != nil:
			if strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "reset") {
				f.mu.Lock()
				f.halves++
				f.mu.Unlock()
			}
			return
		case f.cutAfter > 0 && n == f.cutAfter:
			return
		}
		seq := uint64(n)
		if d.FrameHeader {
			seq, frame = binary.LittleEndian.Uint64(frame), frame[16:]
		}
		_ = c.Write(r.Context(), websocket.MessageText, []byte(f.answerTo(seq, frame)))
	}
}

func (f *streamFake) define(w http.ResponseWriter, r *http.Request) {
	var d client.StreamDefinition
	if json.NewDecoder(r.Body).Decode(&d) != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	f.add(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.defined[r.PathValue("id")], f.answers[r.PathValue("id")] = d, make(chan string, 1<<16)
	io.WriteString(w, `{}`)
}

func (f *streamFake) listen(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, ": hello\n\n")
	f.mu.Lock()
	answers := f.answers[r.PathValue("id")]
	f.mu.Unlock()
	for {
		_ = http.NewResponseController(w).Flush()
		select {
		case a := <-answers:
			fmt.Fprintf(w, "event: frame\ndata: {\"event\":\"frame\",\"answer\":%s}\n\n", a)
		case <-r.Context().Done():
			return
		}
	}
}

func (f *streamFake) frames(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	answers := f.answers[r.PathValue("id")]
	f.mu.Unlock()
	_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if params["boundary"] == "" { // of one that misbehaves
		first := make([]byte, 8)
		n, _ := io.ReadFull(r.Body, first)
		f.answerTo(0, first[:n])
		_, _ = io.Copy(io.Discard, r.Body)
		return
	}
	parts := multipart.NewReader(r.Body, params["boundary"])
	for n := uint64(0); ; n++ {
		p, err := parts.NextPart()
		if err != nil {
			break
		}
		frame, _ := io.ReadAll(p)
		answers <- f.answerTo(n, frame)
	}
	io.WriteString(w, `{}`)
}

func streamLoad(kind string, fps int) Load {
	return Load{Clients: 3, Streams: Streams{Kind: kind, FPS: fps, Policy: "latest", Gate: true}}
}

// TestStreams: every frame that was due is counted, with what became of it, and the streams have equal shares.
func TestStreams(t *testing.T) {
	for _, kind := range []string{StreamWS, StreamPush} {
		for _, fps := range []int{0, 100} {
			t.Run(fmt.Sprint(kind, fps), func(t *testing.T) {
				f := newStreamFake(t, &streamFake{})
				r := runUntilAnswered(t, f.URL, testOptions(streamLoad(kind, fps)), 30)
				s := r.Steps[0]
				if u := s.Streams; u == nil || u.Kind != kind || u.FPS != fps || u.Policy != "latest" || u.Lag.P50 < 4.9 || u.Lag.Max > 5.1 || len(u.Memory) == 0 ||
					u.ShareMin <= 0 || u.ShareMin > 1 || u.ShareMax < 1 || u.Reused <= 0 || u.Reused >= 1 {
					t.Errorf("%+v", u)
				}
				late := s.Errors[codeTimeout] + s.Errors[codeClosed] + s.Errors[codeMissed]
				if want := int64(3 * float64(fps) * s.Seconds); late != 0 || s.Errors["superseded"] == 0 || s.Failed() != s.Errors["superseded"] ||
					fps > 0 && (s.Requests < want-3 || s.Requests > want+3) {
					t.Errorf("%d frames, of which %v failed, want %d", s.Requests, s.Errors, want)
				}
				if s.Clients != 3 || s.Latency.P50 <= 0 || !strings.HasPrefix(s.Load, "3 "+kind+" streams") {
					t.Errorf("%+v", s)
				}
				var table bytes.Buffer
				r.WriteTable(&table)
				for _, want := range []string{s.Load, "lag as the service says p50 5 ms", "x superseded", "answers of the stream with the fewest", "that needed no encoder"} {
					if !strings.Contains(table.String(), want) {
						t.Errorf("the table does not have %q:\n%s", want, table.String())
					}
				}
				var d client.StreamDefinition
				if d = f.seen[0]; d.Policy != "latest" || d.Gate == nil || len(d.Prompts) != 3 || (d.Events != nil) != (kind == StreamPush) || len(f.defined) != 0 {
					t.Errorf("the streams are %+v, and %d are left", d, len(f.defined))
				}
			})
		}
	}
}

// TestStreamsEnd has a service that ends streams within the window: what was due then counts as lost.
func TestStreamsEnd(t *testing.T) {
	f := newStreamFake(t, &streamFake{cutAfter: 8})
	s := run(t, testOptions(streamLoad(StreamWS, 100)), f.URL).Steps[0]
	if s.Errors[codeClosed] == 0 || s.Requests < s.Errors[codeClosed] || s.Requests > 3*45 {
		t.Errorf("%d frames, %v", s.Requests, s.Errors)
	}
	gone := newStreamFake(t, &streamFake{})
	target := newTestTarget(t, gone.URL)
	ctx, cancel := context.WithCancel(t.Context())
	o := testOptions(streamLoad(StreamWS, 100))
	o.Window.Duration = time.Hour
	o.Progress = func(_ string, done, _ time.Duration) {
		if done > 100*time.Millisecond {
			cancel()
		}
	}
	if _, err := Run(ctx, o, target); err == nil {
		t.Error("it goes on without its context")
	}
}

// TestStreamTrouble: streams that misbehave do so beside those that are measured, of which none fails.
func TestStreamTrouble(t *testing.T) {
	for _, kind := range []string{StreamWS, StreamPush} {
		f := newStreamFake(t, &streamFake{})
		l := streamLoad(kind, 50)
		l.Trouble = Troubles
		s := run(t, testOptions(l), f.URL).Steps[0]
		if s.Failed() != s.Errors["superseded"] || s.Streams.ShareMin == 0 {
			t.Errorf("%s: %v", kind, s.Errors)
		}
		target := newTestTarget(t, f.URL)
		for _, trouble := range Troubles {
			// As often as it takes: how far a stream gets before it is ended depends on the machine.
			for before := f.sums(); !misbehaved(kind, trouble, before, f.sums()); {
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { target.trouble(ctx, trouble, l.Streams) })
				for was := f.sums(); f.sums().asked == was.asked && t.Context().Err() == nil; {
					runtime.Gosched()
				}
				cancel()
				running.Wait()
			}
		}
		f.mu.Lock()
		if len(f.defined) > 0 {
			t.Errorf("%s: %d streams are left", kind, len(f.defined))
		}
		f.mu.Unlock()
	}
}

// sums are what a fake has seen so far.
type sums struct{ asked, bad, halves int }

func (f *streamFake) sums() sums {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sums{int(f.asked.Load()), f.bad, f.halves}
}

// misbehaved says that a stream has done what its kind of trouble is.
func misbehaved(kind, trouble string, before, now sums) bool {
	switch {
	case trouble == Garbage:
		return now.bad > before.bad
	case trouble == Partial && kind == StreamWS:
		return now.halves > before.halves
	}
	return now.asked > before.asked
}

func TestStreamBounds(t *testing.T) {
	for says, change := range map[string]func(*Load){
		"neither ws nor push":  func(l *Load) { l.Kind = "rtsp" },
		"1001 frames a second": func(l *Load) { l.FPS = 1001 },
		"no rate of requests":  func(l *Load) { l.Rate = 5 },
		`"noisy" is none of`:   func(l *Load) { l.Trouble = []string{"noisy"} },
		"load of 0 clients":    func(l *Load) { l.Clients = 0 },
	} {
		l := streamLoad(StreamWS, 30)
		change(&l)
		if err := testOptions(l).Validate(false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// TestMemoryGrowth compares the second quarter with the last.
func TestMemoryGrowth(t *testing.T) {
	s := &report.Step{Streams: &report.StreamUse{Memory: [][2]float64{{0, 1}, {1, 100}, {2, 500}, {3, 110}}}}
	holds := func(text string) bool {
		g, err := report.ParseGoal(text)
		if err != nil {
			t.Fatal(err)
		}
		return g[0].Holds(s)
	}
	if !holds("memory_growth<=11%") || holds("memory_growth<=9%") {
		t.Error("from 100 to 110")
	}
	if s.Streams.Memory = s.Streams.Memory[:3]; holds("memory_growth<=11%") || holds("memory_growth>=0") {
		t.Error("it is known of three")
	}
}
