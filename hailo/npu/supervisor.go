package npu

import (
	"context"
	"errors"
	"time"
)

// supervise keeps a worker running until ctx ends.
func (b *Backend) supervise(ctx context.Context) {
	said := "" // the last failure that was logged
	steps := 0 // of the back-off
	for ctx.Err() == nil {
		start := time.Now()
		w, err := b.startWorker(ctx)
		if err == nil {
			b.opt.Log.Info("npu: ready", "device", w.device(), "after", time.Since(start).Round(time.Millisecond))
			b.install(w)
			err = w.serve(ctx)
		}
		steps = b.uninstall(w, err, steps+1)
		if ctx.Err() != nil {
			return
		}
		wait := backOff(steps)
		// The same failure for days is one line, not one every 20 seconds.
		if w != nil || err.Error() != said {
			b.opt.Log.Error("npu: no device", "reason", err, "next_start_in", wait)
			said = err.Error()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// backOff is how long to wait before the next start: nothing after a worker that was well, then
// twice as long with each step.
func backOff(steps int) time.Duration {
	if steps == 0 {
		return 0
	}
	return min(firstBackOff<<min(steps-1, slowSteps), slowBackOff)
}

func (b *Backend) install(w *worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.info.Device = w.device()
	b.stderr.ready()
	b.current.Store(w)
	close(b.changed)
	b.changed = make(chan struct{})
}

// uninstall records that a worker has ended, or (w is nil) could not be started, and
// bounds the steps of the back-off.
func (b *Backend) uninstall(w *worker, err error, steps int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current.Store(nil)
	b.rate.restart()
	b.last = err
	b.failures++
	if w == nil {
		return steps
	}
	b.lostAt = time.Now()
	b.restarts++
	if w.done > 0 { // it has ended: nobody else touches it
		b.failures = 0
	}
	return stepsAfter(steps, b.lostAt.Sub(w.opened), w.done, err)
}

// stepsAfter bounds the steps of the back-off by what the lost worker was good for. A few frames are
// not enough to start the next one at once: a device that dies of its second frame would be opened
// without end.
func stepsAfter(steps int, lived time.Duration, done uint64, why error) int {
	switch {
	case errors.Is(why, errTooHot):
		return slowSteps // the next worker is not told of the heat before it changes
	case lived >= unsettled:
		return 0
	case done >= hardWork:
		return min(steps, hardSteps)
	case done > 0:
		return min(steps, workSteps)
	}
	return steps
}
