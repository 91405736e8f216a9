package hailo

import (
	"context"
	"errors"
	"fmt"
)

// Failover encodes with one backend and, while that has lost its device, with another. Who
// caches embeddings of texts asks each backend by itself instead, because vectors of two text
// encoders must not mix.
type Failover struct {
	Backend         // the first, which also owns the frames
	second  Backend // reads pixels from any memory
}

// NewFailover makes one of two backends of the same image size and dimension. It does not own
// the second one: the caller closes that after it.
func NewFailover(first, second Backend) *Failover { return &Failover{Backend: first, second: second} }

// Info is the first backend's, but for the calls at once: when as many as the first takes are stuck
// in it, there are still those that keep the second one busy.
func (f *Failover) Info() Info {
	info := f.Backend.Info()
	info.ImageCalls += f.second.Info().ImageCalls
	return info
}

// EncodeImages tries the first backend, unless that is known to be lost, then the second.
func (f *Failover) EncodeImages(ctx context.Context, frames []*Frame) error {
	if f.Backend.Status().Ready {
		if err := f.Backend.EncodeImages(ctx, frames); !errors.Is(err, ErrDeviceLost) {
			return err
		}
	}
	for batch := f.second.Info().ImageBatch; len(frames) > 0; {
		n := min(batch, len(frames))
		if err := f.second.EncodeImages(ctx, frames[:n]); err != nil {
			return err
		}
		frames = frames[n:]
	}
	return nil
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
