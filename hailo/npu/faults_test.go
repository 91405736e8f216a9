package npu_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu"
)

// load keeps a backend busy with images and texts, checks every answer, and counts what
// comes of it. An answer is right, or an ErrDeviceLost or an ErrEncode; nothing else.
type load struct {
	stop     context.CancelFunc
	clients  sync.WaitGroup
	good     atomic.Int64
	lost     atomic.Int64
	failed   atomic.Int64
	wrong    atomic.Pointer[error]
	lastGood atomic.Int64 // unix ns
}

func startLoad(t *testing.T, b *npu.Backend, clients int) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	texts := [][][]int32{{{1, 2, endToken}, {3, endToken}, {4, 5, 6, endToken}}, {{7, endToken}}}
	var want [][][]float32
	for _, tokens := range texts {
		v, err := b.EncodeTexts(ctx, tokens)
		for errors.Is(err, hailo.ErrDeviceLost) && b.Await(t.Context()) == nil { // a short limit on a slow machine
			v, err = b.EncodeTexts(ctx, tokens)
		}
		assert.Must(t, err)
		want = append(want, v)
	}
	var seeds atomic.Uint64
	count := func(err error) {
		switch {
		case err == nil:
			l.good.Add(1)
			l.lastGood.Store(time.Now().UnixNano())
			return
		case errors.Is(err, hailo.ErrDeviceLost):
			l.lost.Add(1)
		case errors.Is(err, hailo.ErrEncode):
			l.failed.Add(1)
		default:
			l.wrong.Store(&err)
		}
		time.Sleep(time.Millisecond) // as a client does that is refused
	}
	for range clients {
		l.clients.Go(func() {
			for ctx.Err() == nil {
				if seed := seeds.Add(1); seed%2 == 0 {
					count(encodeOne(context.Background(), b, seed))
				} else { // groups of 1 to 8
					count(encodeGroup(context.Background(), b, seed, 1+int(seed/2%8)))
				}
			}
		})
	}
	for i, tokens := range texts {
		l.clients.Go(func() {
			for ctx.Err() == nil {
				got, err := b.EncodeTexts(context.Background(), tokens)
				for j := range got {
					if c := backendtest.Cosine(got[j], want[i][j]); err == nil && !(c > 0.9999) {
						err = fmt.Errorf("text %d.%d got another's vector: cosine %v", i, j, c)
					}
				}
				count(err)
			}
		})
	}
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.clients.Wait()
	if err := l.wrong.Load(); err != nil {
		t.Error(*err)
	}
	assert.True(t, l.good.Load() != 0, "nothing worked")
}

// Every fault, many times in one run, under load: no answer is wrong, and afterwards nothing is
// left behind. How long it takes until images are encoded again is logged.
func TestFaultsUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute of faults")
	}
	tests := []struct {
		name     string
		fault    string // a command; %d is a number of a frame to come
		restarts bool   // the worker is replaced
		silent   bool   // it shows by nothing happening
	}{
		{"crash", "crash", true, false},
		{"crash in a frame", "crash=%d", true, false},
		{"hang", "hang", true, true},
		{"lost completion", "lose=%d", true, true},
		{"completion twice", "repeat=%d", true, false},
		{"garbage", "garbage=%d", true, false},
		{"connection closed", "error=62@%d", true, false},
		{"one frame fails", "error=8@%d", false, false},
		{"all frames fail", "error=63", true, false},
	}
	fds := openFiles(t)
	t.Run("faults", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				underLoad(t, tt.fault, tt.restarts, tt.silent)
			})
		}
	})
	assert.Equal(t, openFiles(t), fds, "descriptors")
	assert.Equal(t, children(t), 0, "processes left behind")
}

// underLoad commands a fault again and again.
func underLoad(t *testing.T, fault string, restarts, silent bool) {
	path := socket(t)
	o := options(t, "--image-run", "1ms", "--image-frame", "100us", "--text-run", "1ms", "--text-frame", "500us", "--control", path)
	faults := 20
	if silent {
		o.DeviceTimeout, faults = time.Second, 6
	}
	b := open(t, o)
	l := startLoad(t, b, 16)
	var recovery []time.Duration
	for i := range faults {
		enough := l.good.Load() + 100
		until(t, "answers between the faults", func() bool { return l.good.Load() > enough })
		before := b.Metrics()
		command := strings.Replace(fault, "%d", fmt.Sprint(i%7+1), 1)
		start := time.Now()
		until(t, "a chip to command", func() bool { return control(t, path, command) })
		until(t, "the fault shows", func() bool {
			m := b.Metrics()
			return m.Restarts > before.Restarts || !restarts && m.Failed != before.Failed
		})
		mark := time.Now().UnixNano()
		until(t, "it works again", func() bool { return b.Metrics().Ready && l.lastGood.Load() > mark })
		recovery = append(recovery, time.Since(start))
	}
	l.end(t)
	m := b.Metrics()
	if restarts {
		// A short limit also hits a device that a busy machine holds up.
		assert.True(t, m.Restarts == faults || silent && m.Restarts > faults, "%d restarts for %d faults", m.Restarts, faults)
	} else {
		assert.Equal(t, m.Restarts, 0, "restarts")
	}
	slices.Sort(recovery)
	t.Logf("recovery: median %v, worst %v; %d right, %d lost, %d failed",
		recovery[faults/2].Round(time.Millisecond), recovery[faults-1].Round(time.Millisecond), l.good.Load(), l.lost.Load(), l.failed.Load())
	assert.Equal(t, b.Frames().Free(), b.Frames().Len(), "frames that are free")
	assert.NoError(t, b.Close())
}

// A device that refuses is tried again.
func TestRefusalEnds(t *testing.T) {
	args := filepath.Join(t.TempDir(), "args")
	write := func(line string) { assert.Must(t, os.WriteFile(args, []byte(line), 0o600)) }
	write("--fault refuse=busy")
	b := start(t, options(t, "args", args))
	until(t, "a few refusals", func() bool { return strings.Contains(b.Status().Reason(), "2 starts failed") })
	write("--fault slow=0.5")
	assert.Must(t, b.Await(t.Context()))
	assert.NoError(t, encodeOne(t.Context(), b, 1))
}

// A device that answers every frame with an error is started again ever more slowly.
func TestErrorsOnlyBackOff(t *testing.T) {
	b := open(t, options(t, append(slices.Clone(fast), "--fault", "error=8")...))
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	clients.Go(func() {
		for ctx.Err() == nil {
			_ = encodeOne(ctx, b, 1)
		}
	})
	until(t, "slower starts", func() bool { return strings.Contains(b.Status().Reason(), "3 starts failed") })
	stop()
	clients.Wait()
}

// A device that dies of its second frame at every start does not start without end.
func TestSomeWorkBacksOff(t *testing.T) {
	waits := make(chan time.Duration, 100) // how long the next start was put off
	o := options(t, append(slices.Clone(fast), "--fault", "crash=2")...)
	o.Log = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "next_start_in" {
			waits <- a.Value.Duration()
		}
		return a
	}}))
	b := open(t, o)
	for b.Metrics().Restarts < 6 {
		_ = encodeOne(t.Context(), b, 1)
	}
	const ms = time.Millisecond
	for i, want := range []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 800 * ms} {
		assert.Equal(t, <-waits, want, "wait %d before the next start", i+1)
	}
}

// EncodeImages does not return before the device has let go of the frame; a text has nothing of the
// caller's, so it ends with its context.
func TestEndedContextKeepsTheFrame(t *testing.T) {
	path := socket(t)
	b := open(t, options(t, append(slices.Clone(fast), "--control", path)...))
	control(t, path, "hang")
	f := assert.Value(b.Frames().Get(t.Context()))
	defer f.Release()
	// abandon ends the context of a call that the device has.
	abandon := func(model int, call func(ctx context.Context) error) <-chan error {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- call(ctx) }()
		until(t, "it is in flight", func() bool { return b.Metrics().InFlight[model] == 1 })
		cancel()
		return ended
	}
	image := abandon(npu.ImageModel, func(ctx context.Context) error { return b.EncodeImages(ctx, []*hailo.Frame{f}) })
	text := abandon(npu.TextModel, func(ctx context.Context) error { return assert.Err(b.EncodeTexts(ctx, twoTokens(1))) })
	assert.ErrorIs(t, <-text, context.Canceled, "text")
	control(t, path, "crash") // only now
	assert.ErrorIs(t, <-image, hailo.ErrDeviceLost, "it returned while the device had the frame")
}

// The service ends with the device hanging: Close kills the worker.
func TestCloseWhileHanging(t *testing.T) {
	path := socket(t)
	o := options(t, append(slices.Clone(fast), "--control", path)...)
	o.DeviceTimeout = 200 * time.Millisecond
	b := open(t, o)
	control(t, path, "hang")
	errs := make(chan error)
	go func() { errs <- encodeOne(context.Background(), b, 1) }()
	until(t, "the frame is in flight, or was", func() bool {
		m := b.Metrics()
		return m.InFlight[npu.ImageModel] == 1 || m.Restarts > 0
	})
	assert.NoError(t, b.Close())
	assert.ErrorIs(t, <-errs, hailo.ErrDeviceLost)
	assert.Equal(t, children(t), 0, "processes left behind")
}

// until waits for something that must happen.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); {
		assert.MustTrue(t, !time.Now().After(deadline), "not within %v: %s", patience, what)
		time.Sleep(200 * time.Microsecond)
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(files)
}

// children counts the processes that this one has started and not reaped.
func children(t *testing.T) int {
	t.Helper()
	lists := assert.Value(filepath.Glob("/proc/self/task/*/children"))
	if len(lists) == 0 {
		t.Skip("this kernel does not list children")
	}
	n := 0
	for _, list := range lists {
		b, _ := os.ReadFile(list) // a thread may have ended
		n += len(strings.Fields(string(b)))
	}
	return n
}
