package load

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hailoclip/bench/report"
)

func TestRun(t *testing.T) {
	f := newFake(t, &fake{stats: true})
	o := testOptions(Load{Clients: 3}, Load{Rate: 100})
	o.Goal, _ = report.ParseGoal("p99=100s")
	r := runUntilAnswered(t, f.URL, o, 20) // so that one more or less under way makes little difference
	if len(r.Steps) != 2 || r.Steps[0].Load != "3 clients" || r.Steps[1].Load != "100/s" || r.Best == "" {
		t.Fatalf("steps %+v, best %q", r.Steps, r.Best)
	}
	if n, want := r.Steps[1].Requests, int64(math.Round(100*r.Steps[1].Seconds)); n != want {
		t.Errorf("%d requests were due in %v s at 100/s, want %d", n, r.Steps[1].Seconds, want)
	}
	for _, s := range r.Steps {
		if s.Failed() != 0 || s.Rate <= 0 || s.Latency.P50 <= 0 || s.Latency.Max < s.Latency.P99 || len(s.Distribution) == 0 {
			t.Errorf("%s: %+v", s.Load, s)
		}
		var names []string
		for _, stage := range s.Stages {
			names = append(names, stage.Stage)
		}
		if got := strings.Join(names, " "); got != "queue decode encode-wait encode" || s.Stages[3].Mean != 2 || s.Stages[0].Mean != 0.5 {
			t.Errorf("%s: stages %+v", s.Load, s.Stages)
		}
		// The fake counts when a request comes, we when its answer does, so this is not exact.
		u := s.Service
		if u == nil || u.CPU < 1 || u.CPU > 4 || u.RSS != 50e6 || u.Batch != 2 || u.CacheHits == nil || *u.CacheHits != 1 {
			t.Errorf("%s: service %+v", s.Load, u)
		}
	}
	if want := "fake 1?[2J, model none, backend sim (simulated)"; !strings.Contains(r.Services[0], want) {
		t.Errorf("service %q lacks %q", r.Services[0], want)
	}
}

// TestOtherPrograms have no /v1/stats, no /health and no Server-Timing.
func TestOtherPrograms(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/base/v1/classify" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(`{"classifications":[]}`))
	}))
	defer s.Close()
	r := runUntilAnswered(t, s.URL+"/base/", testOptions(Load{Clients: 1}), 1)
	if step := r.Steps[0]; step.Service != nil || step.Stages != nil || step.Rate <= 0 || step.Failed() != 0 {
		t.Errorf("%+v", step)
	}
	r.WriteTable(io.Discard)
	if err := r.WriteHTML(io.Discard); err != nil {
		t.Error(err)
	}
}

// TestStall has a service that stops for 400 ms. A closed loop of one client has one slow
// answer; an open loop must show the stall in all requests that were due meanwhile.
func TestStall(t *testing.T) {
	const stall, slow = 400 * time.Millisecond, 100 * time.Millisecond
	gate := make(chan struct{}, 1)
	f := newFake(t, &fake{answer: func(w http.ResponseWriter, n int64) bool {
		gate <- struct{}{}
		defer func() { <-gate }()
		if n == 40 {
			time.Sleep(stall)
		}
		return true
	}})
	target := newTestTarget(t, f.URL)
	w := Window{Duration: time.Second, Every: 1}
	r := newRecording(false)
	if err := target.measure(t.Context(), Load{Rate: 100}, w, r, func(time.Duration) {}); err != nil {
		t.Fatal(err)
	}
	late := int64(0)
	for _, bar := range r.latency.Distribution() {
		if bar.From >= slow.Microseconds() {
			late += bar.Count
		}
	}
	// 30 requests are due in the first 300 ms of the stall. A busy machine makes it more.
	if r.requests != 100 || late < 25 {
		t.Errorf("%d of %d answers took %v or more", late, r.requests, slow)
	}
}

// TestSchedule has a client that takes a request only now and then. The schedule sleeps by the kernel's clock.
func TestSchedule(t *testing.T) {
	begin, n := time.Now(), 0
	r := newRecording(false)
	r.begin(begin, 500*time.Millisecond)
	due := make(chan time.Time)
	go func() {
		defer close(due)
		schedule(context.Background(), begin, Load{Rate: 1000}.arrivals(0), r, due)
	}()
	for at := range due {
		if want := begin.Add(time.Duration(n) * time.Millisecond); !at.Equal(want) {
			t.Fatalf("request %d was due %v after the start, want %v", n, at.Sub(begin), want.Sub(begin))
		}
		if n%100 == 0 {
			time.Sleep(70 * time.Millisecond)
		}
		n++
	}
	if n != 500 {
		t.Errorf("%d requests were due in 500 ms at 1000/s", n)
	}
}

// TestArrivals looks at when requests of open loops are due: by chance with the mean asked for, of cameras each evenly spaced and
// not all at once, and the same in every turn.
func TestArrivals(t *testing.T) {
	sum := func(after func() time.Duration, n int) (last, all time.Duration) {
		for range n {
			last = after()
			all += last
		}
		return last, all
	}
	chance := Load{Rate: 100, Poisson: true}
	_, all := sum(chance.arrivals(0), 10_000)
	_, again := sum(chance.arrivals(0), 10_000)
	if all != again || all < 95*time.Second || all > 105*time.Second {
		t.Errorf("10000 requests at 100/s by chance took %v, then %v", all, again)
	}
	cameras := Load{Rate: 60, Cameras: 2}
	first, _ := sum(cameras.arrivals(0), 1)
	second, _ := sum(cameras.arrivals(1), 1)
	every, _ := sum(cameras.arrivals(1), 2)
	if first == second || first >= every || second >= every || every.Round(time.Millisecond) != 33*time.Millisecond {
		t.Errorf("cameras begin after %v and %v, then every %v", first, second, every)
	}
}

// TestSlowStart has the first answers come later than requests time out.
func TestSlowStart(t *testing.T) {
	f := newFake(t, &fake{answer: func(http.ResponseWriter, int64) bool { time.Sleep(100 * time.Millisecond); return true }})
	target := newTestTarget(t, f.URL)
	target.timeout = 10 * time.Millisecond
	if err := target.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if code := target.ask(target.newExchange()); code != codeTimeout {
		t.Errorf("code %q", code)
	}
}

func TestTurns(t *testing.T) {
	a, b := newFake(t, &fake{}), newFake(t, &fake{})
	r := run(t, testOptions(Load{Rate: 100}), a.URL, b.URL)
	if len(r.Steps) != 2 || len(r.Services) != 2 {
		t.Fatalf("%d steps, services %v", len(r.Steps), r.Services)
	}
	for i, s := range r.Steps {
		if s.Target != []string{"A", "B"}[i] || len(s.Turns) != 2 || s.Requests != 40 || s.Seconds < 0.399 || s.Seconds > 0.401 {
			t.Errorf("%+v", s)
		}
	}
	if a.asked.Load() != b.asked.Load() {
		t.Errorf("A was asked %d times and B %d times at the same rate", a.asked.Load(), b.asked.Load())
	}
	var out strings.Builder
	r.WriteTable(&out)
	if !strings.Contains(out.String(), "rate B/A in 2 pairs of turns") {
		t.Errorf("no ratios in:\n%s", out.String())
	}
}

func TestSearchForARate(t *testing.T) {
	f := newFake(t, &fake{})
	o := testOptions(Load{Rate: 64})
	o.Window = Window{Duration: 100 * time.Millisecond, Every: 1}
	o.Search = SearchRate
	o.Goal, _ = report.ParseGoal("requests<10.5,error_ratio<1") // met up to 100/s in 100 ms
	r := run(t, o, f.URL)
	for _, s := range r.Steps {
		if met := s.Requests <= 10; s.Met == nil || *s.Met != met {
			t.Errorf("%s: met %v with %d requests", s.Load, *s.Met, s.Requests)
		}
	}
	if r.Best == "" || len(r.Steps) < 4 {
		t.Errorf("best %q of %d steps", r.Best, len(r.Steps))
	}
}

// TestErrorsByCode counts what is no good answer, each for its kind.
func TestErrorsByCode(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, n int64) bool
		want   map[string]int64
	}{
		"refused and cut": {func(w http.ResponseWriter, n int64) bool {
			switch n % 4 {
			case 0:
				w.WriteHeader(http.StatusTooManyRequests)
			case 1:
				panic(http.ErrAbortHandler)
			}
			return n%4 > 1
		}, map[string]int64{"429": 20, codeClosed: 20}},
		"good statuses": {func(w http.ResponseWriter, n int64) bool {
			if n%2 == 0 {
				w.WriteHeader(http.StatusAccepted)
			} else {
				w.Write([]byte(`{"busy":true}`))
			}
			return false
		}, map[string]int64{codeBad: 80}},
	} {
		o := testOptions(Load{Rate: 200})
		o.Window.Warmup = 0 // so that every request counts, in whatever order they arrive
		s := run(t, o, newFake(t, &fake{answer: c.answer, lull: 2}).URL).Steps[0]
		if s.Requests != 80 || !maps.Equal(s.Errors, c.want) || s.Failed() == 80 && s.Rate != 0 {
			t.Errorf("%s: %d requests, errors %v, rate %v", name, s.Requests, s.Errors, s.Rate)
		}
	}
}

// TestHang has a service that answers the check and then nothing any more. That is bounded in time and
// ends with errors, not with latencies, in an open loop and where clients never come to ask in the window.
func TestHang(t *testing.T) {
	release := make(chan struct{})
	f := newFake(t, &fake{lull: 2, answer: func(http.ResponseWriter, int64) bool { <-release; return true }})
	t.Cleanup(func() { close(release) })
	target := newTestTarget(t, f.URL)
	target.timeout = 700 * time.Millisecond // beyond the window
	r, err := Run(t.Context(), testOptions(Load{Clients: 3}), target)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Steps[0]; s.Requests > 3 || s.Errors[codeTimeout] != s.Requests { // a busy machine may have clients come too late
		t.Errorf("%d requests, errors %v", s.Requests, s.Errors)
	}
	target.timeout = 200 * time.Millisecond
	rec := newRecording(false)
	if err := target.measure(t.Context(), Load{Rate: 5000}, Window{Duration: 400 * time.Millisecond, Every: 1}, rec, func(time.Duration) {}); err != nil {
		t.Fatal(err)
	}
	if rec.requests != 2000 || rec.errors[codeLate] == 0 || rec.errors[codeTimeout]+rec.errors[codeLate] != 2000 || rec.good != 0 {
		t.Errorf("%d requests, errors %v, %d good", rec.requests, rec.errors, rec.good)
	}
	if c, _ := report.ParseCondition("p99<1s"); c.Holds(rec.step("", Load{Rate: 5000}, 1, rec.start)) {
		t.Error("p99 of no answer holds")
	}
}

// TestCancel ends a run by its context: while the service does not even answer the first request, in a window
// of an hour, and in the second step, when the first is kept.
func TestCancel(t *testing.T) {
	var cancel context.CancelFunc
	release := make(chan struct{})
	defer close(release)
	silent := newFake(t, &fake{answer: func(http.ResponseWriter, int64) bool { cancel(); <-release; return true }})
	lively := newFake(t, &fake{})
	long, two := testOptions(Load{Clients: 2}), testOptions(Load{Clients: 2}, Load{Clients: 3})
	long.Window.Duration = time.Hour
	two.Goal, _ = report.ParseGoal("p99<0.001ms")
	long.Progress = func(string, time.Duration, time.Duration) { cancel() }
	two.Progress = func(step string, _, _ time.Duration) {
		if strings.HasPrefix(step, "2:") {
			cancel()
		}
	}
	var r *report.Report
	for i, c := range []struct {
		url string
		o   Options
	}{{silent.URL, testOptions(Load{Clients: 2})}, {lively.URL, long}, {lively.URL, two}} {
		var ctx context.Context
		var err error
		ctx, cancel = context.WithCancel(t.Context())
		target := newTestTarget(t, c.url)
		target.timeout = time.Hour
		if r, err = Run(ctx, c.o, target); !errors.Is(err, context.Canceled) || (r != nil) != (i == 2) {
			t.Errorf("%d: error %v, %+v", i, err, r)
		}
		cancel()
	}
	var table, page strings.Builder
	r.WriteTable(&table)
	if len(r.Steps) != 1 || !r.Unfinished || strings.Contains(table.String(), "No load meets") {
		t.Errorf("a verdict without the loads that were not measured:\n%s", &table)
	}
	if err := r.WriteHTML(&page); err != nil || !strings.Contains(table.String(), "ended before its last") || !strings.Contains(page.String(), "ended before its last") {
		t.Errorf("%v\n%s", err, &table)
	}
}
