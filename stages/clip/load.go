package clip

import (
	"cmp"
	"math"
	"sync"
	"time"
)

// Load is how much an engine has to do now.
type Load struct {
	Waiting  int     // images that wait to enter the line
	Room     int     // more that could wait
	InFlight int     // images in the line
	Batch    int     // images of a full run of the encoder
	Rate     float64 // images a second that it can encode: as measured while it was busy, or as its device is rated; 0: not known
}

// Wait is how long an image that comes now waits for those before it; 0 where the rate is not known.
func (l Load) Wait() time.Duration { return l.time(l.Waiting + l.InFlight) }

// Run is how long a full run of the encoder takes; 0 where the rate is not known.
func (l Load) Run() time.Duration { return l.time(l.Batch) }

func (l Load) time(images int) time.Duration {
	if l.Rate <= 0 {
		return 0
	}
	return time.Duration(math.Min(float64(images)/l.Rate, 3600) * float64(time.Second))
}

// Load says how busy the engine is. It is cheap, does not block and allocates nothing.
func (e *Engine) Load() Load {
	now, batch := e.line.Load(), max(e.parts.Images.Info().ImageBatch, 1)
	rated := 0.0
	if e.parts.NPU != nil && e.parts.NPU.Status().Ready { // and nothing stands in for it
		rated = cmp.Or(e.line.Rate(), e.parts.NPU.Rated())
	}
	l := Load{Waiting: now.Waiting, Room: now.Room, InFlight: now.Inside, Batch: batch}
	l.Rate = e.rate.see(time.Now(), now.Done, now.Waiting+now.Inside >= 2*batch, rated)
	return l
}

// rateMeter measures how many images a second an engine encodes while there are always some for it to do. The zero value is ready.
// Safe for concurrent use.
type rateMeter struct {
	mu   sync.Mutex
	at   time.Time // of the last sample
	done uint64
	busy bool
	rate float64
}

const (
	rateSample = 200 * time.Millisecond // between two samples, at least
	rateStale  = 2 * time.Second        // at most: what was between is not known
	rateWeight = 0.2                    // of a sample
	rateDrift  = 0.02                   // of what the device is rated at, for each sample in which nothing is measured
)

// see takes a look at the engine: the images done since the start, whether there is work for it, and the rate that its device is rated at,
// 0 for none. It returns the rate. While nothing is measured it draws near that, so that a slow time is forgotten.
func (m *rateMeter) see(now time.Time, done uint64, busy bool, rated float64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	since := now.Sub(m.at)
	if !m.at.IsZero() && since < rateSample {
		return m.or(rated)
	}
	switch {
	case busy && m.busy && since <= rateStale && done > m.done:
		sample := float64(done-m.done) / since.Seconds()
		if m.rate = m.or(rated); m.rate == 0 {
			m.rate = sample
		}
		m.rate += rateWeight * (sample - m.rate)
	case m.rate > 0 && rated > 0:
		m.rate += rateDrift * (rated - m.rate)
	}
	m.at, m.done, m.busy = now, done, busy
	return m.or(rated)
}

// or is the rate as measured, or that of the device.
func (m *rateMeter) or(rated float64) float64 {
	if m.rate > 0 {
		return m.rate
	}
	return rated
}
