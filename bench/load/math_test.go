package load

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"hailoclip/bench/report"
)

func TestRecording(t *testing.T) {
	start := time.Now()
	r := newRecording(false)
	r.begin(start, 10*time.Second)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for i := 1; i <= 1000; i++ { // latencies of 1 to 1000 ms, all due and answered in the window
		due := at(time.Duration(i) * 8 * time.Millisecond)
		r.add(due, due.Add(time.Duration(i)*time.Millisecond), "", nil)
	}
	r.add(at(-time.Second), at(time.Second), "", nil)                        // due before the window, answered within
	r.add(at(9*time.Second), at(11*time.Second), "", nil)                    // due within, answered after
	r.add(at(-2*time.Second), at(-time.Second), "", nil)                     // before
	r.add(at(10*time.Second), at(10*time.Second+1), "", nil)                 // after
	r.add(at(5*time.Second), at(5*time.Second+time.Millisecond), "429", nil) // refused
	s := r.step("", Load{Clients: 1}, 1, start)
	if s.Requests != 1002 || s.Failed() != 1 || s.Rate != 100.1 {
		t.Errorf("%d requests, %d failed, rate %v", s.Requests, s.Failed(), s.Rate)
	}
	// 1..1000 ms and one of 2000 ms: the q-th percentile is the ceil(10.01 q)-th of them.
	l := s.Latency
	for got, want := range map[float64]float64{l.P50: 501, l.P90: 901, l.P99: 991, l.P999: 1000, l.Max: 2000, l.Mean: (500500 + 2000) / 1001.} {
		if math.Abs(got-want) > 0.002*want { // three digits
			t.Errorf("%v in %+v, want %v", got, l, want)
		}
	}
	last := 0.0
	for _, d := range s.Distribution {
		if d[1] < last || d[1] > 1 {
			t.Errorf("shares go from %v to %v", last, d[1])
		}
		last = d[1]
	}
	if last != 1 {
		t.Errorf("the last share is %v", last)
	}
	good := 0.0
	for _, m := range s.Timeline {
		good += m.Rate * r.slotTime.Seconds()
	}
	if math.Abs(good-1001) > 1e-6 || len(s.Timeline) != 20 {
		t.Errorf("%v good answers in %d parts", good, len(s.Timeline))
	}
}

// TestHeldRequests are those of a closed loop that began before the window.
func TestHeldRequests(t *testing.T) {
	start := time.Now()
	r := newRecording(true)
	r.begin(start, 10*time.Second)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	r.add(at(-time.Second), at(2*time.Second), "", nil)         // hung in the warm-up, answered in the window
	r.add(at(-time.Second), at(20*time.Second), "timeout", nil) // hung all the time
	r.add(at(-2*time.Second), at(-time.Second), "", nil)        // before
	r.add(at(10*time.Second), at(11*time.Second), "", nil)      // after
	s := r.step("", Load{Clients: 2}, 1, start)
	if s.Requests != 2 || s.Errors["timeout"] != 1 || s.Rate != 0.1 || math.Abs(s.Latency.Max-3000) > 5 {
		t.Errorf("%d requests, errors %v, rate %v, max %v", s.Requests, s.Errors, s.Rate, s.Latency.Max)
	}
}

func TestSlotTime(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		100 * time.Millisecond: 100 * time.Millisecond, 1900 * time.Millisecond: 100 * time.Millisecond, 2 * time.Second: 500 * time.Millisecond, 5 * time.Second: 500 * time.Millisecond,
		10 * time.Second: 500 * time.Millisecond, time.Minute: 2 * time.Second, 24 * time.Hour: 5000 * time.Second,
	} {
		if got := slotTime(d); got != want {
			t.Errorf("%v in parts of %v, want %v", d, got, want)
		}
	}
}

func TestSearch(t *testing.T) {
	for _, c := range []struct{ start, most, limit int }{
		{300, MaxRate, 318}, {1, MaxRate, 318}, {5000, MaxRate, 318}, {16, MaxClients, 1}, {16, MaxClients, 0}, {1, 1, 1}, {1, 1, 0},
		{16, MaxClients, MaxClients}, {16, MaxClients, 17}, {0, 10, 10}, {99, 10, 7}, {7, MaxRate, MaxRate},
	} {
		calls := 0
		got, err := search(c.start, c.most, func(x int) (bool, error) {
			if calls++; x < 1 || x > c.most {
				t.Fatalf("%+v: tries %d", c, x)
			}
			return x <= c.limit, nil
		})
		if err != nil || got > c.limit || c.limit-got > max(0, c.limit/50) || calls > 25 {
			t.Errorf("%+v: found %d with %d tries, %v", c, got, calls, err)
		}
	}
	// What does not behave ends too, with something that was seen to hold.
	for seed := range 200 {
		held := map[int]bool{0: true}
		calls := 0
		got, _ := search(100, MaxRate, func(x int) (bool, error) {
			calls++
			held[x] = (x*2654435761+seed*40503)>>3%5 < 2
			return held[x], nil
		})
		if !held[got] || calls > 40 {
			t.Errorf("seed %d: found %d with %d tries", seed, got, calls)
		}
	}
}

func FuzzServerTiming(f *testing.F) {
	for _, s := range []string{"queue;dur=0.5, decode;dur=1", `db;desc="a, b";dur=2`, "cache", "x;dur=NaN", "x;dur=-1", "x;dur=1e300", ";dur=1", "a;dur=1;dur=2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		var s stageTimes
		s.add(header, time.Second)
		s.add(header, time.Second)
		if len(s.stages) > maxStages {
			t.Errorf("%d stages", len(s.stages))
		}
		for _, stage := range s.latencies() {
			if stage.Stage == "" || len(stage.Stage) > maxStageName || !(stage.Mean >= 0) || math.IsInf(stage.Mean, 0) {
				t.Errorf("%+v", stage)
			}
		}
	})
}

// FuzzStats takes any two answers of /v1/stats.
func FuzzStats(f *testing.F) {
	f.Add([]byte(`{"process":{"cpu_seconds":1}}`), []byte(`{"process":{"cpu_seconds":2},"npu":{"image_batches":[0,1]}}`))
	f.Add([]byte(`{"stages":[{"stage":"encode","batches":[0,5]}],"cache":{"list_hits":3}}`), []byte(`{"stages":[{"stage":"encode","batches":[0,9]}],"cache":{"list_hits":9}}`))
	f.Add([]byte(`{}`), []byte(`{"npu":{"image_batches":[]},"cache":{}}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		now := time.Now()
		before, after := &snapshot{at: now}, &snapshot{at: now.Add(time.Second)}
		if json.Unmarshal(first, before) != nil || json.Unmarshal(second, after) != nil {
			return
		}
		rec := newRecording(false)
		rec.begin(now, time.Second)
		rec.add(now, now.Add(time.Millisecond), "", nil)
		rec.service = used(before, after).plus(used(before, after))
		s := rec.step("", Load{Clients: 1}, 3, now)
		r := &report.Report{Services: []string{""}, Steps: []*report.Step{s}}
		if err := errors.Join(r.WriteHTML(io.Discard), r.WriteJSON(io.Discard)); err != nil {
			t.Error(err)
		}
		r.WriteTable(io.Discard)
	})
}

// TestServiceUse holds the differences of two snapshots against numbers made by hand.
func TestServiceUse(t *testing.T) {
	snap := func(at int64, text string) *snapshot {
		s := &snapshot{at: time.Unix(at, 0)}
		if err := json.Unmarshal([]byte(text), s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := snap(0, `{"stages":[{"stage":"decode","batches":[0,7]},{"stage":"encode","batches":[0,10,0,0]}],
		"cache":{"list_hits":5,"memory_hits":10,"encoded":20},"process":{"cpu_seconds":1,"gc_cpu_seconds":0.1,"mallocs":100,"allocated_bytes":1000}}`)
	after := snap(2, `{"stages":[{"stage":"decode","batches":[0,9]},{"stage":"encode","batches":[0,20,0,30]}],
		"cache":{"list_hits":14,"memory_hits":15,"encoded":25},"process":{"cpu_seconds":3,"gc_cpu_seconds":0.2,"mallocs":300,"allocated_bytes":9000,"rss_bytes":7,"heap_bytes":3}}`)
	u := used(before, after).each(100, 1, 10) // 100/s, so 200 answers between the snapshots
	if u.CPU != 10 || u.Cores != 1 || math.Abs(u.GC-0.05) > 1e-9 || u.Mallocs != 1 || u.Allocated != 40 || u.RSS != 7 || u.Heap != 3 {
		t.Errorf("%+v", u)
	}
	if u.Batch != 2.5 || *u.CacheHits != 0.95 { // 10 of 1 and 30 of 3; 9 lists of 10 and 5, less 5
		t.Errorf("batch %v, hits %v", u.Batch, *u.CacheHits)
	}
	device := `{"npu":{"image_batches":[0,%s,0,0,%s]}}`
	d := used(snap(0, strings.NewReplacer("%s", "1").Replace(device)), snap(1, strings.Replace(strings.Replace(device, "%s", "3", 1), "%s", "33", 1)))
	if got := d.batches; len(got) != 5 || got[1] != 2 || got[4] != 8 {
		t.Errorf("runs of the device %v", got)
	}
	worker := `{"process":{"cpu_seconds":%c,"mallocs":1,"rss_bytes":7},"npu":{"image_runs":%r,"image_busy_seconds":%b,"worker":{"pid":%p,"cpu_seconds":%w,"rss_bytes":5}}}`
	first := snap(0, strings.NewReplacer("%c", "1", "%r", "10", "%b", "1", "%p", "4", "%w", "3").Replace(worker))
	for pid, cpu := range map[string]float64{"4": 20, "5": 50} { // the same worker, and a new one
		second := snap(2, strings.NewReplacer("%c", "2", "%r", "30", "%b", "1.5", "%p", pid, "%w", "4").Replace(worker))
		if u := used(first, second).each(50, 1, 1); u.CPU != cpu || u.RSS != 12 || u.Device != 25 {
			t.Errorf("worker %s: %+v, want %v ms", pid, u, cpu)
		}
	}
	if used(after, before) != nil || used(nil, after) != nil {
		t.Error("a service that started anew has a difference")
	}
}
