package npu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// inFlight is what the device has of one model.
type inFlight struct {
	slots  []pending
	n      int       // slots in flight
	oldest uint64    // sequence
	since  time.Time // when it became the oldest
	failed int       // frames failed in a row
}

// pending is a slot. Its sequence is 0 while it is not in flight.
type pending struct {
	sequence uint64
	result   chan error // gets exactly one for each submit
}

// resultOf turns the status of a frame into an error.
func resultOf(status wire.Code) error {
	switch {
	case status == wire.Success:
		return nil
	case status.DeviceLost():
		return fmt.Errorf("%w: %v", hailo.ErrDeviceLost, status)
	}
	return fmt.Errorf("%w: the device says %v", hailo.ErrEncode, status)
}

// await sends to line, which blocks while that is full. It fails with ErrDeviceLost once the device is lost or has
// stopped because it is too hot.
func (w *worker) await(ctx context.Context, line chan<- struct{}) error {
	w.mu.Lock()
	stopped := w.stopped
	w.mu.Unlock()
	select {
	case line <- struct{}{}:
		return nil
	case <-stopped:
		return lost(errTooHot)
	case <-w.life.Done():
		return lost(context.Cause(w.life))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// submit gives frames to the device, that of outputs[i] from slot first+i, and returns a channel for the result
// of each: nil, an ErrEncode or an ErrDeviceLost. With an error nothing was submitted. outputs are the parts of
// the slots' outputs that the caller will read; they are cleared, so that an old output never passes for an answer: see
// written.
func (w *worker) submit(model, first int, outputs ...[]byte) ([]<-chan error, error) {
	results := make([]<-chan error, len(outputs))
	w.mu.Lock()
	f := &w.inFlight[model]
	slots := f.slots[first : first+len(outputs)]
	var refused error
	switch {
	case w.life.Err() != nil:
		refused = lost(context.Cause(w.life))
	case w.paused:
		refused = lost(errTooHot)
	case slices.ContainsFunc(slots, func(p pending) bool { return p.sequence != 0 }):
		refused = fmt.Errorf("%w: frame %d is being encoded already", hailo.ErrEncode, first)
	}
	if refused != nil {
		w.mu.Unlock()
		return nil, refused
	}
	now := time.Now()
	sequence := w.b.sequence.Add(uint64(len(slots))) - uint64(len(slots)) + 1 // the first of ours
	for i := range slots {
		clear(outputs[i])
		slots[i] = pending{sequence: sequence + uint64(i), result: make(chan error, 1)}
		results[i] = slots[i].result
	}
	if f.n += len(slots); f.n == len(slots) {
		f.oldest, f.since = sequence, now
	}
	w.b.count(now, w, nil)
	w.mu.Unlock()
	for i := range outputs {
		m := &wire.Submit{Model: uint32(model), Slot: uint32(first + i), Sequence: sequence + uint64(i)}
		if err := w.proc.send(m); err != nil {
			// The frames count as in flight: they are answered with all others when the worker is gone.
			w.end(err)
			break
		}
	}
	return results, nil
}

// written says whether the device has written to an output that submit has cleared. No embedding is all
// zero bytes: as FLOAT32 it has no direction, and quantised every number of it would be the least there is.
func written(out []byte) error {
	if slices.ContainsFunc(out, func(b byte) bool { return b != 0 }) {
		return nil
	}
	return fmt.Errorf("%w: the device says that it is done, and has written nothing", hailo.ErrEncode)
}

// complete handles the end of a frame. An error means that the worker must be replaced.
func (w *worker) complete(d *wire.Done) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.Model >= models || int64(d.Slot) >= int64(len(w.inFlight[d.Model].slots)) {
		return fmt.Errorf("%w: done for model %d, slot %d", wire.ErrProtocol, d.Model, d.Slot)
	}
	f := &w.inFlight[d.Model]
	p := &f.slots[d.Slot]
	if p.sequence == 0 && w.life.Err() != nil {
		return nil // answered already, with that reason
	}
	if p.sequence == 0 || p.sequence != d.Sequence {
		return fmt.Errorf("%w: done for model %d, slot %d, sequence %d, in flight is %d (0: nothing)",
			wire.ErrProtocol, d.Model, d.Slot, d.Sequence, p.sequence)
	}
	p.sequence = 0
	f.n--
	now := time.Now()
	if f.oldest == d.Sequence {
		f.advance(now)
	}
	if d.Model == ImageModel {
		w.leavePlace()
	}
	w.b.count(now, w, d)
	p.result <- resultOf(d.Status)
	w.changed.Broadcast()
	if d.Status == wire.Success {
		w.done++
		w.answered = now
		f.failed = 0
		return nil
	}
	f.failed++
	if f.failed >= maxFailures || d.Status.DeviceLost() {
		return fmt.Errorf("%d frames of model %d failed in a row, the last with %v", f.failed, d.Model, d.Status)
	}
	return nil
}

// advance finds the oldest frame in flight.
func (f *inFlight) advance(now time.Time) {
	f.oldest, f.since = 0, now
	for _, p := range f.slots {
		if p.sequence != 0 && (f.oldest == 0 || p.sequence < f.oldest) {
			f.oldest = p.sequence
		}
	}
}

// waitImages waits until the images submitted up to a sequence are done, or the worker is lost.
func (w *worker) waitImages(upTo uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := &w.inFlight[ImageModel]; f.n > 0 && f.oldest <= upTo && w.life.Err() == nil; {
		w.changed.Wait()
	}
}

var (
	errNoAnswer = errors.New("no answer from the device")
	errTooHot   = errors.New("the device has stopped because it is too hot")
)

// overdue returns an error if the device hangs or has lost a frame: the oldest frame of each model has to be done
// within the limit of becoming the oldest. A device that has stopped because of its heat may keep frames no longer than
// that either, since callers may have another encoder. With none in flight it may take as long as it needs, while its
// worker goes on sending statistics.
func (w *worker) overdue(now time.Time, limit time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused {
		switch silent := now.Sub(w.heard); {
		case now.Sub(w.pausedAt) > limit && w.inFlight[ImageModel].n+w.inFlight[TextModel].n > 0:
			return errTooHot
		case silent > statsLate+limit:
			return fmt.Errorf("%w, and its worker has said nothing for %v", errTooHot, silent.Round(time.Second))
		}
		return nil
	}
	for model, f := range w.inFlight {
		if f.n > 0 && now.Sub(f.since) > limit {
			return fmt.Errorf("%w for %v, %d frames of model %d in flight", errNoAnswer, limit, f.n, model)
		}
	}
	return nil
}

// setStats keeps the device's state, and lets less in flight while it is hot. A CRC error of the NN core
// ends the worker: what the device computes cannot be trusted any more.
func (w *worker) setStats(stats *wire.Stats) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.stats, w.heard = *stats, now
	if t := stats.Temperature[0]; t == t { // not NaN
		w.answered = now
	}
	if stats.CRCErrors > 0 {
		return fmt.Errorf("the device reports %d CRC errors of its NN core", stats.CRCErrors)
	}
	switch {
	case stats.Throttling >= throttlingStopped && !w.paused:
		w.paused, w.pausedAt = true, now
		close(w.stopped) // whoever waits for a place
	case stats.Throttling == 0 && w.paused:
		w.paused, w.stopped = false, make(chan struct{})
		for i := range w.inFlight { // what was in flight goes on only now
			w.inFlight[i].since = now
		}
	}
	if stats.Throttling < throttlingShrink {
		for ; w.withheld > 0; w.withheld-- {
			<-w.places
		}
	}
	return nil
}

// leavePlace frees the place of an image that is done, or withholds it while the device is hot:
// then one batch is in flight instead of several.
func (w *worker) leavePlace() {
	if w.stats.Throttling >= throttlingShrink && w.withheld < cap(w.places)-w.b.opt.BatchSize {
		w.withheld++
		return
	}
	<-w.places
}
