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
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// fuzzSession is a session without a process: four image slots and two of text, at most three
// images in flight.
func fuzzSession() *session {
	b := &Backend{opt: Options{BatchSize: 2}}
	s := &session{b: b, tokens: make(chan struct{}, 3), dead: make(chan struct{}), stopped: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	for model, n := range []int{4, 2} {
		s.lines[model].flights = make([]flight, n)
		for i := range n {
			s.lines[model].flights[i].result = make(chan result, 1)
		}
	}
	return s
}

// launch submits as submit does, without a socket.
func (s *session) launch(model, slot int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.lines[model]
	if l.flights[slot].sequence != 0 || len(l.flights[slot].result) > 0 {
		return false
	}
	if model == ImageModel {
		select {
		case s.tokens <- struct{}{}:
		default:
			return false
		}
	}
	l.flights[slot].sequence = s.b.sequence.Add(1)
	if l.n++; l.n == 1 {
		l.head = l.flights[slot].sequence
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
		s := fuzzSession()
		for _, x := range [][2]int{{0, 0}, {0, 1}, {0, 2}, {1, 1}} {
			s.launch(x[0], x[1])
		}
		for len(b) >= 2 {
			n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
			m, err := wire.Parse(b[2 : 2+n])
			b = b[2+n:]
			if err != nil {
				break
			}
			before := [models][]uint64{}
			for model, l := range s.lines {
				for _, f := range l.flights {
					before[model] = append(before[model], f.sequence)
				}
			}
			switch m := m.(type) {
			case *wire.Done:
				err = s.complete(m)
				for model := range s.lines {
					l := &s.lines[model]
					flying := 0
					for slot := range l.flights {
						f := &l.flights[slot]
						was := before[model][slot]
						mine := m.Model == uint32(model) && m.Slot == uint32(slot) && m.Sequence == was
						if answered := len(f.result) > 0; answered != (was != 0 && mine) {
							t.Fatalf("%+v: model %d, slot %d, in flight %d: answered %v", m, model, slot, was, answered)
						}
						if len(f.result) > 0 {
							<-f.result
						}
						if f.sequence != 0 {
							flying++
						}
					}
					if flying != l.n || flying > 0 != (l.head != 0) && l.n > 0 {
						t.Fatalf("model %d: %d in flight, counted %d, head %d", model, flying, l.n, l.head)
					}
				}
				s.launch(int(m.Model)%models, int(m.Slot)%2)
			case *wire.Stats:
				s.note(m)
			}
			if len(s.tokens) != s.lines[ImageModel].n+s.withheld {
				t.Fatalf("%d places taken for %d images in flight and %d withheld", len(s.tokens), s.lines[ImageModel].n, s.withheld)
			}
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
		if err := b.checkLoaded(model, l); err != nil {
			f.Fatal(err)
		}
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
	b := &Backend{}
	last := time.Duration(-1)
	for b.steps = range 100 {
		d := b.backOff()
		if d < last || d > slowBackOff || b.steps == 0 && d != 0 || b.steps == 1 && d != firstBackOff || b.steps == slowSteps && d != slowBackOff {
			t.Errorf("%d steps: %v after %v", b.steps, d, last)
		}
		last = d
	}
	if last != slowBackOff {
		t.Errorf("at last %v", last)
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
		if got := stepsAfter(40, c.lived, c.done, c.why); got != c.want {
			t.Errorf("%s: %d steps, want %d", c.name, got, c.want)
		}
	}
	if got := stepsAfter(1, time.Second, 1, why); got != 1 {
		t.Errorf("the bound made it slower: %d", got)
	}
}

// The oldest frame of each model counts, from when it became the oldest.
func TestOverdue(t *testing.T) {
	s := fuzzSession()
	if err := s.overdue(time.Now().Add(time.Hour), time.Second); err != nil {
		t.Error("nothing in flight: ", err)
	}
	s.launch(ImageModel, 0)
	s.launch(ImageModel, 1)
	s.lines[ImageModel].since = time.Now().Add(-time.Minute)
	if s.overdue(time.Now(), time.Second) == nil {
		t.Error("a minute is within a second")
	}
	if err := s.complete(&wire.Done{Slot: 1, Sequence: 2}); err != nil {
		t.Fatal(err)
	}
	if s.overdue(time.Now(), time.Second) == nil {
		t.Error("a younger frame that is done excuses the older one")
	}
	s.launch(ImageModel, 2)
	s.lines[ImageModel].since = time.Now().Add(-24 * time.Hour)
	if err := s.complete(&wire.Done{Slot: 0, Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.overdue(time.Now(), time.Hour); err != nil {
		t.Error("it has become the oldest just now: ", err)
	}
	s.launch(TextModel, 0)
	s.lines[TextModel].since = time.Now().Add(-time.Minute)
	if s.overdue(time.Now(), time.Second) == nil {
		t.Error("a hanging text is not seen")
	}
}

// A device that stops for the heat may keep its frames for the limit; they count from when it goes on.
func TestHeatIsBounded(t *testing.T) {
	s := fuzzSession()
	s.launch(ImageModel, 0)
	s.lines[ImageModel].since = time.Now().Add(-24 * time.Hour)
	note := func(state uint32) {
		t.Helper()
		if err := s.note(&wire.Stats{Throttling: state}); err != nil {
			t.Fatal(err)
		}
	}
	for _, state := range []uint32{throttlingStopped, throttlingStopped + 1, throttlingShrink} {
		note(state)
		if err := s.overdue(s.pausedAt.Add(time.Second), time.Second); err != nil {
			t.Errorf("at throttling state %d: %v", state, err)
		}
		if err := s.overdue(s.pausedAt.Add(time.Second+1), time.Second); !errors.Is(err, errTooHot) {
			t.Errorf("at throttling state %d, when the time is over: %v", state, err)
		}
	}
	note(0)
	if err := s.overdue(time.Now(), time.Hour); err != nil {
		t.Error("it goes on: ", err)
	}
	s.lines[ImageModel].since = time.Now().Add(-time.Minute)
	if s.overdue(time.Now(), time.Second) == nil {
		t.Error("a device that went on and then hangs is not seen")
	}
}

// With nothing in flight a hot device may rest, if only its worker is alive.
func TestHotAndSilent(t *testing.T) {
	s := fuzzSession()
	if err := s.note(&wire.Stats{Throttling: throttlingStopped}); err != nil {
		t.Fatal(err)
	}
	s.pausedAt = s.pausedAt.Add(-time.Hour)
	if err := s.overdue(s.heard.Add(statsLate), time.Second); err != nil {
		t.Error(err)
	}
	if err := s.overdue(s.heard.Add(statsLate+2*time.Second), time.Second); !errors.Is(err, errTooHot) {
		t.Errorf("a silent worker: %v", err)
	}
}

// A model whose every frame fails is seen however well the other one does.
func TestFailuresCountByModel(t *testing.T) {
	s := fuzzSession()
	for i := 1; ; i++ {
		s.launch(ImageModel, 0)
		if err := s.complete(&wire.Done{Slot: 0, Sequence: s.b.sequence.Load()}); err != nil {
			t.Fatal(err)
		}
		<-s.lines[ImageModel].flights[0].result
		s.launch(TextModel, 0)
		err := s.complete(&wire.Done{Model: TextModel, Sequence: s.b.sequence.Load(), Status: wire.CodeStreamAbort})
		<-s.lines[TextModel].flights[0].result
		if (err != nil) != (i == maxFailures) {
			t.Fatalf("after %d texts that failed: %v", i, err)
		}
		if err != nil {
			return
		}
	}
}

func TestCRCErrorEndsTheSession(t *testing.T) {
	s := fuzzSession()
	if err := s.note(&wire.Stats{}); err != nil {
		t.Error(err)
	}
	if err := s.note(&wire.Stats{CRCErrors: 1}); err == nil || !strings.Contains(err.Error(), "CRC") {
		t.Errorf("error %v", err)
	}
}

// A worker whose every frame fails has done no work: the next start has to wait.
func TestFailedFramesAreNoWork(t *testing.T) {
	s := fuzzSession()
	s.launch(ImageModel, 0)
	if err := s.complete(&wire.Done{Slot: 0, Sequence: 1, Status: 8}); err != nil || s.done != 0 {
		t.Errorf("%d frames done, error %v", s.done, err)
	}
	s.launch(ImageModel, 1)
	if err := s.complete(&wire.Done{Slot: 1, Sequence: 2}); err != nil || s.done != 1 {
		t.Errorf("%d frames done, error %v", s.done, err)
	}
}

// A worker that its kill does not end, for it is stuck in the kernel, keeps neither those who wait for a
// frame nor Close.
func TestStuckWorker(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs") // open to the end
	defer theirs.Close()
	cmd := exec.Command("sleep", "1000") // stands for it; exited is never closed
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Wait() }()
	s := fuzzSession()
	s.b.log, s.b.opt.DeviceTimeout = slog.New(slog.DiscardHandler), 10*time.Millisecond
	s.proc = &process{conn: os.NewFile(uintptr(pair[0]), "ours"), cmd: cmd, exited: make(chan struct{})}
	s.launch(ImageModel, 0)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.serve(ctx) }()
	if r := <-s.lines[ImageModel].flights[0].result; !errors.Is(r.check(), hailo.ErrDeviceLost) {
		t.Error(r.check())
	}
	select {
	case err := <-served:
		t.Errorf("another worker may start while this one is there: %v", err)
	default:
	}
	stop()
	if err := <-served; err == nil || !strings.Contains(err.Error(), "no answer from the device") {
		t.Error(err)
	}
}

// A submit that waits in the full socket of a worker that does not read is ended with the session.
func TestLeaveEndsASend(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	for err == nil {
		_, err = unix.Write(pair[0], make([]byte, 24))
	}
	p := &process{conn: os.NewFile(uintptr(pair[0]), "ours")}
	defer p.conn.Close()
	sent := make(chan error)
	go func() { sent <- p.send(&wire.Submit{}) }()
	for stacks := make([]byte, 1<<20); ; time.Sleep(time.Millisecond) { // until it waits
		if n := runtime.Stack(stacks, true); strings.Contains(string(stacks[:n]), "[IO wait") {
			break
		}
	}
	p.leave()
	if err := <-sent; err == nil {
		t.Error("it was sent")
	}
}

func TestFindWorker(t *testing.T) {
	dir := t.TempDir()
	program, text := filepath.Join(dir, "program"), filepath.Join(dir, "text")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(text, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := FindWorker(program); got != program || err != nil {
		t.Error(got, err)
	}
	for path, want := range map[string]string{
		text: "is not a program", dir: "is not a program", filepath.Join(dir, "none"): "no such file", "": "/usr/lib/hailo-clip/hailo-clip-npu",
	} {
		if got, err := FindWorker(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
}
