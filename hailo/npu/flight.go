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

// lane is what is in flight for one model.
type lane struct {
	flights []flight  // by slot
	n       int       // in flight
	head    uint64    // the oldest sequence in flight
	since   time.Time // when it became the oldest
	failed  int       // frames failed in a row
}

// flight is a slot. Its sequence is 0 while it is not in flight.
type flight struct {
	sequence uint64
	result   chan result // gets exactly one result for each submit
}

type result struct {
	status wire.Code
	err    error // the session ended: an ErrDeviceLost
}

// check turns a result into an error.
func (r result) check() error {
	switch {
	case r.err != nil:
		return r.err
	case r.status.DeviceLost():
		return fmt.Errorf("%w: %v", hailo.ErrDeviceLost, r.status)
	case r.status != wire.Success:
		return fmt.Errorf("%w: the device says %v", hailo.ErrEncode, r.status)
	}
	return nil
}

// submit gives a slot to the device, and returns the channel that gets its result. With an error nothing
// was submitted. out is the part of the slot's output that the caller will read; it is cleared, so that
// what was there before shows through no answer: see written. Images wait here for their turn when enough are in flight, but not
// for a device that has stopped for the heat.
func (s *session) submit(ctx context.Context, model, slot int, out []byte) (<-chan result, error) {
	if model == ImageModel {
		s.mu.Lock()
		stopped := s.stopped
		s.mu.Unlock()
		select {
		case s.tokens <- struct{}{}:
		case <-stopped:
			return nil, lost(errTooHot)
		case <-s.dead:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s.mu.Lock()
	l := &s.lines[model]
	f := &l.flights[slot]
	switch {
	case s.reason != nil:
		err := lost(s.reason)
		s.mu.Unlock()
		return nil, err
	case s.paused, f.sequence != 0:
		if model == ImageModel {
			<-s.tokens
		}
		hot := s.paused
		s.mu.Unlock()
		if hot {
			return nil, lost(errTooHot)
		}
		return nil, fmt.Errorf("%w: frame %d is being encoded already", hailo.ErrEncode, slot)
	}
	clear(out)
	now := time.Now()
	f.sequence = s.b.sequence.Add(1)
	if l.n++; l.n == 1 {
		l.head, l.since = f.sequence, now
	}
	s.b.noteRate(now, s, 0)
	m := &wire.Submit{Model: uint32(model), Slot: uint32(slot), Sequence: f.sequence}
	s.mu.Unlock()
	if err := s.proc.send(m); err != nil {
		// The frame counts as in flight: it is answered with all others when the worker is gone.
		s.end(fmt.Errorf("%w: %w", errSocket, err))
	}
	return f.result, nil
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
func (s *session) complete(d *wire.Done) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Model >= models || int64(d.Slot) >= int64(len(s.lines[d.Model].flights)) {
		return fmt.Errorf("%w: done for model %d, slot %d", wire.ErrProtocol, d.Model, d.Slot)
	}
	l := &s.lines[d.Model]
	f := &l.flights[d.Slot]
	if f.sequence == 0 && s.reason != nil {
		return nil // answered already, with that reason
	}
	if f.sequence == 0 || f.sequence != d.Sequence {
		return fmt.Errorf("%w: done for model %d, slot %d, sequence %d, in flight is %d (0: nothing)",
			wire.ErrProtocol, d.Model, d.Slot, d.Sequence, f.sequence)
	}
	f.sequence = 0
	l.n--
	now := time.Now()
	if l.head == d.Sequence {
		l.advance(now)
	}
	images := 0
	if d.Model == ImageModel {
		images = 1
		s.giveBack()
	}
	s.b.noteRate(now, s, images)
	s.b.noteDone(d)
	f.result <- result{status: d.Status}
	s.changed.Broadcast()
	if d.Status == wire.Success {
		s.done++
		s.answered = now
		l.failed = 0
		return nil
	}
	l.failed++
	if l.failed >= maxFailures || d.Status.DeviceLost() {
		return fmt.Errorf("%d frames of model %d failed in a row, the last with %v", l.failed, d.Model, d.Status)
	}
	return nil
}

// advance finds the oldest frame in flight.
func (l *lane) advance(now time.Time) {
	l.head, l.since = 0, now
	for _, f := range l.flights {
		if f.sequence != 0 && (l.head == 0 || f.sequence < l.head) {
			l.head = f.sequence
		}
	}
}

var errNoAnswer = errors.New("no answer from the device")

// overdue says whether the device hangs or has lost a frame: the oldest frame of each model
// has to be done within the limit of becoming the oldest. A device that has stopped for the heat may
// keep frames for as long, since whoever waits for them may have another encoder. With none in flight
// it has as long as it needs, if only its worker goes on saying so.
func (s *session) overdue(now time.Time, limit time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		switch hot := now.Sub(s.pausedAt); {
		case hot > limit && s.lines[ImageModel].n+s.lines[TextModel].n > 0:
			return errTooHot
		case now.Sub(s.heard) > statsLate+limit:
			return fmt.Errorf("%w, and its worker has said nothing for %v", errTooHot, now.Sub(s.heard).Round(time.Second))
		}
		return nil
	}
	for model, l := range s.lines {
		if l.n > 0 && now.Sub(l.since) > limit {
			return fmt.Errorf("%w for %v, %d frames of model %d in flight", errNoAnswer, limit, l.n, model)
		}
	}
	return nil
}

// note keeps the device's state, and lets less in flight while it is hot. A CRC error of the NN core
// ends the session: what the device computes cannot be trusted any more.
func (s *session) note(stats *wire.Stats) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.stats, s.heard = *stats, now
	if t := stats.Temperature[0]; t == t { // not NaN
		s.answered = now
	}
	if stats.CRCErrors > 0 {
		return fmt.Errorf("the device reports %d CRC errors of its NN core", stats.CRCErrors)
	}
	switch {
	case stats.Throttling >= throttlingStopped && !s.paused:
		s.paused, s.pausedAt = true, now
		close(s.stopped) // whoever waits for a turn
		s.b.texts.fail(lost(errTooHot))
	case stats.Throttling == 0 && s.paused:
		s.paused, s.stopped = false, make(chan struct{})
		for i := range s.lines { // what was in flight goes on only now
			s.lines[i].since = now
		}
	}
	if stats.Throttling < throttlingShrink {
		for ; s.withheld > 0; s.withheld-- {
			<-s.tokens
		}
	}
	return nil
}

// giveBack frees the place of an image that is done, or withholds it while the device is hot:
// then one batch is in flight instead of several.
func (s *session) giveBack() {
	if s.stats.Throttling >= throttlingShrink && s.withheld < cap(s.tokens)-s.b.opt.BatchSize {
		s.withheld++
		return
	}
	<-s.tokens
}

// waitImages waits until the images submitted up to a sequence are done, or the session is dead.
func (s *session) waitImages(upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := &s.lines[ImageModel]; l.n > 0 && l.head <= upTo && s.reason == nil; {
		s.changed.Wait()
	}
}
