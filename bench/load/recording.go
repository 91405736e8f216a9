package load

import (
	"context"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"hailoclip/bench/report"
)

// recording is what happened in one measured window, or in several of the same load. Latencies
// are in microseconds.
type recording struct {
	start, end time.Time // of the last window
	held       bool      // requests that were under way at the start count too; set before the first add

	mu       sync.Mutex
	seconds  float64                 // length of the windows
	latency  *hdrhistogram.Histogram // of good answers to requests that count
	lag      *hdrhistogram.Histogram // how late the schedule's own clock was
	requests int64                   // due in the windows, and with held under way at their starts
	errors   map[string]int64        // of these, by code
	good     int64                   // good answers that came within the windows
	slots    []slot                  // the windows in equal parts, by when the answers came
	first    int                     // slot of the last window
	slotTime time.Duration
	stages   stageTimes
	service  *serviceUse   // nil: the service does not tell
	client   time.Duration // CPU time of this process in the windows
	streams  *streamTimes  // nil: there are none
}

// slot is a part of the window.
type slot struct {
	start        time.Time
	good, failed int64
	latency      *hdrhistogram.Histogram
}

const (
	maxLatency = int64(time.Hour / time.Microsecond)
	maxSlots   = 40
)

func newHistogram(significant int) *hdrhistogram.Histogram {
	return hdrhistogram.New(1, maxLatency, significant)
}

func newRecording(held bool) *recording {
	return &recording{held: held, latency: newHistogram(3), lag: newHistogram(3), errors: map[string]int64{}}
}

// begin adds a window.
func (r *recording) begin(start time.Time, duration time.Duration) {
	r.start, r.end, r.first, r.slotTime = start, start.Add(duration), len(r.slots), slotTime(duration)
	r.seconds += duration.Seconds()
	for at := start; at.Before(r.end); at = at.Add(r.slotTime) {
		r.slots = append(r.slots, slot{start: at, latency: newHistogram(2)})
	}
}

// slotTime is a round part of the window, of which at most maxSlots fit. In less than 500 ms a
// batch more or less would look like a change of the rate, but a short window has to have some parts.
func slotTime(d time.Duration) time.Duration {
	const steady, few = 500 * time.Millisecond, 4
	for unit := 100 * time.Millisecond; ; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			if d <= maxSlots*n*unit && (n*unit >= steady || d < few*steady) {
				return n * unit
			}
		}
	}
}

// observe puts a duration into a histogram.
func observe(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), maxLatency)) // within the bounds of newHistogram
}

// add counts a request by when it was due and when it was done. timing is its Server-Timing,
// or nil.
//
// Where a client asks again only when it has its answer, one that hangs since before the window has
// no request due within. So there (held) what was under way at the start counts as well.
func (r *recording) add(due, done time.Time, code string, timing []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !done.Before(r.start) && done.Before(r.end) {
		s := &r.slots[r.first+int(done.Sub(r.start)/r.slotTime)]
		if code == "" {
			r.good++
			s.good++
			observe(s.latency, done.Sub(due))
		} else {
			s.failed++
		}
	}
	early := due.Before(r.start) && (!r.held || done.Before(r.start))
	if early || !due.Before(r.end) {
		return
	}
	r.requests++
	if code != "" {
		r.errors[code]++
		return
	}
	observe(r.latency, done.Sub(due))
	if len(timing) > 0 {
		r.stages.add(timing, done.Sub(due))
	}
}

// addLag counts how late the schedule woke up.
func (r *recording) addLag(at time.Time, lag time.Duration) {
	if !at.Before(r.start) {
		r.mu.Lock()
		defer r.mu.Unlock()
		observe(r.lag, lag)
	}
}

// watch follows the window: it takes the counters of the service and of this process at its
// start and at its end, and reports progress in between. It returns at the end of the window.
func (r *recording) watch(ctx context.Context, t *Target, progress func(time.Duration), begin time.Time) {
	r.sleep(ctx, r.start, progress, begin)
	before, cpu := t.snapshot(), ownCPU()
	if r.streams != nil {
		r.streams.remember(before)
		tell := progress
		progress = func(done time.Duration) {
			tell(done)
			if r.streams.due() {
				r.streams.remember(t.snapshot())
			}
		}
	}
	r.sleep(ctx, r.end, progress, begin)
	cpu = ownCPU() - cpu
	var service *serviceUse
	if ctx.Err() == nil {
		service = used(before, t.snapshot()) // takes seconds where the service hangs, and answers must be counted meanwhile
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client += cpu
	if r.first > 0 {
		service = r.service.plus(service)
	}
	r.service = service
}

func (r *recording) sleep(ctx context.Context, until time.Time, progress func(time.Duration), begin time.Time) {
	for d := time.Until(until); d > 0 && ctx.Err() == nil; d = time.Until(until) {
		select {
		case <-ctx.Done():
		case <-time.After(min(d, 200*time.Millisecond)):
		}
		progress(time.Since(begin))
	}
}

// ownCPU is the CPU time of this process so far, user and system.
func ownCPU() time.Duration {
	var use unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &use) // fails for wrong arguments only
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// step sums up the recording of a load. origin is the start of the run.
func (r *recording) step(target string, load Load, prompts int, origin time.Time) *report.Step {
	s := &report.Step{
		Target: target, Load: load.String(), Clients: load.Clients, Offered: load.Rate,
		Started: r.slots[0].start.Sub(origin).Seconds(), Seconds: r.seconds, Requests: r.requests, Errors: maps.Clone(r.errors),
		Rate: float64(r.good) / r.seconds, Latency: latencyOf(r.latency), Distribution: distribution(r.latency),
		Service: r.service.each(r.good, r.seconds, prompts),
	}
	if load.Rate > 0 {
		s.Clients = 0
	}
	if load.open() {
		s.Lag = ms(r.lag.ValueAtQuantile(99))
	}
	if r.requests > 0 {
		s.ClientCPU = r.client.Seconds() * 1000 / float64(r.requests)
	}
	for _, slot := range r.slots {
		m := report.Moment{At: (slot.start.Sub(origin) + r.slotTime/2).Seconds(), Rate: float64(slot.good) / r.slotTime.Seconds(),
			Bad: float64(slot.failed) / r.slotTime.Seconds()}
		if slot.good > 0 {
			m.P50, m.P99 = ms(slot.latency.ValueAtQuantile(50)), ms(slot.latency.ValueAtQuantile(99))
		}
		s.Timeline = append(s.Timeline, m)
	}
	if r.streams != nil {
		s.Streams = r.streams.use(load, r.good)
	}
	if r.stages.n > 0 {
		s.Stages, s.Outside = r.stages.latencies(), r.stages.outside()
	}
	return s
}

func ms(us int64) float64 { return float64(us) / 1000 }

func latencyOf(h *hdrhistogram.Histogram) report.Latency {
	if h.TotalCount() == 0 {
		return report.Latency{}
	}
	at := func(q float64) float64 { return ms(h.ValueAtQuantile(q)) }
	return report.Latency{Mean: h.Mean() / 1000, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: ms(h.Max())}
}

// distribution has about ten points each time the share of the slower answers is halved.
func distribution(h *hdrhistogram.Histogram) [][2]float64 {
	points := [][2]float64{}
	if h.TotalCount() == 0 {
		return points
	}
	for _, b := range h.CumulativeDistributionWithTicks(10) {
		points = append(points, [2]float64{ms(b.ValueAt), math.Round(b.Quantile*1e6) / 1e8})
	}
	return points
}
