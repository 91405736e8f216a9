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

// rateWatch compares how fast the device encodes images with how fast it did at first.
//
// Measured is frames per second of the time in which images and no texts are in flight. The
// device is faster with more frames in flight, because it batches, so rates are compared only
// by the mean number in flight: the first window at a number sets what to expect there, unless
// fewer in flight were faster already. A slow decay under a load that grows with it, so that each
// window has more in flight than any before, is therefore seen late.
// Not safe for concurrent use.
type rateWatch struct {
	last          time.Time // of the last event
	images, texts int       // in flight since then
	start         time.Time // of the window
	busy          time.Duration
	area          float64 // seconds in flight, summed over frames
	frames        int
	expect        map[int]float64 // frames in flight, rounded -> frames per second
	slowSince     time.Time       // end of the first slow window of those in a row
	slow          string          // why it is slow; "" when it is not
	current       float64         // of the last window
	total         time.Duration   // in which images were in flight, over all windows
}

// event says that from now on images and texts are in flight, and that done images were
// finished just now.
func (r *rateWatch) event(now time.Time, images, texts, done int) {
	if r.start.IsZero() {
		r.start, r.last = now, now
		r.expect = make(map[int]float64)
	}
	d := now.Sub(r.last)
	if r.images > 0 {
		r.total += d
	}
	if r.images > 0 && r.texts == 0 {
		r.busy += d
		r.area += d.Seconds() * float64(r.images)
		r.frames += done
	}
	r.last, r.images, r.texts = now, images, texts
	if r.frames >= rateFrames && now.Sub(r.start) >= rateWindow {
		r.close(now)
	}
}

// close ends a window and judges it.
func (r *rateWatch) close(now time.Time) {
	busy := r.busy.Seconds()
	frames, inFlight := r.frames, int(math.Round(r.area/busy))
	r.start, r.busy, r.area, r.frames = now, 0, 0, 0
	if busy <= 0 {
		return
	}
	r.current = float64(frames) / busy
	// With more in flight a device is never slower, so the best of fewer is the least to expect.
	expect := 0.0
	for n, rate := range r.expect {
		if n <= inFlight {
			expect = max(expect, rate)
		}
	}
	if _, known := r.expect[inFlight]; !known && r.current >= expect {
		r.expect[inFlight] = r.current
		expect = r.current
	}
	if r.current >= rateSlow*expect {
		r.slowSince, r.slow = time.Time{}, ""
		return
	}
	if r.slowSince.IsZero() {
		r.slowSince = now // and not the start of the window, which may have been idle for hours
	}
	if now.Sub(r.slowSince) >= rateSlowAfter {
		r.slow = fmt.Sprintf("the device encodes %.0f images/s where it did %.0f at first (%d in flight): reboot the host",
			r.current, expect, inFlight)
	}
}

// restart forgets what is in flight, after the loss of a worker, but not what to expect.
func (r *rateWatch) restart() { r.images, r.texts = 0, 0 }
