package load

import (
	"bytes"
	"context"
	"errors"
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
	var out, page bytes.Buffer
	r.WriteTable(&out)
	if err := r.WriteHTML(&page); err != nil {
		t.Error(err)
	}
}

func TestErrorsByCode(t *testing.T) {
	f := newFake(t, &fake{answer: func(w http.ResponseWriter, n int64) bool {
		switch {
		case n <= 2: // Check
			return true
		case n%4 == 0:
			w.WriteHeader(http.StatusTooManyRequests)
			return false
		case n%4 == 1:
			panic(http.ErrAbortHandler)
		}
		return true
	}})
	o := testOptions(Load{Rate: 200})
	o.Window.Warmup = 0 // so that every request counts, in whatever order they arrive
	r, err := Run(t.Context(), o, newTestTarget(t, f.URL))
	if err != nil {
		t.Fatal(err)
	}
	s := r.Steps[0]
	if s.Requests != 80 || s.Errors["429"] != 20 || s.Errors["closed"] != 20 || len(s.Errors) != 2 {
		t.Errorf("%d requests, errors %v", s.Requests, s.Errors)
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

// TestSchedule has a client that takes a request only now and then.
func TestSchedule(t *testing.T) {
	begin := time.Now()
	r := newRecording(false)
	r.begin(begin, 500*time.Millisecond)
	due := make(chan time.Time)
	go func() {
		defer close(due)
		schedule(context.Background(), begin, 1000, r, due)
	}()
	n := 0
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

// newHungTarget is a service that answers the check and then nothing any more.
func newHungTarget(t *testing.T) *Target {
	t.Helper()
	release := make(chan struct{})
	f := newFake(t, &fake{answer: func(_ http.ResponseWriter, n int64) bool {
		if n > 2 {
			<-release
		}
		return true
	}})
	t.Cleanup(func() { close(release) })
	return newTestTarget(t, f.URL)
}

// TestNobodyAnswers is bounded in time and ends with errors, not with latencies.
func TestNobodyAnswers(t *testing.T) {
	target := newHungTarget(t)
	if err := target.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	target.timeout = 200 * time.Millisecond
	r := newRecording(false)
	if err := target.measure(t.Context(), Load{Rate: 5000}, Window{Duration: 400 * time.Millisecond, Every: 1}, r, func(time.Duration) {}); err != nil {
		t.Fatal(err)
	}
	if r.requests != 2000 || r.errors[codeLate] == 0 || r.errors[codeTimeout]+r.errors[codeLate] != 2000 || r.good != 0 {
		t.Errorf("%d requests, errors %v, %d good", r.requests, r.errors, r.good)
	}
	s := r.step("", Load{Rate: 5000}, 1, r.start)
	if c, _ := report.ParseCondition("p99<1s"); c.Holds(s) {
		t.Error("p99 of no answer holds")
	}
}

// TestHang has a service that hangs since the check, and clients that never come to ask in the window.
func TestHang(t *testing.T) {
	target := newHungTarget(t)
	target.timeout = 700 * time.Millisecond // beyond the window of the options
	r, err := Run(t.Context(), testOptions(Load{Clients: 3}), target)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Steps[0]; s.Requests > 3 || s.Errors[codeTimeout] != s.Requests { // a busy machine may have clients come too late
		t.Errorf("%d requests, errors %v", s.Requests, s.Errors)
	}
}

// TestSlowStart has the first answers come later than requests time out.
func TestSlowStart(t *testing.T) {
	f := newFake(t, &fake{answer: func(http.ResponseWriter, int64) bool {
		time.Sleep(100 * time.Millisecond)
		return true
	}})
	target := newTestTarget(t, f.URL)
	target.timeout = 10 * time.Millisecond
	if err := target.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if code := target.ask(target.newExchange()); code != codeTimeout {
		t.Errorf("code %q", code)
	}
}

// TestCancelCheck has a service that does not even answer the first request.
func TestCancelCheck(t *testing.T) {
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	f := newFake(t, &fake{answer: func(http.ResponseWriter, int64) bool {
		cancel()
		<-release
		return true
	}})
	defer close(release)
	target := newTestTarget(t, f.URL)
	target.timeout = time.Hour
	if _, err := Run(ctx, testOptions(Load{Clients: 2}), target); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestUnfinished keeps the steps that were measured before Ctrl-C.
func TestUnfinished(t *testing.T) {
	f := newFake(t, &fake{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := testOptions(Load{Clients: 2}, Load{Clients: 3})
	var err error
	if o.Goal, err = report.ParseGoal("p99<0.001ms"); err != nil {
		t.Fatal(err)
	}
	o.Progress = func(step string, _, _ time.Duration) {
		if strings.HasPrefix(step, "2:") {
			cancel()
		}
	}
	r, err := Run(ctx, o, newTestTarget(t, f.URL))
	if !errors.Is(err, context.Canceled) || r == nil || len(r.Steps) != 1 || !r.Unfinished {
		t.Fatalf("error %v, %+v", err, r)
	}
	var table, page strings.Builder
	r.WriteTable(&table)
	if strings.Contains(table.String(), "No load meets") {
		t.Errorf("a verdict without the loads that were not measured:\n%s", &table)
	}
	if err := r.WriteHTML(&page); err != nil || !strings.Contains(table.String(), "ended before its last") || !strings.Contains(page.String(), "ended before its last") {
		t.Errorf("%v\n%s", err, &table)
	}
}

// TestBadAnswers have a good status.
func TestBadAnswers(t *testing.T) {
	f := newFake(t, &fake{answer: func(w http.ResponseWriter, n int64) bool {
		switch {
		case n > 2 && n%2 == 0:
			w.WriteHeader(http.StatusAccepted)
			return false
		case n > 2:
			w.Write([]byte(`{"busy":true}`))
			return false
		}
		return true
	}})
	r, err := Run(t.Context(), testOptions(Load{Rate: 100}), newTestTarget(t, f.URL))
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Steps[0]; s.Requests != 40 || s.Errors[codeBad] != 40 || s.Rate != 0 {
		t.Errorf("%d requests, errors %v, rate %v", s.Requests, s.Errors, s.Rate)
	}
}

func TestCancel(t *testing.T) {
	f := newFake(t, &fake{})
	ctx, cancel := context.WithCancel(t.Context())
	o := testOptions(Load{Clients: 2})
	o.Window.Duration = time.Hour
	o.Progress = func(string, time.Duration, time.Duration) { cancel() }
	if _, err := Run(ctx, o, newTestTarget(t, f.URL)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestTurns(t *testing.T) {
	a, b := newFake(t, &fake{}), newFake(t, &fake{})
	r, err := Run(t.Context(), testOptions(Load{Rate: 100}), newTestTarget(t, a.URL), newTestTarget(t, b.URL))
	if err != nil {
		t.Fatal(err)
	}
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
	r, err := Run(t.Context(), o, newTestTarget(t, f.URL))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Steps {
		if met := s.Requests <= 10; s.Met == nil || *s.Met != met {
			t.Errorf("%s: met %v with %d requests", s.Load, *s.Met, s.Requests)
		}
	}
	if r.Best == "" || len(r.Steps) < 4 {
		t.Errorf("best %q of %d steps", r.Best, len(r.Steps))
	}
}
