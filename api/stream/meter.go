package stream

import (
	"sync"
	"time"
)

// Counts are what became of frames. Each is counted in Frames and later in exactly one of the others.
type Counts struct {
	Frames     uint64 `json:"frames"`
	Answered   uint64 `json:"answered"`   // encoded
	Reused     uint64 `json:"reused"`     // near-duplicates
	Superseded uint64 `json:"superseded"` // by a newer frame
	Expired    uint64 `json:"expired"`    // the deadline passed, or whoever sent it has left
	Bad        uint64 `json:"bad"`        // not an image that can be used
	Rate       uint64 `json:"rate"`       // beyond fps or interval_ms
}

// Stats are the counters of a stream, or of all.
type Stats struct {
	Counts
	Changes  uint64  `json:"changes"`    // events, without those of frames
	Unstored uint64  `json:"unstored"`   // events that were to be stored and could not be
	LagMS    float64 `json:"lag_ms"`     // moving average of the time from a frame's last byte to its answer
	LagMaxMS float64 `json:"lag_max_ms"` // in the last 10 s
}

// outcome counts what became of a frame.
func (s *Counts) outcome(a *Answer) {
	switch {
	case a.Dropped == Superseded:
		s.Superseded++
	case a.Dropped == Expired:
		s.Expired++
	case a.Dropped == Bad:
		s.Bad++
	case a.Dropped == Rate:
		s.Rate++
	case a.Reused:
		s.Reused++
	default:
		s.Answered++
	}
}

// meter counts frames and watches their lag. Times are those of Hub.now. Safe for concurrent use.
type meter struct {
	mu      sync.Mutex
	counts  Stats
	seconds [lagSeconds + 2]second // the current one and some before, by their number
}

const (
	lagSeconds = 10                     // that are looked back
	lagWeight  = 0.1                    // of one frame in the moving average
	lagGrowth  = 1.5                    // in half of lagSeconds: then the lag has grown
	lagLeast   = 100 * time.Millisecond // that counts as grown
)

// second is what was answered in a second.
type second struct {
	number   int64
	answers  int
	sum, max time.Duration // of their lag
	lost     bool          // a frame was superseded or expired
}

// at returns a second, empty if nothing was answered in it. The caller holds mu.
func (m *meter) at(number int64) *second {
	s := &m.seconds[number%int64(len(m.seconds))]
	if s.number < number {
		*s = second{number: number}
	}
	return s
}

func (m *meter) frame() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.Frames++
}

func (m *meter) outcome(a *Answer, now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.outcome(a)
	s := m.at(int64(now / time.Second))
	switch a.Dropped {
	case "":
		s.answers++
		s.sum += a.Lag
		s.max = max(s.max, a.Lag)
		lag := milliseconds(a.Lag)
		if m.counts.Answered+m.counts.Reused == 1 {
			m.counts.LagMS = lag
		}
		m.counts.LagMS += lagWeight * (lag - m.counts.LagMS)
	case Superseded, Expired:
		s.lost = true
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// changed counts events, and those that were not stored.
func (m *meter) changed(events, unstored int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.Changes += uint64(events)
	m.counts.Unstored += uint64(unstored)
}

// add counts what another meter has, but its lag.
func (m *meter) add(s Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &m.counts
	c.Frames += s.Frames
	c.Answered += s.Answered
	c.Reused += s.Reused
	c.Superseded += s.Superseded
	c.Expired += s.Expired
	c.Bad += s.Bad
	c.Rate += s.Rate
	c.Changes += s.Changes
	c.Unstored += s.Unstored
}

func (m *meter) stats(now time.Duration) Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.counts
	for i := range int64(lagSeconds) {
		if n := int64(now/time.Second) - i; n >= 0 {
			st.LagMaxMS = max(st.LagMaxMS, milliseconds(m.at(n).max))
		}
	}
	return st
}

// degraded says that frames come faster than they are answered: in each of the last ten whole seconds one was superseded or has expired,
// or the mean lag of the last five is above 100 ms and 1.5 times that of the five before.
func (m *meter) degraded(now time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := int64(now/time.Second) - 1
	if last < lagSeconds {
		return false
	}
	lost := true
	var mean [2]time.Duration // of the older half and the newer one
	for half := range mean {
		var sum time.Duration
		answers := 0
		for i := range int64(lagSeconds / 2) {
			s := m.at(last - lagSeconds/2*int64(1-half) - i)
			lost = lost && s.lost
			sum += s.sum
			answers += s.answers
		}
		if answers > 0 {
			mean[half] = sum / time.Duration(answers)
		}
	}
	grown := mean[0] > 0 && mean[1] > lagLeast && float64(mean[1]) > lagGrowth*float64(mean[0])
	return lost || grown
}
