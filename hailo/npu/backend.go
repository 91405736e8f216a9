// Package npu encodes images and texts on a Hailo-10H.
//
// The vendor's runtime is not loaded into this process. A worker process, hailo-clip-npu (C++,
// folder worker) or the simulated chip (package sim), holds the device; this package starts
// it, watches it, kills it when it hangs and starts it again. See [New], and package wire for how
// the two talk.
package npu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// The models, by which Metrics are counted.
const (
	ImageModel = wire.ImageModel
	TextModel  = wire.TextModel
	models     = wire.Models
)

// Settings of the vendor's scheduler and of the supervisor that nobody should need to change.
const (
	priorityNormal = 16 // HAILO_SCHEDULER_PRIORITY_NORMAL
	priorityText   = 17 // before images that wait, but never between them for long: see EncodeTexts
	groupTimeoutMS = 2  // how long the device waits for the rest of a group, which comes within microseconds
	maxRun         = 63 // frames in a run, a limit of the runtime

	throttlingShrink  = 3 // hailo notification 14: from here on less in flight
	throttlingStopped = 5 // the device does not stream any more

	statsLate    = 5 * time.Second        // the worker sends them every second
	silentAfter  = 3 * time.Second        // without a temperature: the chip does not answer any more
	leaveLimit   = 6 * time.Second        // for a worker to let go of the device, which it gives up after 5 s; then it is killed
	reapLimit    = 2 * time.Second        // for the end of a worker that was killed
	lastMessages = 100 * time.Millisecond // for what it had sent before
	unsettled    = 30 * time.Second       // after a loss the state is degraded for this long

	firstBackOff = 50 * time.Millisecond
	slowBackOff  = 20 * time.Second // the pace at which it is tried for ever
	workSteps    = 5                // at most, after a worker that encoded something: 0.8 s
	hardSteps    = 2                // at most, after one that encoded hardWork frames: 0.1 s
	hardWork     = 100
	slowSteps    = 10 // slowBackOff
)

// Options say what New starts.
type Options struct {
	Command   []string // the worker program and its arguments
	Simulated bool     // the worker is a simulated chip; New's worker must say the same of itself
	Config    Config

	ImageHEF      string        // path
	ImageSize     int           // pixels on a side
	Dimension     int           // of the embeddings
	BatchSize     int           // frames that the device runs at once, 1 to maxRun
	DeviceTimeout time.Duration // nothing done for this long while frames are in flight: the device hangs, or is too hot
	PublishedRate float64       // images/s in runs of eight, as the model's manifest has it, for Metrics; 0: not published
	SingleRate    float64       // likewise, in runs of one
	Text          *Text         // nil: texts are not encoded here
	ImageDigest   string        // for Info, as is TextDigest
	TextDigest    string
	Log           *slog.Logger
}

// Backend encodes on the device that a worker process holds. See New.
type Backend struct {
	opt    Options
	memory *wire.Memory
	frames *hailo.Frames
	stderr lineLog // of the workers

	calls  hailo.Calls
	turn   chan struct{} // holds one while a batch of texts has the text slots
	groups sync.Pool     // of *group that are not in use
	stop   context.CancelFunc
	ended  sync.WaitGroup // our goroutines

	current  atomic.Pointer[worker] // nil while there is no device
	sequence atomic.Uint64          // of frames submitted, over all workers

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when current changes
	info     hailo.Info
	restarts int   // workers lost after they had been ready
	failures int   // starts in a row that came to nothing
	last     error // why the last worker ended or the last start failed
	lostAt   time.Time
	rate     rateWatch
	metrics  Metrics
}

var _ hailo.Backend = (*Backend)(nil)

// New returns a backend that starts the worker in the background; Await waits for it. While no
// worker is ready, encoding fails at once with ErrDeviceLost and Status says why.
//
// A worker that crashes, hangs for DeviceTimeout, loses a frame, breaks the protocol or reports
// that its device is gone is asked to leave, then killed, and started again: at once if it had been well for half a
// minute, else ever slower, at last every 20 s, or every second if it encodes at least something
// each time. A device that stops for its heat with frames in flight ends the worker too, and has
// 20 s to cool down. What was in flight fails with ErrDeviceLost at once; only the next start
// waits for the end of the process, be it stuck in the kernel.
// It is not encoded again here: a start takes seconds on a real device, which few
// deadlines allow, and the caller may have another encoder.
//
// The frames live in one memory that all workers share one after the other. No worker is
// started before the one before it has been reaped, so none can write to a frame that
// somebody else has by now; an answer counts only with the sequence number of its submit.
func New(opt Options) (*Backend, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	// Twice what the device takes: the others are being filled and scored. An image may need eight (stages.MaxRegions).
	count := [models]int{max(2*opt.Config.InFlight, 8), 0}
	in := [models]int{opt.ImageSize * opt.ImageSize * 3, 0}
	out := [models]int{opt.Dimension * 4, 0} // FLOAT32 is the largest format
	if t := opt.Text; t != nil {
		count[TextModel] = opt.Config.TextBatch
		in[TextModel] = t.ContextLength * t.Width * 4
		out[TextModel] = t.ContextLength * t.Width * 4
	}
	mem, err := wire.NewMemory(count, in, out)
	if err != nil {
		return nil, err
	}
	pixels := make([][]byte, count[ImageModel])
	for i := range pixels {
		pixels[i] = mem.Input(ImageModel, i)[:in[ImageModel]:in[ImageModel]]
	}
	group := min(opt.BatchSize, opt.Config.InFlight)
	ctx, stop := context.WithCancel(context.Background())
	b := &Backend{
		opt: opt, memory: mem, stop: stop, stderr: lineLog{log: opt.Log},
		frames:  hailo.NewFrames(pixels, opt.Dimension),
		changed: make(chan struct{}), turn: make(chan struct{}, 1),
		info: hailo.Info{
			Backend: "npu", Simulated: opt.Simulated, Device: "not opened yet",
			ImageBatch: group, ImageCalls: (opt.Config.InFlight + group - 1) / group, Gathers: true,
			TextBatch: opt.Config.TextBatch, TextDigest: opt.TextDigest, ImageDigest: opt.ImageDigest,
		},
	}
	if opt.Simulated {
		b.info.Backend = "sim"
	}
	// Whoever holds a frame may touch its pixels, whatever happened to the backend: so the
	// memory goes when the last frame does.
	runtime.AddCleanup(b.frames, func(data []byte) { _ = unix.Munmap(data) }, mem.Data)
	b.ended.Go(func() { b.supervise(ctx) })
	return b, nil
}

// Validate says what New would refuse.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("npu: "+format, args...))
		}
	}
	check(len(o.Command) > 0, "no worker program")
	check(o.Log != nil, "no logger")
	check(len(o.ImageHEF) < len(wire.Text1024{}), "path of the image model has %d bytes, at most 1023", len(o.ImageHEF))
	check(o.ImageSize >= 1 && o.ImageSize <= 1024, "image size %d is out of bounds: 1 to 1024", o.ImageSize)
	const features = wire.MaxFeatures
	check(o.Dimension >= 1 && o.Dimension <= features, "dimension %d is out of bounds: 1 to %d", o.Dimension, features)
	check(o.BatchSize >= 1 && o.BatchSize <= maxRun, "batch size %d is out of bounds: 1 to %d", o.BatchSize, maxRun)
	check(o.DeviceTimeout >= 10*time.Millisecond, "device timeout %v is out of bounds: at least 10ms", o.DeviceTimeout)
	if o.Text != nil {
		o.Text.validate(o.Dimension, check)
	}
	return errors.Join(errs...)
}

// checkLoaded says whether a model that the worker has loaded is what we expect.
func (b *Backend) checkLoaded(model int, l *wire.Loaded) error {
	rows, width := b.opt.ImageSize*b.opt.ImageSize, 3
	outRows, outWidth := 1, b.opt.Dimension
	least := 1
	if t := b.opt.Text; model == TextModel {
		rows, width = t.ContextLength, t.Width
		outRows, outWidth = rows, width
		least = b.opt.Config.TextBatch
	}
	err := cmp.Or(l.Input.Validate("input", rows, width), l.Output.Validate("output", outRows, outWidth),
		l.Output.Convertible("output"))
	if err == nil && model == TextModel { // pixels go as they are
		err = l.Input.Convertible("input")
	}
	switch {
	case err != nil:
		return err
	case model == ImageModel && l.Input.Format != wire.FormatUint8:
		return fmt.Errorf("input: format %d, want UINT8", l.Input.Format)
	case int64(l.QueueDepth) < int64(least) || l.QueueDepth > math.MaxInt16:
		return fmt.Errorf("queue depth %d, want at least %d", l.QueueDepth, least)
	}
	return nil
}

// Await blocks until a worker is ready (nil), or ctx ends; then the error says what the last
// start failed with.
func (b *Backend) Await(ctx context.Context) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if w := b.current.Load(); w != nil && w.life.Err() == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			b.mu.Lock()
			last := b.last
			b.mu.Unlock()
			if last == nil {
				last = context.Cause(ctx)
			}
			return lost(last)
		}
	}
}

// worker returns the one in charge, or an ErrDeviceLost that says why there is none.
func (b *Backend) worker() (*worker, error) {
	w := b.current.Load()
	if w == nil {
		return nil, lost(errors.New(b.Status().Reason()))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.life.Err() != nil:
		return nil, lost(context.Cause(w.life))
	case w.paused:
		return nil, lost(errTooHot)
	}
	return w, nil
}

// Frames implements hailo.Backend: frames in the memory shared with the worker.
func (b *Backend) Frames() *hailo.Frames { return b.frames }

// EncodeImages implements hailo.Backend. The frames of a call reach the device as one group: a free one runs them together. It
// gathers those of several calls too. When ctx ends after frames were given to the device, it still waits for the device to finish
// them, or for the end of the worker.
func (b *Backend) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	if err := b.calls.Enter(); err != nil {
		return err
	}
	defer b.calls.Leave()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(frames) == 0:
		return nil
	case len(frames) > b.info.ImageBatch:
		return fmt.Errorf("%w: %d frames in one call, at most %d", hailo.ErrEncode, len(frames), b.info.ImageBatch)
	}
	for _, f := range frames {
		if err := b.own(f); err != nil {
			return err
		}
	}
	w, err := b.worker()
	if err != nil {
		return err
	}
	for part := range slices.Chunk(frames, cap(w.places)) { // one, unless the runtime's queue is shorter than a batch
		if err := b.encodeGroup(ctx, w, part); err != nil {
			return err
		}
	}
	return nil
}

// encodeGroup takes frames through the device together. The error is the first of theirs, a lost device before others.
func (b *Backend) encodeGroup(ctx context.Context, w *worker, frames []*hailo.Frame) (err error) {
	out := &w.loaded[ImageModel].Output
	g := b.newGroup()
	defer b.free(g)
	for _, f := range frames {
		g.add(f.Slot, b.memory.Output(ImageModel, f.Slot)[:out.FrameBytes])
	}
	if err = w.submitImages(ctx, g); err != nil {
		return err
	}
	<-g.done
	for i, f := range frames {
		f.Run = g.ends[i].run
		failed := g.ends[i].err
		if failed == nil {
			failed = written(g.outputs[i])
		}
		if failed == nil {
			out.Decode(f.Embedding, g.outputs[i])
			failed = normalize(f.Embedding)
		}
		if err == nil || errors.Is(failed, hailo.ErrDeviceLost) {
			err = failed
		}
	}
	runtime.KeepAlive(b.frames) // or the memory could be unmapped under the reading
	return err
}

// own checks that a frame is one of ours.
func (b *Backend) own(f *hailo.Frame) error {
	if f.Slot < 0 || f.Slot >= b.frames.Len() ||
		unsafe.SliceData(f.Pixels) != unsafe.SliceData(b.memory.Input(ImageModel, f.Slot)) || len(f.Embedding) != b.opt.Dimension {
		return fmt.Errorf("%w: the frame is not from this backend's pool", hailo.ErrEncode)
	}
	return nil
}

// Info implements hailo.Backend. Device is known once Await has returned nil.
func (b *Backend) Info() hailo.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.info
}

// Close implements hailo.Backend. It waits for the worker, which gets 6 s to release the
// device before it is killed. May be called again.
func (b *Backend) Close() error {
	b.calls.Close()
	b.stop()
	b.ended.Wait()
	if err := b.memory.File.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
