package npu

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// Metrics are the counters of a Backend and the last that the device said of itself.
type Metrics struct {
	Ready     bool
	Restarts  int             // workers lost after they had been ready
	Frames    [models]uint64  // done, by model: ImageModel, TextModel
	Failed    [models]uint64  // of them with a status that is not 0
	Runs      [models]float64 // runs on the device, if it tells: Frames / Runs is the mean batch
	Batches   [64]uint64      // Batches[n]: image frames done in runs of n, if the device tells; a run has 63 at most
	InFlight  [models]int
	Busy      time.Duration // in which images were in flight
	Rate      float64       // images/s while images were in flight, in the last full window; 0: not known yet
	Published float64       // Options.PublishedRate
	Worker    int           // process id; 0: there is none
	Device    wire.Stats    // NaN and 0 where the device does not tell
}

// Metrics returns the counters. Safe for concurrent use; does not block on the device.
func (b *Backend) Metrics() Metrics {
	w := b.current.Load()
	b.mu.Lock()
	m := b.metrics
	m.Published = b.opt.PublishedRate
	m.Restarts, m.Rate, m.Busy = b.restarts, b.rate.current, b.rate.total
	b.mu.Unlock()
	if w != nil {
		m.Worker = w.proc.cmd.Process.Pid
		w.mu.Lock()
		m.Ready, m.Device = !w.paused && w.life.Err() == nil, w.stats
		for i, f := range w.inFlight {
			m.InFlight[i] = f.n
		}
		w.mu.Unlock()
	}
	return m
}

// Rated is how many images a second the device should encode in runs as long as they are here, by what is published for runs of one
// and of eight; 0: not known.
func (b *Backend) Rated() float64 {
	single, eight, n := b.opt.SingleRate, b.opt.PublishedRate, float64(b.opt.BatchSize)
	if single <= 0 || eight <= 0 || n < 1 {
		return eight
	}
	frame := (8/eight - 1/single) / 7 // seconds, beside those of a run
	return n / (1/single + (n-1)*frame)
}

// count keeps the numbers of a frame that is done, or of a submit (d is nil). The caller holds w.mu.
func (b *Backend) count(now time.Time, w *worker, d *wire.Done) {
	b.mu.Lock()
	defer b.mu.Unlock()
	images := 0
	if d != nil {
		b.metrics.Frames[d.Model]++
		if d.Status != wire.Success {
			b.metrics.Failed[d.Model]++
		}
		if d.Batch > 0 {
			b.metrics.Runs[d.Model] += 1 / float64(d.Batch)
		}
		if d.Model == ImageModel {
			images = 1
			if d.Batch > 0 {
				b.metrics.Batches[min(int(d.Batch), len(b.metrics.Batches)-1)]++
			}
		}
	}
	b.rate.event(now, w.inFlight[ImageModel].n, w.inFlight[TextModel].n, images)
}

// zones are the names of the vendor's temperature zones.
var zones = [...]string{"green", "orange", "red"}

// Status implements hailo.Backend.
func (b *Backend) Status() hailo.Status {
	if b.calls.Closed() {
		return hailo.Status{Why: hailo.ErrClosed.Error}
	}
	w := b.current.Load()
	b.mu.Lock()
	last, restarts, failures, lostAt, slow := b.last, b.restarts, b.failures, b.lostAt, b.rate.slow
	b.mu.Unlock()
	away := func(format string, args ...any) hailo.Status {
		return hailo.Status{Restarts: restarts, Why: func() string { return fmt.Sprintf(format, args...) }}
	}
	if w == nil {
		switch {
		case last == nil:
			return away("the device is being opened")
		case failures > 0:
			return away("the device is being brought back (%d starts failed): %v", failures, last)
		}
		return away("the device is being brought back: %v", last)
	}
	w.mu.Lock()
	stats, paused := w.stats, w.paused
	w.mu.Unlock()
	if reason := context.Cause(w.life); reason != nil {
		return away("the device is lost: %v", reason)
	}
	if paused {
		return away("%v", errTooHot)
	}
	restarted, hot := restarts > 0 && time.Since(lostAt) < unsettled, stats.Throttling > 0 || stats.Zone > 0
	if !restarted && !hot && stats.Overcurrent == 0 && slow == "" {
		return hailo.Status{Restarts: restarts, Ready: true}
	}
	return hailo.Status{Restarts: restarts, Ready: true, Degraded: true, Why: func() string {
		var reasons []string
		if restarted {
			reasons = append(reasons, fmt.Sprintf("the worker was restarted (%d times in all): %v", restarts, last))
		}
		if hot {
			reasons = append(reasons, fmt.Sprintf("the device is hot: zone %s, throttling state %d, %.0f and %.0f degrees C",
				zones[min(stats.Zone, 2)], stats.Throttling, stats.Temperature[0], stats.Temperature[1]))
		}
		if stats.Overcurrent != 0 {
			reasons = append(reasons, "the device reports overcurrent")
		}
		if slow != "" {
			reasons = append(reasons, slow)
		}
		return strings.Join(reasons, "; ")
	}}
}
