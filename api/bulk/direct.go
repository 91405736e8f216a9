package bulk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Embed makes the vector of an image, or the matches where that is what it is for. It blocks, is called for several images at
// once, and only reads the image. An error that wraps ErrImage is the image's own.
type Embed func(ctx context.Context, image []byte) ([]float32, []Match, error)

// Direct is an encoder that calls a function for each image, as many at once as it may. What fails for another reason than the image
// is tried again after a pause. When that does not help either, it is the image's error until the next run if others were encoded in
// the meantime; else nothing works any more, and Send fails.
type Direct struct {
	model, digest string
	embed         Embed
	room          chan struct{} // holds a value for each image under way
	results       chan Result
	pauses        []time.Duration

	ctx     context.Context // ends with Close, or when nothing works any more
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	encoded atomic.Uint64
}

// NewDirect returns an encoder that calls embed for atOnce images at a time.
func NewDirect(model, digest string, atOnce int, embed Embed) *Direct {
	d := &Direct{
		model: model, digest: digest, embed: embed, room: make(chan struct{}, atOnce), results: make(chan Result, 1024),
		pauses: []time.Duration{250 * time.Millisecond, time.Second, 4 * time.Second, 10 * time.Second, 30 * time.Second},
	}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	return d
}

// Model implements Encoder.
func (d *Direct) Model() string { return d.model }

// Digest implements Encoder.
func (d *Direct) Digest() string { return d.digest }

// Results implements Encoder.
func (d *Direct) Results() <-chan Result { return d.results }

// Idle implements Encoder.
func (d *Direct) Idle(context.Context) (bool, error) {
	return len(d.room) == 0 && len(d.results) == 0, nil // a place in room is left after the result is there
}

// Send implements Encoder. It must not be called after Close.
func (d *Direct) Send(ctx context.Context, key string, image []byte) error {
	select {
	case d.room <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.ctx.Done():
	}
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	d.running.Go(func() {
		defer func() { <-d.room }()
		if r, err := d.encode(key, image); err != nil {
			d.cancel(err)
		} else {
			select {
			case d.results <- r:
			case <-d.ctx.Done():
			}
		}
	})
	return nil
}

func (d *Direct) encode(key string, image []byte) (Result, error) {
	before := d.encoded.Load()
	for try := 0; ; try++ {
		vector, matches, err := d.once(image)
		switch {
		case err == nil:
			d.encoded.Add(1)
			return Result{Key: key, Vector: vector, Matches: matches}, nil
		case errors.Is(err, ErrImage):
			return Result{Key: key, Error: err.Error()}, nil
		case d.ctx.Err() != nil:
			return Result{}, context.Cause(d.ctx)
		case try == len(d.pauses) && d.encoded.Load() != before:
			return Result{Key: key, Error: fmt.Sprintf("failed %d times: %v", try+1, err), Again: true}, nil
		case try == len(d.pauses):
			return Result{}, fmt.Errorf("nothing can be encoded any more: %w", err)
		}
		timer := time.NewTimer(d.pauses[try])
		select {
		case <-timer.C:
		case <-d.ctx.Done():
			timer.Stop()
			return Result{}, context.Cause(d.ctx)
		}
	}
}

// once calls embed; a panic is the image's error.
func (d *Direct) once(image []byte) (vector []float32, matches []Match, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: panic: %v", ErrImage, v)
		}
	}()
	return d.embed(d.ctx, image)
}

// errClosed is what Send returns after Close.
var errClosed = errors.New("the encoder is closed")

// Close implements Encoder. What is under way is given up.
func (d *Direct) Close(context.Context) error {
	d.cancel(errClosed)
	d.running.Wait()
	close(d.results)
	return nil
}
