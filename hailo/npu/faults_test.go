package npu_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo"
	"hailoclip/hailo/backendtest"
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
				count(encodeOne(context.Background(), b, seeds.Add(1)))
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
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fds := openFiles(t)
			path := socket(t)
			args := []string{"--image-run", "1ms", "--image-frame", "100us", "--text-run", "1ms", "--text-frame", "500us", "--control", path}
			o, faults := options(t, args...), 20
			if tt.silent {
				o.DeviceTimeout, faults = time.Second, 6
			}
			b := open(t, o)
			l := startLoad(t, b, 16)
			var recovery []time.Duration
			for i := range faults {
				enough := l.good.Load() + 100
				until(t, "answers between the faults", func() bool { return l.good.Load() > enough })
				before := b.Metrics()
				command := tt.fault
				if strings.Contains(command, "%d") {
					command = fmt.Sprintf(command, i%7+1)
				}
				start := time.Now()
				until(t, "a chip to command", func() bool { return control(t, path, command) })
				until(t, "the fault shows", func() bool {
					m := b.Metrics()
					return m.Restarts > before.Restarts || !tt.restarts && m.Failed != before.Failed
				})
				mark := time.Now().UnixNano()
				until(t, "it works again", func() bool { return b.Metrics().Ready && l.lastGood.Load() > mark })
				recovery = append(recovery, time.Since(start))
			}
			l.end(t)
			// A short limit also hits a device that a busy machine holds up.
			m := b.Metrics()
			if !tt.restarts && m.Restarts != 0 || tt.restarts && m.Restarts < faults || !tt.silent && m.Restarts > faults {
				t.Errorf("%d restarts for %d faults", m.Restarts, faults)
			}
			slices.Sort(recovery)
			t.Logf("recovery: median %v, worst %v; %d right, %d lost, %d failed",
				recovery[faults/2].Round(time.Millisecond), recovery[faults-1].Round(time.Millisecond), l.good.Load(), l.lost.Load(), l.failed.Load())
			if free, all := b.Frames().Free(), b.Frames().Len(); free != all {
				t.Errorf("%d of %d frames are free", free, all)
			}
			assert.NoError(t, b.Close())
			assert.Equal(t, openFiles(t), fds, "descriptors")
			assert.Equal(t, children(t), 0, "processes left behind")
		})
	}
}

// A device that refuses is tried again.
func TestRefusalEnds(t *testing.T) {
	args := filepath.Join(t.TempDir(), "args")
	write := func(line string) {
		assert.Must(t, os.WriteFile(args, []byte(line), 0o600))
	}
	write("--fault refuse=busy")
	o := options(t, "args", args)
	b := start(t, o)
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
	var waits waitLog
	o := options(t, append(slices.Clone(fast), "--fault", "crash=2")...)
	o.Log = slog.New(&waits)
	b := open(t, o)
	for b.Metrics().Restarts < 6 {
		_ = encodeOne(t.Context(), b, 1)
	}
	until(t, "the sixth wait", func() bool { return len(waits.all()) >= 6 })
	const ms = time.Millisecond
	if got, want := waits.all()[:6], []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 800 * ms}; !slices.Equal(got, want) {
		t.Errorf("waited %v before the next start, want %v", got, want)
	}
}

// waitLog keeps how long the next start was put off.
type waitLog struct {
	slog.Handler
	mu    sync.Mutex
	waits []time.Duration
}

func (l *waitLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *waitLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "next_start_in" {
			l.waits = append(l.waits, a.Value.Duration())
		}
		return true
	})
	return nil
}

func (l *waitLog) all() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.waits)
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
	text := abandon(npu.TextModel, func(ctx context.Context) error {
		_, err := b.EncodeTexts(ctx, [][]int32{{1, endToken}})
		return err
	})
	assert.ErrorIs(t, <-text, context.Canceled, "text")
	control(t, path, "crash") // only now
	if err := <-image; !errors.Is(err, hailo.ErrDeviceLost) {
		t.Errorf("got %v: it returned while the device had the frame", err)
	}
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
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Skip("this kernel does not list children")
	}
	n := 0
	for _, list := range lists {
		b, _ := os.ReadFile(list) // a thread may have ended
		n += len(strings.Fields(string(b)))
	}
	return n
}
