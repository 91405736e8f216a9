package npu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/npu"
)

// load keeps a backend busy with pictures and texts, checks every answer, and counts what
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
		if err != nil {
			t.Fatal(err)
		}
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
					if c := cosine(got[j], want[i][j]); err == nil && !(c > 0.9999) {
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
	if l.good.Load() == 0 {
		t.Error("nothing worked")
	}
}

// Every fault, 20 times in one run, under load: no answer is wrong, and afterwards nothing is
// left behind. How long it takes until pictures are encoded again is logged.
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
			o := options(t, args...)
			if tt.silent {
				o.DeviceTimeout = 300 * time.Millisecond
			}
			b, err := npu.New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := b.Await(ctx); err != nil {
				t.Fatal(err)
			}
			l := startLoad(t, b, 16)
			var recovery []time.Duration
			for i := range 20 {
				enough := l.good.Load() + 100
				until(t, "answers between the faults", func() bool { return l.good.Load() > enough })
				before := b.Metrics()
				command := tt.fault
				if strings.Contains(command, "%d") {
					command = fmt.Sprintf(command, i%7+1)
				}
				start := time.Now()
				if !control(t, path, command) {
					t.Fatal("no chip to command")
				}
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
			if !tt.restarts && m.Restarts != 0 || tt.restarts && m.Restarts < 20 || !tt.silent && m.Restarts > 20 {
				t.Errorf("%d restarts for 20 faults", m.Restarts)
			}
			slices.Sort(recovery)
			t.Logf("recovery: median %v, worst %v; %d right, %d lost, %d failed",
				recovery[10].Round(time.Millisecond), recovery[19].Round(time.Millisecond), l.good.Load(), l.lost.Load(), l.failed.Load())
			if free, all := b.Frames().Free(), b.Frames().Len(); free != all {
				t.Errorf("%d of %d frames are free", free, all)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if now := openFiles(t); now != fds {
				t.Errorf("%d descriptors, %d before", now, fds)
			}
			if n := children(t); n != 0 {
				t.Errorf("%d processes left behind", n)
			}
		})
	}
}

// A device that is slow is not one that hangs, and one that refuses is tried again.
func TestRefusalEnds(t *testing.T) {
	args := filepath.Join(t.TempDir(), "args")
	write := func(line string) {
		if err := os.WriteFile(args, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("--fault refuse=busy")
	o := options(t, "args", args)
	b := start(t, o)
	until(t, "a few refusals", func() bool { return strings.Contains(b.Status().Reason, "2 starts failed") })
	write("--fault slow=0.5")
	if err := b.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := encodeOne(t.Context(), b, 1); err != nil {
		t.Error(err)
	}
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
	until(t, "slower starts", func() bool { return strings.Contains(b.Status().Reason, "3 starts failed") })
	stop()
	clients.Wait()
}

// A device that dies of its second frame at every start does not start without end.
func TestSomeWorkBacksOff(t *testing.T) {
	b := open(t, options(t, append(slices.Clone(fast), "--fault", "crash=2")...))
	for b.Metrics().Restarts < 5 {
		_ = encodeOne(t.Context(), b, 1)
	}
	// Now the next start is the better part of a second away: as long as it is, nothing happens.
	restarts, since := b.Metrics().Restarts, time.Now()
	for range 100 {
		if err := encodeOne(t.Context(), b, 1); err == nil {
			if time.Since(since) > 300*time.Millisecond {
				t.Skip("this machine did not get to run for as long as the back-off")
			}
			t.Fatal("started again at once")
		}
	}
	if m := b.Metrics(); m.Restarts != restarts {
		t.Errorf("%d restarts instead of %d", m.Restarts, restarts)
	}
}

func TestSlowIsNotHung(t *testing.T) {
	// Each run takes 150 ms and the line is 4 runs long, so a frame is in flight longer than the limit.
	o := options(t, "--image-run", "150ms", "--image-frame", "0", "--text-run", "0", "--text-frame", "0")
	o.DeviceTimeout = 400 * time.Millisecond
	b := open(t, o)
	concurrently(t, b, 32, 2)
	if m := b.Metrics(); m.Restarts != 0 || m.Frames[npu.ImageModel] != 64 {
		t.Errorf("%+v", m)
	}
}

// EncodeImages does not return before the device has let go of the frame, and returns by the
// device's limit when it never does.
func TestEndedContextKeepsTheFrame(t *testing.T) {
	path := socket(t)
	o := options(t, append(slices.Clone(fast), "--control", path)...)
	o.DeviceTimeout = 300 * time.Millisecond
	b := open(t, o)
	if err := encodeOne(t.Context(), b, 1); err != nil {
		t.Fatal(err)
	}
	control(t, path, "hang")
	f, _ := b.Frames().Get(t.Context())
	defer f.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := b.EncodeImages(ctx, []*hailo.Frame{f})
	if !errors.Is(err, hailo.ErrDeviceLost) {
		t.Errorf("got %v: it returned while the device had the frame", err)
	}
	// A text has nothing of the caller's, so it ends with its context.
	if err := b.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	control(t, path, "hang")
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.EncodeTexts(ctx, [][]int32{{1, endToken}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
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
	until(t, "the frame is in flight", func() bool { return b.Metrics().InFlight[npu.ImageModel] == 1 })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; !errors.Is(err, hailo.ErrDeviceLost) {
		t.Error(err)
	}
	if n := children(t); n != 0 {
		t.Errorf("%d processes left behind", n)
	}
}

// until waits for something that must happen, for at most 20 s.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s: ", what)
		}
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
