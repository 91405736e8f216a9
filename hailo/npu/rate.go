package npu

import (
	"fmt"
	"math"
	"time"
)

// What counts as slow: a known decay of the chip goes down to a third within minutes.
const (
	rateWindow    = 10 * time.Second // at least
	rateFrames    = 50               // in a window, at least
	rateSlow      = 0.7              // of the first rate
	rateSlowAfter = time.Minute
)

// burst is how far apart the ends of the frames of one run are told at most. A run takes longer.
const burst = 3 * time.Millisecond

// rateWatch compares how fast the device encodes images with how fast it did at first.
//
// Measured is frames per second of the time in which images and no texts are in flight. How many frames a run has differs with
// the load, and in runs of more a device is faster, by less than they are longer: what it did in runs of n, it does in longer
// runs too, and in runs of m < n at least m/n of it. The first window with runs of some length sets what to expect of such,
// unless others tell of more. A slow decay under a load that grows with it, so that each window has longer runs than any
// before, is therefore seen late.
// Not safe for concurrent use.
type rateWatch struct {
	last          time.Time // of the last event
	images, texts int       // in flight since then
	start         time.Time // of the window
	busy          time.Duration
	frames, runs  int
	run           time.Time     // when the first frame of the last run was done
	expect        map[int]seen  // by frames in a run, rounded
	slowSince     time.Time     // end of the first slow window of those in a row
	slow          string        // why it is slow; "" when it is not
	current       float64       // of the last window
	total         time.Duration // in which images were in flight, over all windows
}

// seen is what the device did in a window.
type seen struct {
	rate float64 // frames per second
	run  float64 // frames in a run
}

// event says that from now on images and texts are in flight, and that done images were
// finished just now.
func (r *rateWatch) event(now time.Time, images, texts, done int) {
	if r.start.IsZero() {
		r.start, r.last = now, now
		r.expect = make(map[int]seen)
	}
	d := now.Sub(r.last)
	if r.images > 0 {
		r.total += d
	}
	if r.images > 0 && r.texts == 0 {
		r.busy += d
		r.frames += done
		if done > 0 && now.Sub(r.run) > burst {
			r.run = now
			r.runs++
		}
	}
	r.last, r.images, r.texts = now, images, texts
	if r.frames >= rateFrames && now.Sub(r.start) >= rateWindow {
		r.close(now)
	}
}

// close ends a window and judges it.
func (r *rateWatch) close(now time.Time) {
	busy, w := r.busy.Seconds(), seen{run: float64(r.frames) / float64(max(r.runs, 1))}
	w.rate = float64(r.frames) / busy
	r.start, r.busy, r.frames, r.runs = now, 0, 0, 0
	if busy <= 0 {
		return
	}
	r.current = w.rate
	expect := 0.0
	for _, other := range r.expect {
		expect = max(expect, other.rate*min(1, w.run/other.run))
	}
	key := int(math.Round(w.run))
	if _, known := r.expect[key]; !known && w.rate >= expect {
		r.expect[key] = w
		expect = w.rate
	}
	if w.rate >= rateSlow*expect {
		r.slowSince, r.slow = time.Time{}, ""
		return
	}
	if r.slowSince.IsZero() {
		r.slowSince = now // and not the start of the window, which may have been idle for hours
	}
	if now.Sub(r.slowSince) >= rateSlowAfter {
		r.slow = fmt.Sprintf("the device encodes %.0f images/s where it did %.0f at first (%.0f in a run): reboot the host",
			w.rate, expect, w.run)
	}
}

// restart forgets what is in flight, after the loss of a worker, but not what to expect.
func (r *rateWatch) restart() { r.images, r.texts = 0, 0 }
