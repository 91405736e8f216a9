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
const probeRetry = 500 * time.Millisecond

// How often the backend's state is looked at: whether it was started again, and whether it is there.
const (
	probeLook = time.Second
	probeSoon = 50 * time.Millisecond // while it is away, or fails
)

// errNoVerdict marks a probe that never reached the device, and so says nothing about it.
var errNoVerdict = errors.New("the probe was not made")

// probeCosine is how far the embedding of the known image may turn away from the first one: a
// quantised encoder gives the same vector each time, another encoder of the texts nearly the same.
const probeCosine = 0.9

// Probe wraps a backend so that its Status cannot lie: a known image and text are encoded at the
// start, after every restart, after a failed frame, and whenever nothing was encoded for an interval.
// While that fails (twice in a row, where it is a frame that failed), or gives other vectors than the first
// time, the backend is not ready, and every call for images or texts fails with ErrDeviceLost, so that callers turn to
// another encoder; also if only the texts of the probe fail. It has to wrap the device itself and not a Failover, which
// would hide what is wrong.
type Probe struct {
	Backend
	texts    Backend // encodes the known text
	tokens   []int32
	interval time.Duration
	log      *slog.Logger

	begin   time.Time
	worked  atomic.Int64          // ns from begin to the last success; a probe is needed only where there is none
	passed  atomic.Int64          // Status.Restarts at the last probe that succeeded; -1: none yet
	failure atomic.Pointer[error] // of the last probe; nil: it succeeded
	suspect chan struct{}         // filled by a frame that failed, and by who asks for a device that was not probed yet

	image []float32 // what the known image was encoded to first
	text  []float32

	stop  context.CancelFunc
	ended sync.WaitGroup
}

// NewProbe probes b times times (at least once), and then after each restart and every interval
// without other work; 0 is never for the latter. tokens is a known text for texts, which may be b.
// It blocks until the first probes are done and returns their error, but for a device that is not
// there yet: that is probed when it comes, and is not ready until then. Probing does not own the
// backends: close the Probe first.
func NewProbe(ctx context.Context, b, texts Backend, tokens []int32, interval time.Duration, times int, log *slog.Logger) (*Probe, error) {
	p := &Probe{Backend: b, texts: texts, tokens: tokens, interval: interval, log: log,
		begin: time.Now(), suspect: make(chan struct{}, 1)}
	p.passed.Store(-1)
	restarts := b.Status().Restarts
	for range max(times, 1) {
		err := p.probe(ctx, true)
		if err != nil && !errors.Is(err, ErrDeviceLost) {
			return nil, fmt.Errorf("probe of the encoder: %w", err)
		}
		p.record(restarts, err)
		if err != nil {
			break
		}
	}
	ctx, p.stop = context.WithCancel(context.Background())
	p.ended.Go(func() { p.watch(ctx) })
	return p, nil //nolint:nilerr // a device that is not there yet is recorded, and probed when it comes
}

// EncodeImages is the backend's, while that passes its probes.
func (p *Probe) EncodeImages(ctx context.Context, frames []*Frame) error {
	return p.guard(func() error { return p.Backend.EncodeImages(ctx, frames) })
}

// EncodeTexts is the backend's, while that passes its probes.
func (p *Probe) EncodeTexts(ctx context.Context, tokens [][]int32) (vectors [][]float32, err error) {
	err = p.guard(func() error {
		vectors, err = p.Backend.EncodeTexts(ctx, tokens)
		return err
	})
	return vectors, err
}

// guard makes a call. Its success stands for a probe; its failure asks for one.
func (p *Probe) guard(call func() error) error {
	if err := p.failing(); err != nil {
		return fmt.Errorf("%w: %w", ErrDeviceLost, err)
	}
	err := call()
	switch {
	case err == nil:
		p.worked.Store(int64(time.Since(p.begin)))
	case errors.Is(err, ErrEncode), errors.Is(err, ErrDeviceLost):
		p.wake()
	}
	return err
}

// wake has watch look at once.
func (p *Probe) wake() {
	select {
	case p.suspect <- struct{}{}:
	default:
	}
}

// failing is why the last probe failed, nil if it did not.
func (p *Probe) failing() error { return failing(p.failure.Load()) }

func failing(err *error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the encoder fails its probe: %w", *err)
}

// Status is the backend's, and not ready while the last probe failed or a restarted device was
// not probed yet.
func (p *Probe) Status() Status {
	s := p.Backend.Status()
	if !s.Ready {
		return s
	}
	if err := p.failure.Load(); err != nil {
		return Status{Restarts: s.Restarts, Why: func() string { return failing(err).Error() }}
	}
	if p.passed.Load() != int64(s.Restarts) {
		p.wake() // somebody waits for it
		return Status{Restarts: s.Restarts, Why: Because("the encoder was restarted and has not passed its probe yet")}
	}
	return s
}

// Close ends the probing; the backend stays open.
func (p *Probe) Close() error {
	p.stop()
	p.ended.Wait()
	return nil
}

// watch probes when there is a reason to, until ctx ends.
func (p *Probe) watch(ctx context.Context) {
	last, tried := time.Now(), int(p.passed.Load()) // of the last probe: when, and Status.Restarts
	wait, suspect := time.Duration(0), false
	for {
		select {
		case <-time.After(wait):
		case <-p.suspect:
			suspect = true
		case <-ctx.Done():
			return
		}
		s := p.Backend.Status()
		wait = probeLook
		if !s.Ready {
			wait = probeSoon // it says so itself, and when that is over
			continue
		}
		rested, idle := time.Since(last), time.Since(p.begin)-time.Duration(p.worked.Load())
		resting := false
		switch {
		case s.Restarts != tried:
		case suspect, p.failure.Load() != nil:
			// Not at once after the last probe: a device that fails one frame in ten would do nothing but that.
			if rested < probeRetry {
				wait = probeSoon // and see whether it is another one by then
				continue
			}
		case p.interval > 0 && idle >= p.interval && rested >= p.interval:
			resting = true
		default:
			continue
		}
		// Another frame that fails from here on is another reason.
		suspect = false
		select {
		case <-p.suspect:
		default:
		}
		last, tried, wait = time.Now(), s.Restarts, probeSoon
		err := p.probe(ctx, resting)
		if errors.Is(err, ErrEncode) && p.failure.Load() == nil {
			err = p.probe(ctx, resting) // again: a device that fails one frame in ten still serves
		}
		if ctx.Err() == nil && !errors.Is(err, errNoVerdict) {
			p.record(s.Restarts, err)
		}
	}
}

// record keeps the outcome of a probe of the device after so many restarts.
func (p *Probe) record(restarts int, err error) {
	was := p.failure.Load()
	switch {
	case err != nil && was == nil:
		p.log.Error("the encoder fails its probe", "error", err)
	case err == nil && was != nil:
		p.log.Info("the encoder passes its probe again")
	}
	if err != nil {
		p.failure.Store(&err)
		return
	}
	p.passed.Store(int64(restarts))
	p.failure.Store(nil)
}

// probe encodes the known image and text once and compares. Texts of another backend are left out unless resting:
// under load, time spent in that one's queue would count against the device.
func (p *Probe) probe(ctx context.Context, resting bool) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	frame, err := p.Frames().Get(ctx)
	if err != nil {
		return fmt.Errorf("%w: no free frame: %w", errNoVerdict, err)
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
	if p.tokens == nil || p.texts != p.Backend && !resting {
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
	if cosine := Dot(first, now); !(cosine >= probeCosine) {
		return first, fmt.Errorf("%w: the known %s has cosine %.3f with its first embedding", ErrEncode, what, cosine)
	}
	return first, nil
}
