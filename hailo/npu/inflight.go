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

	threshold int // of the last frame submitted, see wire.Submit
}

// pending is a slot. Its sequence is 0 while it is not in flight.
type pending struct {
	sequence uint64
	group    *group
	number   int // of its frame in the group
}

// group is frames that are submitted together. Between submit and done it is worker.mu's.
type group struct {
	slots   []int
	outputs [][]byte      // the parts of the slots' outputs that will be read
	ends    []end         // of each frame
	left    int           // frames in flight
	alone   time.Time     // when it was submitted, if nothing was in flight then; else zero
	done    chan struct{} // gets a value when none is left
}

// end is how a frame ended: with nil, an ErrEncode or an ErrDeviceLost.
type end struct {
	err error
	run hailo.Run
}

// newGroup makes an empty group. free gives it back, once done has been received or it was not submitted.
func (b *Backend) newGroup() *group {
	if g, ok := b.groups.Get().(*group); ok {
		return g
	}
	return &group{done: make(chan struct{}, 1)}
}

func (b *Backend) free(g *group) {
	clear(g.outputs)
	clear(g.ends)
	g.slots, g.outputs, g.ends, g.alone = g.slots[:0], g.outputs[:0], g.ends[:0], time.Time{}
	b.groups.Put(g)
}

// add appends a frame.
func (g *group) add(slot int, output []byte) {
	g.slots, g.outputs, g.ends = append(g.slots, slot), append(g.outputs, output), append(g.ends, end{})
}

// finish notes the end of the frame in a slot, which is free from here on.
func (p *pending) finish(err error, run hailo.Run) {
	g := p.group
	g.ends[p.number] = end{err, run}
	*p = pending{}
	if g.left--; g.left == 0 {
		g.done <- struct{}{}
	}
}

// runOf is the run that d tells of, else what can be said of a group that ends now: one that was alone has run together.
func (g *group) runOf(now time.Time, d *wire.Done) hailo.Run {
	switch {
	case d.Batch > 0 && d.DeviceNS < uint64(time.Hour):
		return hailo.Run{Frames: int(min(d.Batch, maxRun)), Took: time.Duration(d.DeviceNS)}
	case g.alone.IsZero():
		return hailo.Run{Frames: len(g.slots)}
	}
	return hailo.Run{Frames: len(g.slots), Took: now.Sub(g.alone)}
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
	select {
	case line <- struct{}{}:
		return nil
	default:
	}
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

// submitImages gives a group of images to the device, when there are places for all of them.
func (w *worker) submitImages(ctx context.Context, g *group) error {
	if err := w.await(ctx, w.order); err != nil { // so that none of two groups waits for the places that the other has
		return err
	}
	defer func() { <-w.order }()
	for n := range g.slots {
		if err := w.await(ctx, w.places); err != nil {
			w.leavePlaces(n)
			return err
		}
	}
	err := w.submit(ImageModel, g)
	if err != nil {
		w.leavePlaces(len(g.slots))
	}
	return err
}

func (w *worker) leavePlaces(n int) {
	for range n {
		<-w.places
	}
}

// submit gives a group to the device, one call at a time for each model. With an error nothing was submitted. The outputs are
// cleared, so that an old one never passes for an answer: see written.
func (w *worker) submit(model int, g *group) error {
	n := len(g.slots)
	w.mu.Lock()
	f := &w.inFlight[model]
	if err := w.refuses(f, g.slots); err != nil {
		w.mu.Unlock()
		return err
	}
	now := time.Now()
	g.left = n
	if w.inFlight[ImageModel].n+w.inFlight[TextModel].n == 0 {
		g.alone = now
	}
	if model == ImageModel {
		// A free device begins with all of them. One that works takes what has come by the time it is free: then the threshold
		// only must not be more than that. To change it is a request to the chip, which frames wait for.
		if f.n == 0 {
			f.threshold = n
		}
		f.threshold = min(f.threshold, n)
	}
	m := wire.Submit{Model: uint32(model), Threshold: uint32(f.threshold)}
	first := w.b.sequence.Add(uint64(n)) - uint64(n) + 1
	for i, slot := range g.slots {
		clear(g.outputs[i])
		f.slots[slot] = pending{sequence: first + uint64(i), group: g, number: i}
	}
	if f.n += n; f.n == n {
		f.oldest, f.since = first, now
	}
	w.b.count(now, w, nil)
	slots := append(make([]int, 0, maxRun), g.slots...) // the group may be done before the last message is sent
	w.mu.Unlock()
	for i, slot := range slots {
		m.Slot, m.Sequence = uint32(slot), first+uint64(i)
		if err := w.proc.send(&m); err != nil {
			// The frames count as in flight: they are answered with all others when the worker is gone.
			w.end(err)
			break
		}
	}
	return nil
}

// refuses says why frames cannot be submitted now. The caller holds mu.
func (w *worker) refuses(f *inFlight, slots []int) error {
	switch {
	case w.life.Err() != nil:
		return lost(context.Cause(w.life))
	case w.paused:
		return lost(errTooHot)
	}
	for i, slot := range slots {
		if f.slots[slot].sequence != 0 || slices.Contains(slots[:i], slot) {
			return fmt.Errorf("%w: frame %d is being encoded already", hailo.ErrEncode, slot)
		}
	}
	return nil
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
	f.n--
	now := time.Now()
	w.b.count(now, w, d) // who has the answer finds it counted
	p.finish(resultOf(d.Status), p.group.runOf(now, d))
	if f.oldest == d.Sequence {
		f.advance(now)
	}
	if d.Model == ImageModel {
		w.leavePlace()
	}
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
