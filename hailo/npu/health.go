package npu

import (
	"fmt"
	"strings"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// Metrics are the counters of a Backend and the last that the device said of itself.
type Metrics struct {
	Ready    bool
	Restarts int             // workers lost after they had been ready
	Frames   [models]uint64  // done, by model: ImageModel, TextModel
	Failed   [models]uint64  // of them with a status that is not 0
	Runs     [models]float64 // runs on the device, if it tells: Frames / Runs is the mean batch
	Batches  [64]uint64      // Batches[n]: image frames done in runs of n, if the device tells; a run has 63 at most
	InFlight [models]int
	Busy     time.Duration // in which images were in flight
	Rate     float64       // images/s while images were in flight, in the last full window; 0: not known yet
	Worker   int           // process id; 0: there is none
	Device   wire.Stats    // NaN and 0 where the device does not tell
}

// Metrics returns the counters. Safe for concurrent use; does not block on the device.
func (b *Backend) Metrics() Metrics {
	s := b.current.Load()
	b.mu.Lock()
	m := b.metrics
	m.Restarts, m.Rate, m.Busy = b.restarts, b.rate.current, b.rate.total
	b.mu.Unlock()
	if s != nil {
		m.Worker = s.proc.cmd.Process.Pid
		s.mu.Lock()
		m.Ready, m.Device = !s.paused && s.reason == nil, s.stats
		for i, l := range s.lines {
			m.InFlight[i] = l.n
		}
		s.mu.Unlock()
	}
	return m
}

// noteDone counts a frame that is done.
func (b *Backend) noteDone(d *wire.Done) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.metrics.Frames[d.Model]++
	if d.Status != wire.Success {
		b.metrics.Failed[d.Model]++
	}
	if d.Batch > 0 {
		b.metrics.Runs[d.Model] += 1 / float64(d.Batch)
		if d.Model == ImageModel {
			b.metrics.Batches[min(int(d.Batch), len(b.metrics.Batches)-1)]++
		}
	}
}

// noteRate tells the rate watch what is in flight from now on. The caller holds s.mu.
func (b *Backend) noteRate(now time.Time, s *session, images int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate.event(now, s.lines[ImageModel].n, s.lines[TextModel].n, images)
}

// Status implements hailo.Backend.
func (b *Backend) Status() hailo.Status {
	b.door.RLock()
	closed := b.closed
	b.door.RUnlock()
	if closed {
		return hailo.Status{Reason: hailo.ErrClosed.Error()}
	}
	s := b.current.Load()
	b.mu.Lock()
	last, restarts, failures, lostAt, slow := b.last, b.restarts, b.failures, b.lostAt, b.rate.slow
	b.mu.Unlock()
	away := func(format string, args ...any) hailo.Status {
		return hailo.Status{Restarts: restarts, Reason: fmt.Sprintf(format, args...)}
	}
	if s == nil {
		switch {
		case last == nil:
			return away("the device is being opened")
		case failures > 0:
			return away("the device is being brought back (%d starts failed): %v", failures, last)
		}
		return away("the device is being brought back: %v", last)
	}
	s.mu.Lock()
	stats, paused, reason := s.stats, s.paused, s.reason
	s.mu.Unlock()
	if reason != nil {
		return away("the device is lost: %v", reason)
	}
	if paused {
		return away("%v", errTooHot)
	}
	var reasons []string
	if restarts > 0 && time.Since(lostAt) < unsettled {
		reasons = append(reasons, fmt.Sprintf("the worker was restarted (%d times in all): %v", restarts, last))
	}
	if stats.Throttling > 0 || stats.Zone > 0 {
		reasons = append(reasons, fmt.Sprintf("the device is hot: zone %s, throttling state %d, %.0f and %.0f degrees C",
			zoneName(stats.Zone), stats.Throttling, stats.Temperature[0], stats.Temperature[1]))
	}
	if stats.Overcurrent != 0 {
		reasons = append(reasons, "the device reports overcurrent")
	}
	if slow != "" {
		reasons = append(reasons, slow)
	}
	return hailo.Status{Restarts: restarts, Ready: true, Degraded: len(reasons) > 0, Reason: strings.Join(reasons, "; ")}
}

func zoneName(zone uint32) string {
	switch zone {
	case 0:
		return "green"
	case 1:
		return "orange"
	}
	return "red"
}
