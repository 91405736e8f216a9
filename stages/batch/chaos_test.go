package batch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// chaos is a device that takes its time, fails, panics, looks at its contexts, and is lost for a while.
type chaos struct {
	info  hailo.Info
	t     *testing.T
	pool  *hailo.Frames
	begin time.Time

	mu     sync.Mutex
	rnd    *rand.Rand
	inside map[*hailo.Frame]bool
	calls  int
}

func (c *chaos) Info() hailo.Info                                            { return c.info }
func (c *chaos) Frames() *hailo.Frames                                       { return c.pool }
func (c *chaos) Status() hailo.Status                                        { return hailo.Status{Ready: c.info.ImageCalls%2 == 0} }
func (c *chaos) Close() error                                                { return nil }
func (c *chaos) EncodeTexts(context.Context, [][]int32) ([][]float32, error) { return nil, nil }

func (c *chaos) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	c.mu.Lock()
	c.calls++
	if len(frames) == 0 || len(frames) > c.info.ImageBatch {
		c.t.Errorf("a group of %d frames, at most %d", len(frames), c.info.ImageBatch)
	}
	if most := max(c.info.ImageCalls, 1) * c.info.ImageBatch; len(c.inside) > most+c.info.ImageBatch { // and a measurement
		c.t.Errorf("%d frames inside, at most %d", len(c.inside), most)
	}
	for _, f := range frames {
		if c.inside[f] {
			c.t.Error("a frame is in two calls")
		}
		c.inside[f] = true
	}
	took := time.Duration(c.rnd.ExpFloat64() * float64(10*time.Millisecond))
	fate := c.rnd.IntN(40)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range frames {
			delete(c.inside, f)
		}
	}()
	if fate%2 == 0 { // as errgroup does
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	away := c.info.Gathers && time.Since(c.begin)/time.Second%3 == 2
	for _, f := range frames {
		if f.Run = (hailo.Run{Frames: len(frames), Took: took}); away {
			f.Run = hailo.Run{}
		}
	}
	switch fate {
	case 0:
		return hailo.ErrDeviceLost
	case 1, 2:
		return fmt.Errorf("%w: no", hailo.ErrEncode)
	case 3:
		panic("chaos")
	case 4:
		took = 20 * time.Second // it hangs
	}
	switch fate % 3 {
	case 0:
		time.Sleep(took)
	default:
		select {
		case <-time.After(took):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// TestChaos has callers of all kinds send frames to such a device. Every call returns, with an error of its own and no earlier than
// the device has done with its frames; and soon after its deadline, if the device lets go of them.
func TestChaos(t *testing.T) {
	for _, info := range []hailo.Info{
		{ImageBatch: 8, ImageCalls: 2, Gathers: true},
		{ImageBatch: 3, ImageCalls: 3, Gathers: true},
		{ImageBatch: 1, ImageCalls: 4, Gathers: true},
		{ImageBatch: 63, ImageCalls: 1, Gathers: true},
		{ImageBatch: 4, ImageCalls: 1},
		{ImageBatch: 1, ImageCalls: 2},
	} {
		for _, maxWait := range []time.Duration{0, 3 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) { underChaos(t, info, maxWait, rand.Uint64()) })
		}
	}
}

func underChaos(t *testing.T, info hailo.Info, maxWait time.Duration, seed uint64) {
	t.Logf("%+v, max_wait %v, seed %d", info, maxWait, seed)
	c := &chaos{info: info, t: t, rnd: rand.New(rand.NewPCG(seed, 0)), inside: map[*hailo.Frame]bool{}, begin: time.Now(),
		pool: hailo.NewHeapFrames(info.ImageBatch, 1, 1)}
	b := New(c, maxWait)
	gone := errors.New("gone")
	var wait sync.WaitGroup
	for n := range 12 {
		rnd := rand.New(rand.NewPCG(seed, uint64(n)+1))
		wait.Go(func() {
			for count := range 300 {
				ctx, leave := context.WithCancelCause(context.Background())
				deadline := time.Now().Add(time.Duration(1+rnd.IntN(100)) * time.Millisecond)
				limited, cancel := context.WithDeadline(ctx, deadline)
				going := time.AfterFunc(time.Duration(rnd.IntN(200))*time.Millisecond, func() { leave(gone) })
				frames := make([]*hailo.Frame, 1+rnd.IntN(3)*rnd.IntN(3))
				for i := range frames {
					frames[i] = &hailo.Frame{}
				}
				key := fair.Caller{Address: fmt.Sprint(n % 5), Connection: uint64(n)}
				if n > 9 {
					key.Connection = uint64(100*n + count)
				}
				err := b.Encode(limited, key, frames...)
				c.mu.Lock()
				for _, f := range frames {
					if c.inside[f] {
						t.Error("answered while the device has the frame")
					}
				}
				c.mu.Unlock()
				var panicked *pipeline.PanicError
				switch {
				case err == nil, errors.Is(err, hailo.ErrDeviceLost), errors.Is(err, hailo.ErrEncode), errors.As(err, &panicked):
				case errors.Is(err, gone) && errors.Is(context.Cause(limited), gone):
				case errors.Is(err, context.DeadlineExceeded) && limited.Err() != nil:
				case limited.Err() != nil: // the cause of a group is that of its last call
				default:
					t.Errorf("error %v, the context says %v", err, limited.Err())
				}
				if late := time.Since(deadline); late > 41*time.Second {
					t.Errorf("answered %v after the deadline", late)
				}
				going.Stop()
				cancel()
				leave(nil)
				time.Sleep(time.Duration(rnd.ExpFloat64() * float64(3*time.Millisecond)))
			}
		})
	}
	wait.Wait()
	b.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting)+len(b.running)+len(b.device) != 0 || len(c.inside) != 0 || c.pool.Free() != info.ImageBatch {
		t.Errorf("at the end %d wait, %d calls of %d frames run, %d are inside, %d of the pool are free",
			len(b.waiting), len(b.running), len(b.device), len(c.inside), c.pool.Free())
	}
}
