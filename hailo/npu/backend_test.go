package npu_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu"
)

func TestConformance(t *testing.T) {
	for _, output := range []string{"uint8", "uint16", "float32"} {
		t.Run(output, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) hailo.Backend {
				return open(t, options(t, append(slices.Clone(fast), "--output", output)...))
			})
		})
	}
}

func TestImages(t *testing.T) {
	b := open(t, options(t, fast...))
	for seed := range uint64(100) {
		assert.Must(t, encodeOne(t.Context(), b, seed))
	}
	m := b.Metrics()
	assert.True(t, m.Frames[npu.ImageModel] == 100 && m.Runs[npu.ImageModel] == 100 && m.Restarts == 0 && m.Ready, "%+v", m)
}

// A call is a group, which a free device runs together, whatever was before it.
func TestGroups(t *testing.T) {
	o := options(t, "--image-run", "30ms", "--image-frame", "1ms") // to tell a group from the frames of two runs
	b := open(t, o)
	if i := b.Info(); i.ImageBatch != o.BatchSize || i.ImageBatch*i.ImageCalls < o.Config.InFlight || !i.Gathers {
		t.Errorf("%+v", i)
	}
	var frames []*hailo.Frame
	for range o.BatchSize {
		frames = append(frames, assert.Value(b.Frames().Get(t.Context())))
	}
	for _, n := range []int{1, 2, 2, o.BatchSize, 1, 3} {
		// A busy machine may stop this process while it submits, for longer than the device waits for a group.
		for try, want := 0, (hailo.Run{Frames: n, Took: time.Duration(30+n) * time.Millisecond}); ; try++ {
			assert.Must(t, b.EncodeImages(t.Context(), frames[:n]))
			whole := !slices.ContainsFunc(frames[:n], func(f *hailo.Frame) bool { return f.Run != want })
			if whole || try == 50 {
				assert.True(t, whole, "a group of %d ran as %+v", n, frames[0].Run)
				break
			}
		}
	}
	for _, twice := range [][]*hailo.Frame{{frames[0], frames[0]}, {frames[0], frames[1], frames[0]}} {
		assert.ErrorIs(t, b.EncodeImages(t.Context(), twice), hailo.ErrEncode, "a frame twice")
	}
	for _, f := range frames {
		f.Release()
	}
}

func TestForeignFrames(t *testing.T) {
	b := open(t, options(t, fast...))
	f := assert.Value(b.Frames().Get(t.Context()))
	defer f.Release()
	other, _ := hailo.NewHeapFrames(1, imageSize, dimension).Get(t.Context())
	short := &hailo.Frame{Pixels: f.Pixels, Embedding: make([]float32, 3)}
	outside := &hailo.Frame{Pixels: f.Pixels, Embedding: f.Embedding, Slot: -1}
	for _, bad := range []*hailo.Frame{other, short, outside, {}} {
		assert.ErrorIs(t, b.EncodeImages(t.Context(), []*hailo.Frame{bad}), hailo.ErrEncode)
	}
}

// What stops a start is said, and whoever encodes may go elsewhere.
func TestRefusedStart(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		change func(o *npu.Options)
		want   string
	}{
		{"busy", []string{"--fault", "refuse=busy"}, nil, "HAILO_DEVICE_IN_USE (73): simulated fault"},
		{"no device", []string{"--fault", "refuse=nodevice"}, nil, "HAILO_OUT_OF_PHYSICAL_DEVICES (74)"},
		{"driver version", []string{"--fault", "refuse=version"}, nil, "HAILO_INVALID_DRIVER_VERSION (76)"},
		{"not our protocol", []string{"--fault", "refuse=magic"}, nil, "protocol violation: hello with magic"},
		{"silent", []string{"--fault", "refuse=silent"}, func(o *npu.Options) { o.Config.StartTimeout = time.Second },
			"no answer from the worker within 1s"},
		{"bad argument", []string{"--fault", "nonsense"}, nil, "fault \"nonsense\" is unknown"},
		{"no worker", nil, func(o *npu.Options) { o.Command = []string{"/nowhere/hailo-clip-npu"} }, "no such file"},
		// A real backend never runs on a simulated chip by mistake.
		{"simulated", nil, func(o *npu.Options) { o.Simulated = false }, "simulated 1"},
		// What the worker has loaded must be the model that we expect.
		{"image size", []string{"--image-size", "32"}, nil, "input: shape 32x32x3"},
		{"dimension", []string{"--dimension", "100"}, nil, "output: shape 1x1x100"},
		{"context length", []string{"--context-length", "50"}, nil, "input: shape 1x50x512"},
		{"width", []string{"--width", "256"}, nil, "input: shape 1x77x256"},
		{"image too large", []string{"--image-size", "1000"}, nil, "HAILO_INSUFFICIENT_BUFF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := options(t, append(slices.Clone(fast), tt.args...)...)
			if tt.change != nil {
				tt.change(&o)
			}
			b := start(t, o)
			until(t, tt.want, func() bool { s := b.Status(); return !s.Ready && strings.Contains(s.Reason(), tt.want) })
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.ErrorSays(t, b.Await(ctx), hailo.ErrDeviceLost, tt.want)
			f, _ := b.Frames().Get(t.Context())
			defer f.Release()
			assert.ErrorIs(t, b.EncodeImages(t.Context(), []*hailo.Frame{f}), hailo.ErrDeviceLost, "images")
			assert.ErrorIs(t, assert.Err(b.EncodeTexts(t.Context(), twoTokens(1))), hailo.ErrDeviceLost, "texts")
		})
	}
}

func TestHeat(t *testing.T) {
	path := socket(t)
	b := open(t, options(t, append(slices.Clone(fast), "--control", path)...))
	state := func(want string) {
		t.Helper()
		until(t, "status "+want, func() bool {
			reason := b.Status().Reason()
			return strings.Contains(reason, want) && (want != "" || reason == "")
		})
	}
	state("")
	control(t, path, "heat=3")
	state("throttling state 3")
	s := b.Status()
	assert.True(t, s.Ready && s.Degraded, "%+v", s)
	// Everything still goes through, only less at once; the places come back afterwards.
	concurrently(t, b, 64, 10)
	control(t, path, "heat=5")
	state("too hot")
	assert.ErrorIs(t, encodeOne(t.Context(), b, 1), hailo.ErrDeviceLost)
	assert.True(t, !b.Status().Ready, "ready")
	control(t, path, "heat=1") // not before it is 0
	state("too hot")
	control(t, path, "ok")
	state("")
	concurrently(t, b, 64, 10)
	assert.Equal(t, b.Metrics().Restarts, 0, "restarts")
}

// A device that stops with frames in flight does not take those that wait for a turn down with it: whoever
// has another encoder can go there. TestHeatIsBounded is about those in flight.
func TestHeatInFlight(t *testing.T) {
	path := socket(t)
	o := options(t, "--image-run", "200ms", "--image-frame", "0", "--text-run", "200ms", "--text-frame", "0", "--control", path)
	b := open(t, o)
	const clients = 48 // more than may be in flight
	errs := make(chan error)
	encode := func(call func() error) { // until it fails
		for {
			if err := call(); err != nil {
				errs <- err
				return
			}
		}
	}
	for seed := range uint64(clients) {
		go encode(func() error { return encodeOne(context.Background(), b, seed) })
	}
	// One batch on the device, the others in the queue.
	go encode(func() error { return assert.Err(b.EncodeTexts(context.Background(), twoTokens(10))) })
	until(t, "everything is in flight", func() bool {
		m := b.Metrics()
		return m.InFlight[npu.ImageModel] == o.Config.InFlight && m.InFlight[npu.TextModel] > 0
	})
	control(t, path, "heat=5")
	for range clients - o.Config.InFlight { // at least those that waited, while the others are in flight
		assert.ErrorSays(t, <-errs, hailo.ErrDeviceLost, "too hot")
	}
	assert.ErrorSays(t, assert.Err(b.EncodeTexts(t.Context(), twoTokens(1))), hailo.ErrDeviceLost, "too hot")
	m := b.Metrics()
	assert.True(t, m.Restarts == 0 && m.InFlight[npu.ImageModel] > 0, "%+v", m)
	control(t, path, "crash")
	for range o.Config.InFlight + 1 {
		assert.ErrorIs(t, <-errs, hailo.ErrDeviceLost)
	}
	assert.NoError(t, b.Close())
}

// twoTokens are n texts of two tokens.
func twoTokens(n int) [][]int32 {
	texts := make([][]int32, n)
	for i := range texts {
		texts[i] = []int32{1, endToken}
	}
	return texts
}

// concurrently encodes n images in each of some goroutines.
func concurrently(t *testing.T, b *npu.Backend, goroutines, n int) {
	t.Helper()
	errs := make(chan error)
	for g := range goroutines {
		go func() {
			var err error
			for i := 0; i < n && err == nil; i++ {
				err = encodeOne(t.Context(), b, uint64(g*n+i))
			}
			errs <- err
		}()
	}
	for range goroutines {
		assert.NoError(t, <-errs)
	}
}

func TestOptionsValidate(t *testing.T) {
	_, err := npu.New(npu.Options{Text: &npu.Text{Width: 3}})
	for _, want := range []string{"no worker program", "no logger", "image size 0", "dimension 0", "batch size 0", "device timeout 0s",
		"text: context length 0", "no token embeddings", "end token 0", "no projection, but width 3 and dimension 0"} {
		assert.Says(t, err, want)
	}
}

// The limits of the start do not apply later.
func TestLongAfterTheStart(t *testing.T) {
	o := options(t, fast...)
	var b *npu.Backend
	for o.Config.StartTimeout = 100 * time.Millisecond; ; o.Config.StartTimeout *= 2 { // as short as this machine can
		b = start(t, o)
		until(t, "a start", func() bool { s := b.Status(); return s.Ready || strings.Contains(s.Reason(), "starts failed") })
		if b.Status().Ready {
			break
		}
	}
	time.Sleep(o.Config.StartTimeout + 100*time.Millisecond)
	assert.NoError(t, encodeOne(t.Context(), b, 1))
	assert.Equal(t, b.Metrics().Restarts, 0, "restarts")
}
