package hailo

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Failover encodes with one backend and, while that has lost its device, with another. A cache of text embeddings
// must not use it: vectors of two text encoders do not mix, so it asks each backend by itself.
type Failover struct {
	Backend         // the first, which also owns the frames
	second  Backend // reads pixels from any memory

	turns chan struct{}     // holds one for each call of the second for images; its capacity is the limit
	joins chan *standInCall // hands a call to another one that is about to begin
}

// standInCall is one frame for the second backend.
type standInCall struct {
	frame *Frame
	done  chan error
}

// NewFailover makes one of two backends of the same image size and dimension. It does not own
// the second one: the caller closes that after it.
func NewFailover(first, second Backend) *Failover {
	turns := make(chan struct{}, second.Info().ImageCalls)
	return &Failover{Backend: first, second: second, turns: turns, joins: make(chan *standInCall)}
}

// Info is the first backend's, with more ImageCalls: as many as the first takes may hang in it, and there must still be
// enough to fill the batches of the second one.
func (f *Failover) Info() Info {
	info, second := f.Backend.Info(), f.second.Info()
	more := second.ImageCalls * second.ImageBatch // of one frame
	if info.Gathers {
		more = (more + info.ImageBatch - 1) / info.ImageBatch
	}
	info.ImageCalls += more
	return info
}

// EncodeImages tries the first backend, unless that is known to be lost, then the second. It gathers calls that wait
// for the second one into batches of that one's size, and makes as many calls at once as keep it busy.
func (f *Failover) EncodeImages(ctx context.Context, frames []*Frame) error {
	if f.Backend.Status().Ready {
		if err := f.Backend.EncodeImages(ctx, frames); !errors.Is(err, ErrDeviceLost) {
			return err
		}
	}
	for _, frame := range frames {
		frame.Run = Run{}
	}
	for part := range slices.Chunk(frames, f.second.Info().ImageBatch) {
		if err := f.standIn(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// standIn encodes a batch with the second backend as soon as that is free, together with single frames of other calls
// that wait. A batch of several calls is not ended by their contexts: they return when it is done.
func (f *Failover) standIn(ctx context.Context, frames []*Frame) error {
	joins, own := f.joins, &standInCall{frames[0], make(chan error, 1)}
	if len(frames) > 1 {
		joins = nil
	}
	select {
	case joins <- own:
		return <-own.done
	case f.turns <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-f.turns }()
	var joined []*standInCall
	batch := slices.Clone(frames)
	for len(batch) < f.second.Info().ImageBatch {
		select {
		case c := <-f.joins:
			joined, batch = append(joined, c), append(batch, c.frame)
			continue
		default:
		}
		break
	}
	if len(joined) == 0 {
		return f.second.EncodeImages(ctx, frames)
	}
	defer func() { // of those whom a panic has left without an answer
		for _, c := range joined {
			c.done <- fmt.Errorf("%w: panic in the call that took this frame along", ErrEncode)
		}
	}()
	ctx = context.WithoutCancel(ctx)
	err := f.second.EncodeImages(ctx, batch)
	alone := errors.Is(err, ErrEncode) // one bad frame fails alone
	for len(joined) > 0 {
		c, own := joined[0], err
		if alone {
			own = f.second.EncodeImages(ctx, []*Frame{c.frame})
		}
		c.done <- own
		joined = joined[1:]
	}
	if alone {
		return f.second.EncodeImages(ctx, frames)
	}
	return err
}

// EncodeTexts tries the first backend, unless that is known to be lost, then the second.
func (f *Failover) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	if f.Backend.Status().Ready {
		if vectors, err := f.Backend.EncodeTexts(ctx, tokens); !errors.Is(err, ErrDeviceLost) {
			return vectors, err
		}
	}
	return f.second.EncodeTexts(ctx, tokens)
}

// StandingIn says that the second backend encodes now, because the first one has lost its device.
func (f *Failover) StandingIn() bool { return !f.Backend.Status().Ready && f.second.Status().Ready }

// Status is the first backend's while that is ready, else the second's, degraded.
func (f *Failover) Status() Status {
	first := f.Backend.Status()
	if first.Ready {
		return first
	}
	second := f.second.Status()
	if !second.Ready {
		return first
	}
	return Status{Ready: true, Degraded: true, Why: func() string {
		return fmt.Sprintf("encoding on the %s: %s", f.second.Info().Backend, first.Reason())
	}}
}
