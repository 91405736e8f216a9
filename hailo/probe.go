package hailo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// probeTimeout is how long one probe may take. An encoder that needs longer is of no use.
const probeTimeout = 10 * time.Second

// probeRetry is how soon a probe that failed is tried again: until then nothing is served.
const probeRetry = 2 * time.Second

// probeCosine is how far the embedding of the known image may turn away from the first one: a
// quantised encoder gives the same vector each time, a second backend nearly the same.
const probeCosine = 0.9

// Probe wraps a backend so that its Status cannot lie: a known image and text are encoded at the
// start and again whenever nothing was encoded for an interval. While that fails, or gives
// other vectors than the first time, the backend is not ready.
type Probe struct {
	Backend
	texts    Backend // encodes the known text
	tokens   []int32
	interval time.Duration
	log      *slog.Logger

	encoded atomic.Int64          // calls that succeeded; a probe is needed only where there are none
	failure atomic.Pointer[error] // of the last probe; nil: it succeeded

	image []float32 // what the known image was encoded to first
	text  []float32

	stop  context.CancelFunc
	ended sync.WaitGroup
}

// NewProbe probes b times times (at least once), and then every interval without other work;
// 0 is never. tokens is a known text for texts, which may be b. It blocks until the first probes
// are done and returns their error, but for a device that is not there yet: that is probed when
// it comes, and is not ready until then. Probing does not own the backends: close the Probe first.
func NewProbe(ctx context.Context, b, texts Backend, tokens []int32, interval time.Duration, times int, log *slog.Logger) (*Probe, error) {
	p := &Probe{Backend: b, texts: texts, tokens: tokens, interval: interval, log: log}
	for range max(times, 1) {
		err := p.probe(ctx)
		if errors.Is(err, ErrDeviceLost) {
			p.failure.Store(&err)
			break
		}
		if err != nil {
			return nil, fmt.Errorf("probe of the encoder: %w", err)
		}
	}
	ctx, p.stop = context.WithCancel(context.Background())
	if interval > 0 || p.failure.Load() != nil {
		p.ended.Go(func() { p.watch(ctx) })
	}
	return p, nil
}

// EncodeImages is the backend's; a success shows that no probe is needed.
func (p *Probe) EncodeImages(ctx context.Context, frames []*Frame) error {
	err := p.Backend.EncodeImages(ctx, frames)
	if err == nil {
		p.encoded.Add(1)
	}
	return err
}

// EncodeTexts is the backend's; a success shows that no probe is needed.
func (p *Probe) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	vectors, err := p.Backend.EncodeTexts(ctx, tokens)
	if err == nil {
		p.encoded.Add(1)
	}
	return vectors, err
}

// Status is the backend's, and not ready while the last probe failed.
func (p *Probe) Status() Status {
	s := p.Backend.Status()
	if err := p.failure.Load(); err != nil && s.Ready {
		return Status{Reason: fmt.Sprintf("the encoder fails its probe: %v", *err)}
	}
	return s
}

// Close ends the probing; the backend stays open.
func (p *Probe) Close() error {
	p.stop()
	p.ended.Wait()
	return nil
}

func (p *Probe) watch(ctx context.Context) {
	seen := int64(0)
	for {
		wait := p.interval
		if p.failure.Load() != nil {
			wait = probeRetry
		} else if wait == 0 {
			return // it is not to be probed again
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if n := p.encoded.Load(); n != seen && p.failure.Load() == nil {
			seen = n
			continue // busy, and working
		}
		err := p.probe(ctx)
		if errors.Is(err, ErrDeviceLost) && p.failure.Load() == nil {
			continue // the backend says so itself, and when that is over
		}
		seen = p.encoded.Load()
		if ctx.Err() != nil {
			return
		}
		was := p.failure.Load()
		switch {
		case err != nil && was == nil:
			p.log.Error("the encoder fails its probe", "error", err)
		case err == nil && was != nil:
			p.log.Info("the encoder passes its probe again")
		}
		if err == nil {
			p.failure.Store(nil)
		} else {
			p.failure.Store(&err)
		}
	}
}

// probe encodes the known image and text once and compares.
func (p *Probe) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	frame, err := p.Frames().Get(ctx)
	if err != nil {
		return fmt.Errorf("no free frame: %w", err)
	}
	defer frame.Release()
	for i := range frame.Pixels {
		frame.Pixels[i] = byte(i / 3) // a grey ramp, row after row
	}
	if err := p.Backend.EncodeImages(ctx, []*Frame{frame}); err != nil {
		return err
	}
	if p.image, err = agree("image", p.image, frame.Embedding); err != nil {
		return err
	}
	if p.tokens == nil {
		return nil
	}
	vectors, err := p.texts.EncodeTexts(ctx, [][]int32{p.tokens})
	if err != nil {
		return err
	}
	p.text, err = agree("text", p.text, vectors[0])
	return err
}

// agree compares an embedding with the first one, which it returns.
func agree(what string, first, now []float32) ([]float32, error) {
	if first == nil {
		return append(first, now...), nil
	}
	var dot float64
	for i := range first {
		dot += float64(first[i]) * float64(now[i])
	}
	if !(dot >= probeCosine) {
		return first, fmt.Errorf("%w: the known %s has cosine %.3f with its first embedding", ErrEncode, what, dot)
	}
	return first, nil
}
