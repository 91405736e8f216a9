package stages

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/decode"
)

// gathers is a device that makes its runs itself, of 12 ms.
type gathers struct{ *fakeBackend }

func (gathers) Info() hailo.Info { return hailo.Info{ImageBatch: 4, ImageCalls: 2, Gathers: true} }

func (b gathers) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	time.Sleep(12 * time.Millisecond)
	for _, f := range frames {
		f.Run = hailo.Run{Frames: len(frames), Took: 10*time.Millisecond + time.Duration(len(frames))*time.Millisecond/2}
	}
	return b.fakeBackend.EncodeImages(context.WithoutCancel(ctx), frames)
}

// TestCrowd has callers and streams of all kinds on the line, with regions, large images, raw frames, memory that they lend and look
// at again, frames that they do not want encoded, and deadlines, while the device fails now and then: each is answered by its
// deadline, as for it alone, the memory of each image is given back once and not read afterwards, and nothing stays behind.
func TestCrowd(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	synctest.Test(t, func(t *testing.T) {
		b := gathers{&fakeBackend{frames: hailo.NewHeapFrames(8, 32, 3)}}
		var failed atomic.Int32
		b.fail = func(call int, _ []*hailo.Frame) error {
			if call%17 == 16 {
				failed.Add(1)
				return hailo.ErrEncode
			}
			return nil
		}
		budget := decode.NewBudget(18<<20, math.MaxInt64, 2, 100)
		l, err := NewLine(testConfig, pipeline.Config{WorkerThreads: 2, MaxQueueSize: 8}, b, 32, budget)
		if err != nil {
			t.Fatal(err)
		}
		small, large := pngImage(t, 40, 30, red), pngImage(t, 1000, 700, red)
		raw, err := decode.ParseRaw("rgb24; 20x20")
		if err != nil {
			t.Fatal(err)
		}
		boom := errors.New("boom")
		labels := plain([]float32{1, 0, 0, 0, 1, 0}, 3)
		var sent, released, answered, skipped, superseded atomic.Int32
		var callers sync.WaitGroup
		for n := range 10 {
			rnd := rand.New(rand.NewPCG(seed, uint64(n)))
			lane := pipeline.NewLane(fair.Caller{Address: string(rune('a' + n/2)), Connection: uint64(n)}, pipeline.Policy(n%3))
			callers.Go(func() {
				var results Result // lent by a caller that has one request at a time
				var own sync.WaitGroup
				defer own.Wait()
				for range 60 {
					r := &Request{Labels: labels, Lane: lane, Embedding: rnd.IntN(2) == 0, Scoring: Scoring{TopK: 2, LogitScale: 100}}
					switch rnd.IntN(5) {
					case 0:
						r.Image = append([]byte(nil), large...)
					case 1:
						r.Image, r.Raw = make([]byte, 1200), raw
						for i := 0; i < 1200; i += 3 {
							r.Image[i] = 255
						}
					default:
						r.Image = append([]byte(nil), small...)
					}
					for range rnd.IntN(3) * rnd.IntN(5) {
						r.Regions = append(r.Regions, Region{X: rnd.Float64() / 2, Y: rnd.Float64() / 2, W: .5, H: .5})
					}
					fate := rnd.IntN(8)
					if fate < 2 {
						r.Seen = func(Pixels) bool {
							if fate == 1 {
								panic(boom)
							}
							return true
						}
					}
					image := r.Image
					r.Release = func() {
						clear(image) // another's from here on
						released.Add(1)
					}
					sent.Add(1)
					limit := time.Duration(20+rnd.IntN(400)) * time.Millisecond
					do := func(into *Result) Result {
						r.Into = into
						ctx, cancel := context.WithTimeout(t.Context(), limit)
						defer cancel()
						begin, regions, embedding := time.Now(), len(r.Regions), r.Embedding
						got, err := l.Do(ctx, r)
						if took := time.Since(begin); took > limit {
							t.Errorf("answered after %v of %v", took, limit)
						}
						var panicked *pipeline.PanicError
						switch {
						case err == nil && got.Skipped:
							skipped.Add(1)
						case err == nil:
							answered.Add(1)
							parts := got.Regions
							if regions == 0 {
								parts = []RegionResult{{Matches: got.Matches, Embedding: got.Embedding}}
							}
							if len(parts) != max(regions, 1) {
								t.Errorf("%d parts of %d", len(parts), regions)
							}
							for _, p := range parts {
								if len(p.Matches) != 2 || p.Matches[0].Label != 0 || embedding != (len(p.Embedding) == 3 && p.Embedding[0] > .99) {
									t.Errorf("%+v", p)
								}
							}
						case errors.Is(err, pipeline.ErrSuperseded):
							superseded.Add(1)
						case errors.As(err, &panicked) && fate == 1, errors.Is(err, pipeline.ErrDeadline) && ctx.Err() != nil,
							errors.Is(err, pipeline.ErrQueueFull), errors.Is(err, hailo.ErrEncode), errors.Is(err, decode.ErrBusy):
						default:
							t.Error(err)
						}
						return got
					}
					if n%2 == 0 {
						if got := do(&results); got.Matches != nil || got.Regions != nil {
							results = got
						}
					} else {
						own.Go(func() { do(nil) })
					}
					time.Sleep(time.Duration(rnd.IntN(12)) * time.Millisecond)
				}
			})
		}
		callers.Wait()
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		t.Logf("%d sent, %d answered, %d skipped, %d superseded, %d runs failed", sent.Load(), answered.Load(), skipped.Load(), superseded.Load(), failed.Load())
		if sent.Load() != released.Load() || b.frames.Free() != 8 || answered.Load() == 0 || skipped.Load() == 0 || superseded.Load() == 0 {
			t.Errorf("%d sent, %d released, %d of 8 frames came back", sent.Load(), released.Load(), b.frames.Free())
		}
	})
}
