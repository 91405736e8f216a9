package npu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// maxFailures is how many frames of a model in a row the device may fail before the worker is replaced.
const maxFailures = 8

// A session is one worker from its start to its end. Everything that it promised ends with it:
// finish answers what is in flight, and the next one starts when its process can write to no frame any more.
type session struct {
	b      *Backend
	proc   *process
	hello  wire.Hello
	loaded [models]*wire.Loaded

	// One token for each image frame in flight; its capacity is the limit.
	tokens chan struct{}
	dead   chan struct{} // closed when nothing may be submitted any more

	mu       sync.Mutex
	changed  *sync.Cond // an image was done, or the session is dead
	reason   error      // why it is dead, nil while it lives
	lines    [models]lane
	opened   time.Time
	done     uint64 // frames done with success
	withheld int    // tokens not given back because the device is hot
	stats    wire.Stats
	heard    time.Time     // of the last stats
	answered time.Time     // when the chip did: the last temperature, or frame done
	paused   bool          // the device has stopped its streams because of its heat
	pausedAt time.Time     // since then
	stopped  chan struct{} // closed while paused
}

// openSession starts a worker and brings it to where frames can be submitted.
// Until it returns nil the caller has nothing to close.
func (b *Backend) openSession(ctx context.Context) (*session, error) {
	proc, err := startProcess(b.opt.Command, b.memory.file, &b.stderr)
	if err != nil {
		return nil, err
	}
	s := &session{b: b, proc: proc, dead: make(chan struct{}), stopped: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	stop := context.AfterFunc(ctx, proc.leave)
	err = s.handshake()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		reaped := s.part(false)
		if !reaped {
			s.b.mu.Lock()
			s.b.last = fmt.Errorf("its worker was killed and does not end, after: %w", err)
			s.b.mu.Unlock()
			reaped = proc.reap(ctx)
		}
		proc.conn.Close()
		if reaped && errors.Is(err, errSocket) {
			return nil, fmt.Errorf("the worker ended while it started: %s", proc.describe())
		}
		return nil, err
	}
	return s, nil
}

// errSocket marks errors of the socket, which say less than how the process ended.
var errSocket = errors.New("worker socket")

func (s *session) handshake() error {
	o := s.b.opt
	open := &wire.Open{Magic: wire.Magic, Version: wire.Version, Memory: uint64(len(s.b.memory.data))}
	wire.SetText(open.Device[:], o.Config.Device)
	wire.SetText(open.Group[:], o.Config.Group)
	m, err := s.ask(open, "open the device")
	if err != nil {
		return err
	}
	hello, ok := m.(*wire.Hello)
	switch {
	case !ok:
		return fmt.Errorf("%w: %T instead of hello", wire.ErrProtocol, m)
	case hello.Magic != wire.Magic:
		return fmt.Errorf("%w: hello with magic %#x", wire.ErrProtocol, hello.Magic)
	case hello.Version != wire.Version:
		return fmt.Errorf("the worker speaks version %d of the protocol, this program %d: install both from the same release",
			hello.Version, wire.Version)
	case hello.Status == wire.Success && (hello.Simulated != 0) != o.Simulated:
		return fmt.Errorf("the worker says simulated %d, configured is simulated %v", hello.Simulated, o.Simulated)
	}
	if err := checkHello(hello, o.Config.Device); err != nil {
		return err
	}
	s.hello = *hello
	if err := s.load(ImageModel, o.ImageHEF); err != nil {
		return err
	}
	if o.Text != nil {
		if err := s.load(TextModel, o.Text.HEF); err != nil {
			return err
		}
	}
	s.opened = time.Now()
	s.answered = s.opened
	// Never more in flight than the device takes.
	depth := min(o.Config.InFlight, int(s.loaded[ImageModel].QueueDepth))
	s.tokens = make(chan struct{}, depth)
	return s.proc.conn.SetDeadline(time.Time{}) // from here on the watchdog sets the limits
}

// load has the worker load a model, and checks that it is the one we expect.
func (s *session) load(model int, hef string) error {
	in, out := s.b.memory.input[model], s.b.memory.output[model]
	load := &wire.Load{
		Model: uint32(model), Batch: uint32(s.b.opt.BatchSize), Priority: priorityNormal,
		InputFormat: wire.FormatUint8, OutputFormat: wire.FormatNative,
		Slots:       uint32(in.count),
		InputOffset: uint64(in.offset), InputStride: uint64(in.stride),
		OutputOffset: uint64(out.offset), OutputStride: uint64(out.stride),
	}
	if model == TextModel {
		load.Batch, load.Priority, load.InputFormat = uint32(s.b.opt.Config.TextBatch), priorityText, wire.FormatNative
		// The texts of a batch are submitted one after the other within microseconds. Without
		// a threshold an idle device would run the first one alone, which costs a whole run.
		load.Threshold, load.TimeoutMS = load.Batch, textTimeoutMS
	}
	wire.SetText(load.HEF[:], hef)
	m, err := s.ask(load, "load "+hef)
	if err != nil {
		return err
	}
	l, ok := m.(*wire.Loaded)
	switch {
	case !ok || l.Model != uint32(model):
		return fmt.Errorf("%w: not the loaded message of model %d", wire.ErrProtocol, model)
	case l.Status != wire.Success:
		return &DeviceError{Doing: "load " + hef, Code: l.Status, Text: l.Text.String()}
	}
	if err := s.b.checkLoaded(model, l); err != nil {
		return fmt.Errorf("%s: %w", hef, err)
	}
	s.loaded[model] = l
	s.lines[model].flights = make([]flight, in.count)
	for i := range s.lines[model].flights {
		s.lines[model].flights[i].result = make(chan result, 1)
	}
	return nil
}

// ask sends a message and waits for the answer, at most the start timeout.
func (s *session) ask(question wire.Message, doing string) (wire.Message, error) {
	limit := s.b.opt.Config.StartTimeout
	if err := s.proc.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, fmt.Errorf("%w: %w", errSocket, err)
	}
	if err := s.proc.send(question); err != nil {
		return nil, fmt.Errorf("%w: %w", errSocket, err)
	}
	buf := make([]byte, wire.MaxPacket+1)
	for {
		m, err := s.proc.receive(buf)
		switch {
		case errors.Is(err, wire.ErrProtocol):
			return nil, err
		case isTimeout(err):
			return nil, fmt.Errorf("%s: no answer from the worker within %v", doing, limit)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errSocket, err)
		}
		if stats, ok := m.(*wire.Stats); ok {
			if err := s.note(stats); err != nil {
				return nil, err
			}
			continue
		}
		return m, nil
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// lost is the error of whoever needed a worker that is gone.
func lost(reason error) error { return fmt.Errorf("%w: %w", hailo.ErrDeviceLost, reason) }

// DeviceError says that the device could not be opened or a model not be loaded.
type DeviceError struct {
	Doing string // "open the device", "load PATH"
	Code  wire.Code
	Text  string // what the worker says about it; may be ""
}

func (e *DeviceError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("cannot %s: %v", e.Doing, e.Code)
	}
	return fmt.Sprintf("cannot %s: %v: %s", e.Doing, e.Code, e.Text)
}
