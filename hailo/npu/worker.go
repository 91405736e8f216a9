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

// A worker is one worker process from its start to its end. Everything that it promised ends with it:
// finish answers what is in flight, and the next one starts when its process can write to no frame any more.
type worker struct {
	b      *Backend
	proc   *process
	hello  wire.Hello
	loaded [models]*wire.Loaded

	places chan struct{}   // holds one for each image in flight; its capacity is the limit
	order  chan struct{}   // holds one while a group of images waits for its places and is submitted
	life   context.Context // ended when nothing may be submitted any more; its cause is why
	end    context.CancelCauseFunc

	mu       sync.Mutex
	changed  *sync.Cond // a frame was done, or life has ended
	inFlight [models]inFlight
	opened   time.Time
	done     uint64 // frames done with success
	withheld int    // places not given back because the device is hot
	stats    wire.Stats
	heard    time.Time     // of the last stats
	answered time.Time     // when the chip did: the last temperature, or frame done
	paused   bool          // the device has stopped its streams because of its heat
	pausedAt time.Time     // since then
	stopped  chan struct{} // closed while paused
}

func newWorker(ctx context.Context, b *Backend, proc *process) *worker {
	w := &worker{b: b, proc: proc, stopped: make(chan struct{}), order: make(chan struct{}, 1)}
	w.life, w.end = context.WithCancelCause(ctx)
	w.changed = sync.NewCond(&w.mu)
	context.AfterFunc(w.life, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changed.Broadcast()
	})
	return w
}

// startWorker starts a process and brings it to where frames can be submitted.
// Until it returns nil the caller has nothing to close.
func (b *Backend) startWorker(ctx context.Context) (*worker, error) {
	proc, err := startProcess(b.opt.Command, b.memory.File, &b.stderr)
	if err != nil {
		return nil, err
	}
	w := newWorker(ctx, b, proc)
	stop := context.AfterFunc(ctx, proc.leave)
	err = w.handshake()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return w, nil
	}
	w.end(err)
	reaped := proc.stop(ctx, false, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last = fmt.Errorf("its worker was killed and does not end, after: %w", err)
	})
	proc.conn.Close()
	if reaped && errors.Is(err, errSocket) {
		return nil, fmt.Errorf("the worker ended while it started: %s", proc.describe())
	}
	return nil, err
}

func (w *worker) handshake() error {
	o := w.b.opt
	open := &wire.Open{Magic: wire.Magic, Version: wire.Version, Memory: uint64(len(w.b.memory.Data))}
	wire.SetText(open.Device[:], o.Config.Device)
	wire.SetText(open.Group[:], o.Config.Group)
	m, err := w.ask(open, "open the device")
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
	w.hello = *hello
	if err := w.load(ImageModel, o.ImageHEF); err != nil {
		return err
	}
	if o.Text != nil {
		if err := w.load(TextModel, o.Text.HEF); err != nil {
			return err
		}
	}
	w.opened = time.Now()
	w.answered = w.opened
	// Never more in flight than the device takes.
	w.places = make(chan struct{}, min(o.Config.InFlight, int(w.loaded[ImageModel].QueueDepth)))
	return w.proc.conn.SetDeadline(time.Time{}) // from here on the watchdog sets the limits
}

// load has the worker load a model, and checks that it is the one we expect.
func (w *worker) load(model int, hef string) error {
	load := w.b.memory.Load[model]
	load.Batch, load.Priority = uint32(w.b.opt.BatchSize), priorityNormal
	load.InputFormat, load.OutputFormat, load.TimeoutMS = wire.FormatUint8, wire.FormatNative, groupTimeoutMS
	if model == TextModel {
		load.Batch, load.Priority, load.InputFormat = uint32(w.b.opt.Config.TextBatch), priorityText, wire.FormatNative
		// The texts of a batch are submitted one after the other within microseconds. Without
		// a threshold an idle device would run the first one alone, which costs a whole run.
		load.Threshold = load.Batch
	}
	w.inFlight[model].threshold = max(1, int(load.Threshold))
	wire.SetText(load.HEF[:], hef)
	m, err := w.ask(&load, "load "+hef)
	if err != nil {
		return err
	}
	l, ok := m.(*wire.Loaded)
	switch {
	case !ok || l.Model != uint32(model):
		return fmt.Errorf("%w: not the loaded message of model %d", wire.ErrProtocol, model)
	case l.Status != wire.Success:
		return refused("load "+hef, l.Status, l.Text.String())
	}
	if err := w.b.checkLoaded(model, l); err != nil {
		return fmt.Errorf("%s: %w", hef, err)
	}
	w.loaded[model] = l
	w.inFlight[model].slots = make([]pending, load.Slots)
	return nil
}

// ask sends a message and waits for the answer, at most the start timeout.
func (w *worker) ask(question wire.Message, doing string) (wire.Message, error) {
	limit := w.b.opt.Config.StartTimeout
	err := w.proc.conn.SetDeadline(time.Now().Add(limit))
	if err == nil {
		err = w.proc.send(question)
	}
	for err == nil {
		var m wire.Message
		if m, err = w.proc.receive(); err == nil {
			stats, ok := m.(*wire.Stats)
			if !ok {
				return m, nil
			}
			err = w.setStats(stats)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%s: no answer from the worker within %v", doing, limit)
	}
	return nil, err
}

// device describes what the worker has opened.
func (w *worker) device() string {
	return fmt.Sprintf("%s %s, HailoRT %s", w.hello.Architecture, w.hello.Device, w.hello.Runtime)
}

// lost wraps the reason why there is no worker into ErrDeviceLost.
func lost(reason error) error { return fmt.Errorf("%w: %w", hailo.ErrDeviceLost, reason) }

// refused is the error of a device that does not open, or a model that does not load; text may be "".
func refused(doing string, code wire.Code, text string) error {
	if text != "" {
		text = ": " + text
	}
	return fmt.Errorf("cannot %s: %v%s", doing, code, text)
}
