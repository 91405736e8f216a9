package load

import (
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hailoclip/api/client"
	"hailoclip/bench/report"
)

// streamTimes is what is recorded of streams beside what is of requests. The recording's lock guards lag and answered; memory is of
// the goroutine that follows the window.
type streamTimes struct {
	lag      *hdrhistogram.Histogram // as the service says
	answered []int64                 // within the windows, by stream
	reused   int64                   // of these
	memory   [][2]float64            // seconds of the run and bytes of the service's process
	begin    time.Time
	every    time.Duration
	last     time.Time
}

// maxMemories is how many times the memory is looked at in a window.
const maxMemories = 200

// beginStreams begins a window for n streams.
func (r *recording) beginStreams(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams == nil {
		r.streams = &streamTimes{lag: newHistogram(3), answered: make([]int64, n), begin: r.start}
	}
	r.streams.every = max(time.Second, r.end.Sub(r.start)/maxMemories)
}

// addStream counts an answer of the n-th stream.
func (r *recording) addStream(n int, now time.Time, a *client.StreamAnswer) {
	if now.Before(r.start) || !now.Before(r.end) || a.Dropped != "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams.answered[n]++
	if a.Reused {
		r.streams.reused++
	}
	observe(r.streams.lag, time.Duration(a.LagMS*float64(time.Millisecond)))
}

// due says whether the memory is to be looked at again.
func (s *streamTimes) due() bool { return time.Since(s.last) >= s.every }

func (s *streamTimes) remember(n *snapshot) {
	if s.last = time.Now(); n != nil && n.Process.RSSBytes > 0 {
		s.memory = append(s.memory, [2]float64{n.at.Sub(s.begin).Seconds(), float64(n.Process.RSSBytes)})
	}
}

// use sums up the streams of a load, which had so many good answers.
func (s *streamTimes) use(load Load, good int64) *report.StreamUse {
	u := &report.StreamUse{Kind: load.Kind, FPS: load.FPS, Policy: load.Policy, Lag: latencyOf(s.lag), Memory: s.memory}
	if good > 0 {
		mean := float64(good) / float64(len(s.answered))
		u.ShareMin, u.ShareMax = float64(slices.Min(s.answered))/mean, float64(slices.Max(s.answered))/mean
		u.Reused = float64(s.reused) / float64(good)
	}
	return u
}
