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
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hailoclip/bench/report"
)

// asService makes the test binary a service that StartChild can start; its value says which kind.
const asService = "HAILO_CLIP_BENCH_TEST_SERVICE"

func TestMain(m *testing.M) {
	if kind := os.Getenv(asService); kind != "" {
		os.Exit(serviceMain(kind))
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"), // of ServeBare, as the next
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// fake is a service without a model.
type fake struct {
	*httptest.Server
	asked  atomic.Int64                                   // requests to classify, those of Check included
	answer func(w http.ResponseWriter, n int64) (ok bool) // nil: every request is answered well; false: it has answered
	lull   int64                                          // so many are answered well first; 2 are those of Check
	stats  bool                                           // has /v1/stats
	body   atomic.Value                                   // []byte, of the last request
}

func newFake(t testing.TB, f *fake) *fake {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/classify", f.classify)
	if f.stats {
		mux.HandleFunc("GET /v1/stats", f.serveStats)
		mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"service":"fake","version":"1\u001b[2J","model":"none","backend":"sim","runtime_mode":"simulated"}`)
		})
	}
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) classify(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.body.Store(body)
	n := f.asked.Add(1)
	if n > f.lull && f.answer != nil && !f.answer(w, n) {
		return
	}
	w.Header().Set("Server-Timing", "queue;dur=0.5, decode;dur=1, encode-wait;dur=0.25, encode;dur=2")
	io.WriteString(w, `{"classifications":[],"model":"none"}`)
}

// serveStats counts as if every request had cost 2 ms of CPU and all had been encoded in pairs.
func (f *fake) serveStats(w http.ResponseWriter, _ *http.Request) {
	n := f.asked.Load()
	_ = json.NewEncoder(w).Encode(map[string]any{
		"stages":  []map[string]any{{"stage": "encode", "batches": []int64{0, 0, n / 2}}},
		"cache":   map[string]any{"list_hits": n, "encoded": 0},
		"process": map[string]any{"cpu_seconds": float64(n) * 0.002, "rss_bytes": 50e6, "heap_bytes": 10e6, "mallocs": 10 * n, "allocated_bytes": 1000 * n},
	})
}

func newTestTarget(t testing.TB, url string) *Target {
	t.Helper()
	bodies, err := NewBodies([]Image{{Name: "one", Data: []byte("an image")}, {Name: "two", Data: []byte("another")}}, Ask{Prompts: 3})
	if err != nil {
		t.Fatal(err)
	}
	target, err := NewTarget(url, "", bodies, 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	return target
}

func testOptions(loads ...Load) Options {
	return Options{Loads: loads, Turns: 2, Progress: func(string, time.Duration, time.Duration) {},
		Window: Window{Warmup: 50 * time.Millisecond, Duration: 400 * time.Millisecond, Every: 1}}
}

// run measures one service or two.
func run(t *testing.T, o Options, urls ...string) *report.Report {
	t.Helper()
	var targets []*Target
	for _, url := range urls {
		targets = append(targets, newTestTarget(t, url))
	}
	r, err := Run(t.Context(), o, targets...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// runUntilAnswered measures for longer and longer, until so many answers came in the window of every step:
// the machine may be slow.
func runUntilAnswered(t *testing.T, url string, o Options, answers float64) *report.Report {
	t.Helper()
	for ; o.Window.Duration < 2*time.Minute; o.Window.Duration *= 4 {
		r := run(t, o, url)
		if !slices.ContainsFunc(r.Steps, func(s *report.Step) bool { return s.Rate*s.Seconds < answers }) {
			return r
		}
	}
	t.Fatal("too few answers")
	return nil
}

// serviceMain is what a child does.
func serviceMain(kind string) int {
	switch kind {
	case "fails":
		fmt.Fprintln(os.Stderr, "cannot open the device")
		return 1
	case "serves":
		fmt.Fprintln(os.Stderr, `{"msg":"starting"}`)
		fmt.Fprintln(os.Stderr, `{"msg":"serving","url":"http://127.0.0.1:1"}`)
	}
	<-context.Background().Done() // SIGTERM ends it
	return 0
}
