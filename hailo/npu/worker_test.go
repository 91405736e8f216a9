package npu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"hailoclip/hailo/internal/assert"

	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// testWorker has no process, four image slots and two of text, and takes at most three images at once.
func testWorker() *worker {
	w := newWorker(context.Background(), &Backend{opt: Options{BatchSize: 2}}, nil)
	w.places = make(chan struct{}, 3)
	w.inFlight[ImageModel].slots, w.inFlight[TextModel].slots = make([]pending, 4), make([]pending, 2)
	return w
}

// launch submits as submit does, without a socket.
func (w *worker) launch(model, slot int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &w.inFlight[model]
	if f.slots[slot].sequence != 0 {
		return false
	}
	if model == ImageModel {
		select {
		case w.places <- struct{}{}:
		default:
			return false
		}
	}
	f.slots[slot] = pending{sequence: w.b.sequence.Add(1), group: &group{left: 1, slots: []int{slot}, ends: make([]end, 1), done: make(chan struct{}, 1)}}
	if f.n++; f.n == 1 {
		f.oldest = f.slots[slot].sequence
	}
	return true
}

// What a mad worker sends never gives a frame an answer that is not its own, nor two, and
// never lets more in flight than allowed. The input is a list of packets with their lengths.
func FuzzWorkerMessages(f *testing.F) {
	seed := func(messages ...wire.Message) {
		var b []byte
		for _, m := range messages {
			packet := wire.Append(nil, m)
			b = binary.LittleEndian.AppendUint16(b, uint16(len(packet)))
			b = append(b, packet...)
		}
		f.Add(b)
	}
	seed(&wire.Done{Slot: 0, Sequence: 1}, &wire.Done{Slot: 1, Sequence: 2}, &wire.Done{Model: 1, Slot: 1, Sequence: 4})
	seed(&wire.Done{Slot: 0, Sequence: 1}, &wire.Done{Slot: 0, Sequence: 1})
	seed(&wire.Done{Slot: 0, Sequence: 1, Status: 63}, &wire.Stats{Throttling: 3}, &wire.Done{Slot: 1, Sequence: 2}, &wire.Stats{Throttling: 6}, &wire.Stats{})
	seed(&wire.Done{Model: 2}, &wire.Done{Slot: math.MaxUint32})
	seed(&wire.Stats{Throttling: 4, Temperature: [2]float32{float32(math.NaN())}}, &wire.Hello{}, &wire.Loaded{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := testWorker()
		for _, x := range [][2]int{{0, 0}, {0, 1}, {0, 2}, {1, 1}} {
			w.launch(x[0], x[1])
		}
		for len(b) >= 2 {
			n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
			m, err := wire.Parse(b[2 : 2+n])
			b = b[2+n:]
			if err != nil {
				break
			}
			before := [models][]pending{}
			for model, f := range w.inFlight {
				before[model] = slices.Clone(f.slots)
			}
			switch m := m.(type) {
			case *wire.Done:
				err = w.complete(m)
				for model, f := range w.inFlight {
					n := 0
					for slot, p := range f.slots {
						was := before[model][slot].sequence
						mine := m.Model == uint32(model) && m.Slot == uint32(slot) && m.Sequence == was
						if answered := was != 0 && len(before[model][slot].group.done) > 0; answered != (was != 0 && mine) {
							t.Fatalf("%+v: model %d, slot %d, in flight %d: answered %v", m, model, slot, was, answered)
						}
						if p.sequence != 0 {
							n++
						}
					}
					assert.MustTrue(t, n == f.n && (n == 0 || f.oldest != 0), "model %d: %d in flight: %+v", model, n, f)
				}
				w.launch(int(m.Model)%models, int(m.Slot)%2)
			case *wire.Stats:
				w.setStats(m)
			}
			taken, images := len(w.places), w.inFlight[ImageModel].n
			assert.MustTrue(t, taken == images+w.withheld, "%d places taken for %d images in flight and %d withheld", taken, images, w.withheld)
			if err != nil {
				break
			}
		}
	})
}

// A model that is accepted can be used: nothing the worker says makes the host read or write
// outside of a slot.
func FuzzLoaded(f *testing.F) {
	good := &wire.Loaded{QueueDepth: 32, Input: stream(wire.FormatUint8, 16, 3), Output: stream(wire.FormatUint8, 1, 8)}
	text := &wire.Loaded{Model: TextModel, QueueDepth: 32, Input: stream(wire.FormatFloat32, 5, 6), Output: stream(wire.FormatUint16, 5, 6)}
	f.Add(uint8(ImageModel), wire.Append(nil, good))
	f.Add(uint8(TextModel), wire.Append(nil, text))
	b := &Backend{opt: Options{ImageSize: 4, Dimension: 8, Config: Config{TextBatch: 4, InFlight: 8},
		Text: &Text{ContextLength: 5, Width: 6, Row: func(int32) []float32 { return make([]float32, 6) }}}}
	for model, l := range []*wire.Loaded{good, text} {
		assert.Must(f, b.checkLoaded(model, l))
	}
	f.Fuzz(func(t *testing.T, which uint8, packet []byte) {
		m, err := wire.Parse(packet)
		l, ok := m.(*wire.Loaded)
		model := int(which) % models
		if err != nil || !ok || b.checkLoaded(model, l) != nil {
			return
		}
		slot := make([]byte, 5*6*4) // as large as New makes those of the text model
		if model == TextModel {
			b.opt.Text.fill(slot[:l.Input.FrameBytes], &l.Input, []int32{1, 2})
			l.Output.Decode(make([]float32, 6), slot[4*l.Output.RowBytes():5*l.Output.RowBytes()])
			return
		}
		l.Output.Decode(make([]float32, 8), slot[:8*4][:l.Output.FrameBytes])
	})
}

func TestBackOff(t *testing.T) {
	last := time.Duration(-1)
	for steps := range 100 {
		d := backOff(steps)
		assert.True(t, d >= last && d <= slowBackOff, "%d steps: %v after %v", steps, d, last)
		last = d
	}
	for steps, want := range map[int]time.Duration{0: 0, 1: firstBackOff, slowSteps: slowBackOff, 99: slowBackOff} {
		assert.Equal(t, backOff(steps), want, "%d steps", steps)
	}
}

// The more a worker was good for, the sooner the next one starts.
func TestStepsAfter(t *testing.T) {
	why := errors.New("why")
	for _, c := range []struct {
		name  string
		lived time.Duration
		done  uint64
		why   error
		want  int
	}{
		{"nothing encoded", time.Second, 0, why, 40},
		{"died of its second frame", time.Second, 1, why, workSteps},
		{"died hard at work", time.Second, hardWork, why, hardSteps},
		{"was well", unsettled, 1, why, 0},
		{"was idle", unsettled, 0, why, 0},
		{"too hot", time.Hour, 1e6, fmt.Errorf("%w: why", errTooHot), slowSteps},
	} {
		assert.Equal(t, stepsAfter(40, c.lived, c.done, c.why), c.want, "%s", c.name)
	}
	assert.Equal(t, stepsAfter(1, time.Second, 1, why), 1, "the bound made it slower")
}

// finished answers a frame as the device does.
func (w *worker) finished(t *testing.T, model, slot uint32, sequence uint64, status wire.Code) error {
	t.Helper()
	g := w.inFlight[model].slots[slot].group
	err := w.complete(&wire.Done{Model: model, Slot: slot, Sequence: sequence, Status: status})
	<-g.done
	r := g.ends[0].err
	assert.True(t, (r == nil) == (status == wire.Success), "status %v became %v", status, r)
	return err
}

// The oldest frame of each model counts, from when it became the oldest.
func TestOverdue(t *testing.T) {
	w := testWorker()
	check := func(what string, overdue bool, now time.Time, limit time.Duration) {
		t.Helper()
		err := w.overdue(now, limit)
		assert.True(t, (err != nil) == overdue, "%s: %v", what, err)
	}
	check("nothing in flight", false, time.Now().Add(time.Hour), time.Second)
	w.launch(ImageModel, 0)
	w.launch(ImageModel, 1)
	w.inFlight[ImageModel].since = time.Now().Add(-time.Minute)
	check("a minute is not within a second", true, time.Now(), time.Second)
	assert.Must(t, w.finished(t, ImageModel, 1, 2, wire.Success))
	check("a younger frame that is done does not excuse the older one", true, time.Now(), time.Second)
	w.launch(ImageModel, 2)
	w.launch(ImageModel, 3)
	w.inFlight[ImageModel].since = time.Now().Add(-24 * time.Hour)
	assert.Must(t, w.finished(t, ImageModel, 0, 1, wire.Success))
	assert.Equal(t, w.inFlight[ImageModel].oldest, 3)
	check("it has become the oldest just now", false, time.Now(), time.Hour)
	w.launch(TextModel, 0)
	w.inFlight[TextModel].since = time.Now().Add(-time.Minute)
	check("a hanging text", true, time.Now(), time.Second)
}

// setThrottling has the device report a state.
func (w *worker) setThrottling(t *testing.T, state uint32) {
	t.Helper()
	assert.Must(t, w.setStats(&wire.Stats{Throttling: state}))
}

// A device that stops for the heat may keep its frames for the limit; they count from when it goes on.
func TestHeatIsBounded(t *testing.T) {
	w := testWorker()
	w.launch(ImageModel, 0)
	w.inFlight[ImageModel].since = time.Now().Add(-24 * time.Hour)
	for _, state := range []uint32{throttlingStopped, throttlingStopped + 1, throttlingShrink} {
		w.setThrottling(t, state)
		assert.Equal(t, w.overdue(w.pausedAt.Add(time.Second), time.Second), nil, "at throttling state %d", state)
		late := w.overdue(w.pausedAt.Add(time.Second+1), time.Second)
		assert.ErrorIs(t, late, errTooHot, "at throttling state %d, when the time is over", state)
	}
	w.setThrottling(t, 0)
	assert.NoError(t, w.overdue(time.Now(), time.Hour), "it goes on")
	w.inFlight[ImageModel].since = time.Now().Add(-time.Minute)
	assert.True(t, w.overdue(time.Now(), time.Second) != nil, "a device that went on and then hangs is not seen")
}

// With nothing in flight a hot device may rest, if only its worker is alive.
func TestHotAndSilent(t *testing.T) {
	w := testWorker()
	w.setThrottling(t, throttlingStopped)
	w.pausedAt = w.pausedAt.Add(-time.Hour)
	assert.NoError(t, w.overdue(w.heard.Add(statsLate), time.Second))
	assert.ErrorIs(t, w.overdue(w.heard.Add(statsLate+2*time.Second), time.Second), errTooHot, "a silent worker")
}

// A model whose every frame fails is seen however well the other one does, and its failed frames are no
// work: after such a worker the next start has to wait.
func TestFailuresCountByModel(t *testing.T) {
	w := testWorker()
	for i := 1; ; i++ {
		w.launch(ImageModel, 0)
		assert.Must(t, w.finished(t, ImageModel, 0, w.b.sequence.Load(), wire.Success))
		w.launch(TextModel, 0)
		err := w.finished(t, TextModel, 0, w.b.sequence.Load(), wire.CodeStreamAbort)
		assert.MustTrue(t, (err != nil) == (i == maxFailures), "after %d texts that failed: %v", i, err)
		assert.True(t, w.done == uint64(i), "%d frames done, want the %d images", w.done, i)
		if err != nil {
			return
		}
	}
}

func TestCRCErrorEndsTheWorker(t *testing.T) {
	w := testWorker()
	w.setThrottling(t, 0)
	assert.ErrorSays(t, w.setStats(&wire.Stats{CRCErrors: 1}), nil, "CRC")
}

// socket returns our end; the other one stays open, as that of a worker that says nothing.
func socket(t *testing.T) *os.File {
	t.Helper()
	ours, theirs, err := wire.Pair()
	assert.Must(t, err)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours
}

// A worker that its kill does not end, for it is stuck in the kernel, keeps neither those who wait for a
// frame nor Close.
func TestStuckWorker(t *testing.T) {
	cmd := exec.Command("sleep", "1000") // stands for it; exited is never closed
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Wait() }()
	w := testWorker()
	w.b.opt.DeviceTimeout = 10 * time.Millisecond
	w.proc = &process{conn: socket(t), cmd: cmd, exited: make(chan struct{}), stderr: &lineLog{log: slog.New(slog.DiscardHandler)}}
	w.launch(ImageModel, 0)
	g := w.inFlight[ImageModel].slots[0].group
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- w.serve(ctx) }()
	<-g.done
	assert.ErrorIs(t, g.ends[0].err, hailo.ErrDeviceLost)
	select {
	case err := <-served:
		t.Errorf("another worker may start while this one is there: %v", err)
	default:
	}
	stop()
	assert.ErrorSays(t, <-served, nil, "no answer from the device")
}

// A submit that waits in the full socket of a worker that does not read is ended with the worker.
func TestLeaveEndsASend(t *testing.T) {
	p := &process{conn: socket(t)}
	_ = assert.Value(p.conn.SyscallConn()).Control(func(fd uintptr) {
		for err := error(nil); err == nil; {
			_, err = unix.Write(int(fd), make([]byte, 24))
		}
	})
	sent := make(chan error)
	go func() { sent <- p.send(&wire.Submit{}) }()
	for stacks, n := make([]byte, 1<<20), 0; !strings.Contains(string(stacks[:n]), "[IO wait"); n = runtime.Stack(stacks, true) {
		time.Sleep(time.Millisecond) // until it waits
	}
	p.leave()
	assert.Error(t, <-sent, "it was sent")
}

func TestFindWorker(t *testing.T) {
	dir := t.TempDir()
	program, text := filepath.Join(dir, "program"), filepath.Join(dir, "text")
	assert.Must(t, os.WriteFile(program, nil, 0o755))
	assert.Must(t, os.WriteFile(text, nil, 0o644))
	assert.Equal(t, assert.Value(FindWorker(program)), program)
	for path, want := range map[string]string{
		text: "is not a program", dir: "is not a program", filepath.Join(dir, "none"): "no such file", "": "/usr/lib/hailo-clip/hailo-clip-npu",
	} {
		assert.Says(t, assert.Err(FindWorker(path)), want, "%q", path)
	}
}
