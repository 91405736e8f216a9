package hailo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Failover encodes with one backend and, while that has lost its device, with another. Who
// caches embeddings of texts asks each backend by itself instead, because vectors of two text
// encoders must not mix.
type Failover struct {
	Backend             // the first, which also owns the frames
	second      Backend // reads pixels from any memory
	batch, most int     // frames in a call of the second, calls at once

	mu      sync.Mutex
	waiting []*standInCall
	calls   int // of the second that are under way
}

// standInCall is a call of EncodeImages that the second backend is to serve.
type standInCall struct {
	frames []*Frame
	done   chan error
}

// NewFailover makes one of two backends of the same image size and dimension. It does not own
// the second one: the caller closes that after it.
func NewFailover(first, second Backend) *Failover {
	info := second.Info()
	return &Failover{Backend: first, second: second, batch: info.ImageBatch, most: info.ImageCalls}
}

// Info is the first backend's, but for the calls at once: when as many as the first takes are stuck
// in it, there are still those that fill the batches of the second one.
func (f *Failover) Info() Info {
	info := f.Backend.Info()
	info.ImageCalls += f.most * f.batch
	return info
}

// EncodeImages tries the first backend, unless that is known to be lost, then the second: for that it gathers
// the calls that wait, so that the second one gets batches of its own size, as many at once as keep it busy.
func (f *Failover) EncodeImages(ctx context.Context, frames []*Frame) error {
	if f.Backend.Status().Ready {
		if err := f.Backend.EncodeImages(ctx, frames); !errors.Is(err, ErrDeviceLost) {
			return err
		}
	}
	for part := range slices.Chunk(frames, f.batch) {
		if err := f.standIn(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// standIn waits until the second backend has encoded the frames, or ctx ends before it has begun.
func (f *Failover) standIn(ctx context.Context, frames []*Frame) error {
	c := &standInCall{frames: frames, done: make(chan error, 1)}
	f.mu.Lock()
	f.waiting = append(f.waiting, c)
	if f.calls < f.most {
		f.calls++
		go f.encodeWaiting()
	}
	f.mu.Unlock()
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
	}
	f.mu.Lock()
	i := slices.Index(f.waiting, c)
	if i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
	}
	f.mu.Unlock()
	if i < 0 { // it has begun: the frames are not the caller's yet
		return <-c.done
	}
	return context.Cause(ctx)
}

// encodeWaiting has the second backend encode one batch after the other, until nothing waits. A batch outlives
// the contexts of its calls, which is no longer than it takes.
func (f *Failover) encodeWaiting() {
	for {
		var calls []*standInCall
		var frames []*Frame
		f.mu.Lock()
		for _, c := range f.waiting {
			if len(frames)+len(c.frames) > f.batch {
				break
			}
			calls, frames = append(calls, c), append(frames, c.frames...)
		}
		f.waiting = slices.Delete(f.waiting, 0, len(calls))
		if len(calls) == 0 {
			f.calls--
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		err := f.second.EncodeImages(context.Background(), frames)
		alone := len(calls) > 1 && errors.Is(err, ErrEncode) // one bad frame fails alone
		for _, c := range calls {
			if alone {
				err = f.second.EncodeImages(context.Background(), c.frames)
			}
			c.done <- err
		}
	}
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
	return Status{Ready: true, Degraded: true,
		Reason: fmt.Sprintf("encoding on the %s: %s", f.second.Info().Backend, first.Reason)}
}
