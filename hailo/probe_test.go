package hailo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo/internal/assert"
)

// scripted is a backend that does what a test says.
type scripted struct {
	name   string
	frames *Frames
	status Status
	err    error
	vector []float32
	images atomic.Int64  // EncodeImages calls
	hold   chan struct{} // while it is not nil, each call for images receives from it first

	mu      sync.Mutex // guards err, vector and status
	mortal  bool       // every call ends the device, which is there again at once
	failing int        // so many of the next calls for images fail
	sizes   []int      // frames in each of the calls for images
}

const badPixel = 13 // a frame that begins with it is refused

// set changes the backend.
func (b *scripted) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// becomes changes what the backend does from now on.
func (b *scripted) becomes(err error, vector ...float32) {
	b.set(func() { b.err, b.vector = err, vector })
}

func newScripted(name string) *scripted {
	return &scripted{name: name, frames: NewHeapFrames(2, 4, 2), status: Status{Ready: true}, vector: []float32{1, 0}}
}

// gathering is a device that makes its runs itself.
type gathering struct{ *scripted }

func (b *gathering) Info() Info {
	i := b.scripted.Info()
	i.Gathers = true
	return i
}

func (b *scripted) Info() Info      { return Info{Backend: b.name, ImageBatch: 2, ImageCalls: 3} }
func (b *scripted) Frames() *Frames { return b.frames }
func (b *scripted) Close() error    { return nil }

func (b *scripted) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// restart makes it another device.
func (b *scripted) restart() { b.set(func() { b.status.Restarts++ }) }

func (b *scripted) EncodeImages(_ context.Context, frames []*Frame) error {
	b.images.Add(1)
	b.set(func() { b.sizes = append(b.sizes, len(frames)) })
	if b.hold != nil {
		<-b.hold
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mortal {
		b.status.Restarts++
		return fmt.Errorf("worker ended: %w", ErrDeviceLost)
	}
	if b.failing > 0 {
		b.failing--
		return ErrEncode
	}
	for _, f := range frames {
		if f.Pixels != nil && f.Pixels[0] == badPixel {
			return ErrEncode
		}
		copy(f.Embedding, b.vector)
	}
	return b.err
}

func (b *scripted) EncodeTexts(_ context.Context, tokens [][]int32) ([][]float32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	vectors := make([][]float32, len(tokens))
	for i := range vectors {
		vectors[i] = b.vector
	}
	return vectors, b.err
}

func TestFailover(t *testing.T) {
	lost := fmt.Errorf("worker killed: %w", ErrDeviceLost)
	cases := []struct {
		name           string
		ready          bool
		err, secondErr error
		want           error
		first, second  int64 // calls
	}{
		{"healthy", true, nil, nil, nil, 1, 0},
		{"known to be lost", false, nil, nil, nil, 0, 2},
		{"lost in the call", true, lost, nil, nil, 1, 2},
		{"another error is not hidden", true, ErrEncode, nil, ErrEncode, 1, 0},
		{"both fail", true, lost, ErrEncode, ErrEncode, 1, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			first, second := newScripted("npu"), newScripted("cpu")
			first.status, first.err, second.err = Status{Ready: c.ready, Why: Because("gone")}, c.err, c.secondErr
			second.vector = []float32{0, 1}
			f := NewFailover(first, second)
			var frames []*Frame
			for range 3 { // more than a batch of the second one
				frames = append(frames, &Frame{Embedding: make([]float32, 2), Run: Run{Frames: 8}})
			}
			if err := f.EncodeImages(t.Context(), frames); !errors.Is(err, c.want) || err != nil && c.want == nil {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if first.images.Load() != c.first || second.images.Load() != c.second {
				t.Errorf("%d and %d calls, want %d and %d", first.images.Load(), second.images.Load(), c.first, c.second)
			}
			if c.want == nil && c.second > 0 && frames[2].Embedding[1] != 1 {
				t.Error("the last frame was not encoded by the second backend")
			}
			if stoodIn := frames[0].Run == (Run{}); stoodIn != (c.second > 0) {
				t.Errorf("the first frame tells of the run %+v", frames[0].Run)
			}
			vectors, err := f.EncodeTexts(t.Context(), [][]int32{{1}, {2}})
			if !errors.Is(err, c.want) || c.want == nil && len(vectors) != 2 {
				t.Errorf("texts: %v, error %v, want %v", vectors, err, c.want)
			}
		})
	}
	first, second := newScripted("npu"), newScripted("cpu")
	f := NewFailover(first, second)
	if i := f.Info(); i.Backend != "npu" || i.ImageCalls != 3+3*2 {
		t.Errorf("%+v: when all calls of the first are stuck in it, the second one must have enough for its batches", i)
	}
	gathers := NewFailover(&gathering{newScripted("npu")}, second)
	if i := gathers.Info(); i.ImageCalls != 3+3 {
		t.Errorf("%+v: six more frames are three more calls of two", i)
	}
	expect(t, f, well, "", "both well")
	first.status = Status{Why: Because("the worker is being restarted")}
	if s := f.Status(); !s.Ready || !s.Degraded || !strings.Contains(s.Reason(), "cpu") || !strings.Contains(s.Reason(), "restarted") {
		t.Errorf("first lost: %+v", s)
	}
	second.status = Status{Why: Because("closed")}
	if s := f.Status(); s.Ready || s.Reason() != first.status.Reason() {
		t.Errorf("both lost: %+v", s)
	}
}

// TestStandInBatches has single frames, as the first backend takes them: the second one gets them in its own batches,
// as many at once as it takes, and one bad frame fails alone.
func TestStandInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newScripted("npu"), newScripted("cpu")
		first.status.Ready = false
		second.vector, second.hold = []float32{0, 1}, make(chan struct{})
		f := NewFailover(first, second)
		type call struct {
			frame *Frame
			err   chan error
		}
		encode := func(ctx context.Context, pixel byte) call {
			c := call{&Frame{Pixels: []byte{pixel}, Embedding: make([]float32, 2)}, make(chan error, 1)}
			go func() { c.err <- f.EncodeImages(ctx, []*Frame{c.frame}) }()
			synctest.Wait()
			return c
		}
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		begun := encode(ctx, 0)
		calls := []call{encode(t.Context(), 1), encode(t.Context(), 2), encode(t.Context(), 3), encode(t.Context(), badPixel)}
		waiting := encode(ctx, 4)
		calls = append(calls, encode(t.Context(), 5))
		batches := func(want ...int) {
			t.Helper()
			assert.True(t, slices.Equal(second.sizes, want), "batches of %v, want %v", second.sizes, want)
		}
		batches(1, 1, 1) // as many at once as it takes
		cancel(why)
		assert.ErrorIs(t, <-waiting.err, why, "one whose time is over")
		synctest.Wait()
		assert.True(t, len(begun.err) == 0, "it returned while the encoder had its frame")
		second.hold <- struct{}{}
		synctest.Wait()
		batches(1, 1, 1, 2) // the good one and the bad one
		close(second.hold)
		assert.NoError(t, <-begun.err)
		for _, c := range calls {
			bad := c.frame.Pixels[0] == badPixel
			if err := <-c.err; errors.Is(err, ErrEncode) != bad || !bad && c.frame.Embedding[1] != 1 {
				t.Errorf("frame %d: %v, %v", c.frame.Pixels[0], err, c.frame.Embedding)
			}
		}
		if n := second.images.Load(); n != 7 { // those two again, each alone, and the last one
			t.Errorf("%d calls", n)
		}
	})
}

// TestStandInPanics has the second backend panic in a batch of several calls: none of them waits for ever.
func TestStandInPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newScripted("npu"), newScripted("cpu")
		first.status.Ready = false
		second.hold = make(chan struct{})
		f := NewFailover(first, second)
		outcomes := make(chan string, 5)
		encode := func(pixels []byte) {
			go func() {
				defer func() {
					if v := recover(); v != nil {
						outcomes <- "panic"
					}
				}()
				err := f.EncodeImages(t.Context(), []*Frame{{Pixels: pixels, Embedding: make([]float32, 2)}})
				outcomes <- fmt.Sprint(errors.Is(err, ErrEncode), err == nil)
			}()
			synctest.Wait()
		}
		for range 4 { // of which the last one waits
			encode(nil)
		}
		encode([]byte{})          // which scripted does not expect
		second.hold <- struct{}{} // one turn, for the two together
		synctest.Wait()
		close(second.hold)
		synctest.Wait()
		got := map[string]int{}
		for len(outcomes) > 0 {
			got[<-outcomes]++
		}
		assert.Diff(t, map[string]int{"false true": 3, "panic": 1, "true false": 1}, got)
	})
}

// The states of a backend.
const (
	well     = "ready"
	degraded = "ready, degraded"
	gone     = "not ready"
)

// expect checks the state of a backend and that its reason has these words.
func expect(t *testing.T, b Backend, state, words, when string) {
	t.Helper()
	s := b.Status()
	got := gone
	if s.Ready && s.Degraded {
		got = degraded
	} else if s.Ready {
		got = well
	}
	assert.True(t, got == state && strings.Contains(s.Reason(), words), "%s: %s because of %q, want %s", when, got, s.Reason(), state)
}

// startProbe probes with a text and is closed with the test.
func startProbe(t *testing.T, b, texts Backend, interval time.Duration, times int) *Probe {
	t.Helper()
	p := assert.Value(NewProbe(t.Context(), b, texts, []int32{1, 2}, interval, times, slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// oneFrame is a call's worth.
func oneFrame() []*Frame { return []*Frame{{Embedding: make([]float32, 2)}} }

// pass lets time pass, until all is quiet again.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestProbeRefusesAnEncoderThatFails(t *testing.T) {
	b := newScripted("npu")
	b.err = ErrEncode
	p, err := NewProbe(t.Context(), b, b, nil, 0, 1, slog.New(slog.DiscardHandler))
	assert.True(t, errors.Is(err, ErrEncode), "probe %v, error %v", p, err)
	assert.True(t, b.frames.Free() == b.frames.Len(), "a frame is lost")
}

// TestProbeWaitsForALateDevice: it is not ready until it was probed, also where it is not to be
// probed again.
func TestProbeWaitsForALateDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newScripted("npu")
		b.becomes(fmt.Errorf("booting: %w", ErrDeviceLost), 1, 0)
		p := startProbe(t, b, b, 0, 3)
		expect(t, p, gone, "booting", "before it is there")
		b.becomes(nil, 1, 0)
		pass(probeRetry + probeSoon + time.Millisecond)
		n := b.images.Load()
		expect(t, p, well, "", "when it is there")
		time.Sleep(time.Hour)
		assert.True(t, b.images.Load() == n, "probed again")
	})
}

func TestProbeFollowsTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newScripted("npu")
		p := startProbe(t, b, b, time.Minute, 3)
		wait := func() { pass(61 * time.Second) }
		if n := b.images.Load(); n != 3 || !p.Status().Ready {
			t.Fatalf("%d probes at the start, status %+v", n, p.Status())
		}
		wait()
		assert.Equal(t, b.images.Load(), 4, "probes after an idle minute")
		frames := oneFrame()
		assert.Must(t, p.EncodeImages(t.Context(), frames))
		pass(58 * time.Second)
		if n := b.images.Load(); n != 5 { // the call itself, and no probe
			t.Errorf("%d calls after a busy minute, want 5", n)
		}
		b.becomes(nil, 0, 1) // the device answers, but wrongly
		wait()
		expect(t, p, gone, "known image", "wrong vectors")
		b.becomes(nil, 1, 0)
		time.Sleep(probeRetry + probeSoon + time.Millisecond) // and not a whole interval
		synctest.Wait()
		expect(t, p, well, "", "right vectors again")
		b.becomes(ErrEncode, 1, 0)
		wait()
		assert.Error(t, p.EncodeImages(t.Context(), frames), "the error was swallowed")
		expect(t, p, gone, "", "failing")
	})
}

// TestProbeOfEveryRestart: whatever a device was before, after a restart it is not ready until it
// was probed, and with one that every frame kills it never is.
func TestProbeOfEveryRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newScripted("npu"), newScripted("cpu")
		p := startProbe(t, first, first, 0, 1)
		pair := NewFailover(p, second)
		expect(t, pair, well, "", "at the start")
		first.restart()
		if s := p.Status(); s.Ready || s.Reason() == "" {
			t.Errorf("before the probe: %+v", s)
		}
		pass(probeLook + time.Millisecond)
		expect(t, pair, well, "", "after the probe")
		first.set(func() { first.mortal = true })
		first.restart()
		for range 1500 {
			expect(t, p, gone, "", "the device alone")
			expect(t, pair, degraded, "", "with a second one")
			time.Sleep(100 * time.Millisecond)
		}
		first.set(func() { first.mortal = false })
		pass(probeLook)
		expect(t, p, well, "", "well again")
	})
}

// TestProbeAfterAFailedFrame: a device whose frames fail, but that is there, is found out at once,
// and the second backend encodes until it passes again.
func TestProbeAfterAFailedFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newScripted("npu"), newScripted("cpu")
		p := startProbe(t, first, first, time.Hour, 1)
		pair := NewFailover(p, second)
		time.Sleep(time.Minute)
		encode := func() error {
			err := pair.EncodeImages(t.Context(), oneFrame())
			synctest.Wait()
			return err
		}
		first.becomes(ErrEncode, 1, 0)
		assert.ErrorIs(t, encode(), ErrEncode, "the first frame")
		if err := encode(); err != nil || second.images.Load() != 1 {
			t.Errorf("the second frame: %v", err)
		}
		expect(t, pair, degraded, "", "failing")
		if _, err := p.EncodeTexts(t.Context(), [][]int32{{1}}); !errors.Is(err, ErrDeviceLost) {
			t.Errorf("a text: %v, and another encoder is not asked", err)
		}
		first.becomes(nil, 1, 0)
		pass(probeRetry + probeSoon + time.Millisecond)
		if err := encode(); err != nil || second.images.Load() != 1 || pair.Status().Degraded {
			t.Errorf("well again: %v, %+v", err, pair.Status())
		}
		// A frame now and then is no reason to probe all the time.
		time.Sleep(time.Minute)
		before := first.images.Load()
		first.becomes(ErrEncode, 1, 0)
		_ = encode()
		first.becomes(nil, 1, 0)
		assert.Equal(t, first.images.Load()-before, 3, "calls for a failed frame and a probe that is made again")
	})
}

// TestProbeBlamesTheDeviceOnly: that all frames are out, that another encoder is slow with a text, or that
// one frame failed and the next did not, says nothing against the device.
func TestProbeBlamesTheDeviceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device, texts := newScripted("npu"), newScripted("cpu")
		p := startProbe(t, device, texts, time.Hour, 1)
		fail := func() { // one frame fails, so that the device is probed
			device.becomes(ErrEncode, 1, 0)
			_ = p.EncodeImages(t.Context(), oneFrame())
			device.becomes(nil, 1, 0)
		}
		time.Sleep(time.Minute)
		texts.becomes(ErrDeviceLost, 1, 0)
		fail()
		time.Sleep(time.Second)
		expect(t, p, well, "", "the encoder of the texts is lost")
		texts.becomes(nil, 1, 0)

		var taken []*Frame
		for device.frames.Free() > 0 {
			f, _ := device.frames.Get(t.Context())
			taken = append(taken, f)
		}
		fail()
		time.Sleep(2 * probeTimeout)
		expect(t, p, well, "", "all frames are out")
		for _, f := range taken {
			f.Release()
		}

		device.set(func() { device.failing = 2 }) // the frame and the first probe
		_ = p.EncodeImages(t.Context(), oneFrame())
		synctest.Wait()
		expect(t, p, well, "", "the second probe was good")
	})
}
