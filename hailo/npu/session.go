package npu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"hailoclip/hailo"
)

const models = 2 // image and text

// maxFailures is how many frames in a row the device may fail before the worker is replaced.
const maxFailures = 8

// A session is one worker from its start to its end. Everything that it promised ends with it:
// finish answers what is in flight, once the process cannot write to any frame any more.
type session struct {
	b      *Backend
	proc   *process
	hello  Hello
	loaded [models]*Loaded

	// One token for each image frame in flight; its capacity is the limit.
	tokens chan struct{}
	dead   chan struct{} // closed when nothing may be submitted any more

	mu       sync.Mutex
	changed  *sync.Cond // an image was done, or the session is dead
	reason   error      // why it is dead, nil while it lives
	lines    [models]lane
	failures int    // frames failed in a row
	done     uint64 // frames done
	withheld int    // tokens not given back because the device is hot
	stats    Stats
	paused   bool // the device has stopped its streams because of its heat
}

// lane is what is in flight for one model.
type lane struct {
	flights []flight  // by slot
	n       int       // in flight
	head    uint64    // the oldest sequence in flight
	since   time.Time // when it became the oldest
	done    uint64    // frames done
}

// flight is a slot. Its sequence is 0 while it is not in flight.
type flight struct {
	sequence uint64
	result   chan result // gets exactly one result for each submit
}

type result struct {
	status Code
	err    error // the session ended: an ErrDeviceLost
}

// check turns a result into an error.
func (r result) check() error {
	switch {
	case r.err != nil:
		return r.err
	case r.status.deviceLost():
		return fmt.Errorf("%w: %v", hailo.ErrDeviceLost, r.status)
	case r.status != Success:
		return fmt.Errorf("%w: the device says %v", hailo.ErrEncode, r.status)
	}
	return nil
}

// openSession starts a worker and brings it to where frames can be submitted.
// Until it returns nil the caller has nothing to close.
func (b *Backend) openSession(ctx context.Context) (*session, error) {
	proc, err := startProcess(b.opt.Command, b.memory.file, b.log)
	if err != nil {
		return nil, err
	}
	s := &session{b: b, proc: proc, dead: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	stop := context.AfterFunc(ctx, proc.kill)
	err = s.handshake()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		proc.kill()
		<-proc.exited
		proc.conn.Close()
		if errors.Is(err, io.EOF) || errors.Is(err, errSocket) {
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
	open := &Open{Magic: Magic, Version: Version, Memory: uint64(len(s.b.memory.data))}
	SetText(open.Device[:], o.Config.Device)
	SetText(open.Group[:], o.Config.Group)
	m, err := s.ask(open, "open the device")
	if err != nil {
		return err
	}
	hello, ok := m.(*Hello)
	switch {
	case !ok:
		return fmt.Errorf("%w: %T instead of hello", ErrProtocol, m)
	case hello.Magic != Magic:
		return fmt.Errorf("%w: hello with magic %#x", ErrProtocol, hello.Magic)
	case hello.Version != Version:
		return fmt.Errorf("the worker speaks version %d of the protocol, this program %d: install both from the same release",
			hello.Version, Version)
	case hello.Status != Success:
		return &DeviceError{Doing: "open the device", Code: hello.Status, Text: hello.Text.String()}
	case (hello.Simulated != 0) != o.Simulated:
		return fmt.Errorf("the worker says simulated %d, configured is simulated %v", hello.Simulated, o.Simulated)
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
	// Never more in flight than the device takes.
	depth := min(o.Config.InFlight, int(s.loaded[ImageModel].QueueDepth))
	s.tokens = make(chan struct{}, depth)
	return s.proc.conn.SetDeadline(time.Time{}) // from here on the watchdog sets the limits
}

// load has the worker load a model, and checks that it is the one we expect.
func (s *session) load(model int, hef string) error {
	in, out := s.b.memory.input[model], s.b.memory.output[model]
	load := &Load{
		Model: uint32(model), Batch: uint32(s.b.opt.BatchSize), Priority: priorityNormal,
		InputFormat: FormatUint8, OutputFormat: FormatNative,
		Slots:       uint32(in.count),
		InputOffset: uint64(in.offset), InputStride: uint64(in.stride),
		OutputOffset: uint64(out.offset), OutputStride: uint64(out.stride),
	}
	if model == TextModel {
		load.Batch, load.Priority, load.InputFormat = uint32(s.b.opt.Config.TextBatch), priorityText, FormatNative
		// The texts of a batch are submitted one after the other within microseconds. Without
		// a threshold an idle device would run the first one alone, which costs a whole run.
		load.Threshold, load.TimeoutMS = load.Batch, textTimeoutMS
	}
	SetText(load.HEF[:], hef)
	m, err := s.ask(load, "load "+hef)
	if err != nil {
		return err
	}
	l, ok := m.(*Loaded)
	switch {
	case !ok || l.Model != uint32(model):
		return fmt.Errorf("%w: not the loaded message of model %d", ErrProtocol, model)
	case l.Status != Success:
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
func (s *session) ask(question message, doing string) (message, error) {
	limit := s.b.opt.Config.startTimeout()
	if err := s.proc.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, fmt.Errorf("%w: %w", errSocket, err)
	}
	if err := s.proc.send(question); err != nil {
		return nil, fmt.Errorf("%w: %w", errSocket, err)
	}
	buf := make([]byte, MaxPacket+1)
	for {
		m, err := s.proc.receive(buf)
		switch {
		case errors.Is(err, ErrProtocol):
			return nil, err
		case isTimeout(err):
			return nil, fmt.Errorf("%s: no answer from the worker within %v", doing, limit)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errSocket, err)
		}
		if stats, ok := m.(*Stats); ok {
			s.note(stats)
			continue
		}
		return m, nil
	}
}

// submit gives a slot to the device, and returns the channel that gets its result. With an
// error nothing was submitted. Images wait here for their turn when enough are in flight.
func (s *session) submit(ctx context.Context, model, slot int) (<-chan result, error) {
	if model == ImageModel {
		select {
		case s.tokens <- struct{}{}:
		case <-s.dead:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s.mu.Lock()
	l := &s.lines[model]
	f := &l.flights[slot]
	switch {
	case s.reason != nil:
		err := lost(s.reason)
		s.mu.Unlock()
		return nil, err
	case f.sequence != 0:
		if model == ImageModel {
			<-s.tokens
		}
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: frame %d is being encoded already", hailo.ErrEncode, slot)
	}
	now := time.Now()
	f.sequence = s.b.sequence.Add(1)
	if l.n++; l.n == 1 {
		l.head, l.since = f.sequence, now
	}
	s.b.noteRate(now, s, 0)
	m := &Submit{Model: uint32(model), Slot: uint32(slot), Sequence: f.sequence}
	s.mu.Unlock()
	if err := s.proc.send(m); err != nil {
		// The frame counts as in flight: it is answered with all others when the worker is gone.
		s.end(fmt.Errorf("%w: %w", errSocket, err))
	}
	return f.result, nil
}

// read handles what the worker says, until it breaks off or breaks the rules.
func (s *session) read() error {
	buf := make([]byte, MaxPacket+1)
	for {
		m, err := s.proc.receive(buf)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				err = fmt.Errorf("%w: %w", errSocket, err)
			}
			return err
		}
		switch m := m.(type) {
		case *Done:
			err = s.complete(m)
		case *Stats:
			s.note(m)
		default:
			err = fmt.Errorf("%w: unexpected %T", ErrProtocol, m)
		}
		if err != nil {
			return err
		}
	}
}

// complete handles the end of a frame. An error means that the worker must be replaced.
func (s *session) complete(d *Done) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Model >= models || int64(d.Slot) >= int64(len(s.lines[d.Model].flights)) {
		return fmt.Errorf("%w: done for model %d, slot %d", ErrProtocol, d.Model, d.Slot)
	}
	l := &s.lines[d.Model]
	f := &l.flights[d.Slot]
	if f.sequence == 0 || f.sequence != d.Sequence {
		return fmt.Errorf("%w: done for model %d, slot %d, sequence %d, in flight is %d (0: nothing)",
			ErrProtocol, d.Model, d.Slot, d.Sequence, f.sequence)
	}
	f.sequence = 0
	l.n--
	s.done++
	now := time.Now()
	if l.head == d.Sequence {
		l.advance(now)
	}
	images := 0
	if d.Model == ImageModel {
		images = 1
		s.giveBack()
	}
	s.b.noteRate(now, s, images)
	s.b.noteDone(d)
	f.result <- result{status: d.Status}
	s.changed.Broadcast()
	if d.Status == Success {
		s.failures = 0
		return nil
	}
	s.failures++
	if s.failures >= maxFailures || d.Status.deviceLost() {
		return fmt.Errorf("%d frames failed in a row, the last with %v", s.failures, d.Status)
	}
	return nil
}

// advance finds the oldest frame in flight.
func (l *lane) advance(now time.Time) {
	l.head, l.since = 0, now
	for _, f := range l.flights {
		if f.sequence != 0 && (l.head == 0 || f.sequence < l.head) {
			l.head = f.sequence
		}
	}
}

// overdue says whether the device hangs or has lost a frame: the oldest frame of each model
// has to be done within the limit of becoming the oldest.
func (s *session) overdue(now time.Time, limit time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for model, l := range s.lines {
		if l.n > 0 && now.Sub(l.since) > limit {
			return fmt.Errorf("no answer from the device for %v, %d frames of model %d in flight", limit, l.n, model)
		}
	}
	return nil
}

// note keeps the device's state, and lets less in flight while it is hot.
func (s *session) note(stats *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats = *stats
	switch {
	case stats.Throttling >= throttlingStopped:
		s.paused = true
	case stats.Throttling == 0:
		s.paused = false
	}
	if stats.Throttling < throttlingShrink {
		for ; s.withheld > 0; s.withheld-- {
			<-s.tokens
		}
	}
}

// giveBack frees the place of an image that is done, or withholds it while the device is hot:
// then one batch is in flight instead of several.
func (s *session) giveBack() {
	if s.stats.Throttling >= throttlingShrink && s.withheld < cap(s.tokens)-s.b.opt.BatchSize {
		s.withheld++
		return
	}
	<-s.tokens
}

// waitImages waits until the images submitted up to a sequence are done, or the session is dead.
func (s *session) waitImages(upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := &s.lines[ImageModel]; l.n > 0 && l.head <= upTo && s.reason == nil; {
		s.changed.Wait()
	}
}

// end makes the session dead and kills the worker. The first reason counts.
func (s *session) end(reason error) {
	s.mu.Lock()
	if s.reason == nil {
		s.reason = reason
		close(s.dead)
		s.changed.Broadcast()
	}
	s.mu.Unlock()
	s.proc.kill()
}

// serve runs the session until its worker has ended and everything in flight is answered. It
// returns why. When ctx ends the worker is asked to end, and killed when it does not.
func (s *session) serve(ctx context.Context) error {
	reading := make(chan error, 1)
	go func() { reading <- s.read() }()
	limit := s.b.opt.DeviceTimeout
	tick := time.NewTicker(max(limit/8, time.Millisecond))
	defer tick.Stop()
	stop, killAt := ctx.Done(), (<-chan time.Time)(nil)
	suspect := false
	for {
		select {
		case now := <-tick.C:
			// Twice in a row: if it was us who did not get to run, the answers may be waiting.
			err := s.overdue(now, limit)
			if err != nil && suspect {
				s.end(err)
			}
			suspect = err != nil
		case <-stop:
			stop = nil
			if err := s.proc.send(&Shutdown{}); err != nil {
				s.proc.kill()
			}
			timer := time.NewTimer(shutdownLimit)
			defer timer.Stop()
			killAt = timer.C
		case <-killAt:
			s.proc.kill()
		case err := <-reading:
			return s.finish(err)
		}
	}
}

// finish reaps the worker and answers what is in flight.
func (s *session) finish(err error) error {
	s.end(err) // a no-op when there was a reason before
	<-s.proc.exited
	s.proc.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.reason, errSocket) {
		s.reason = fmt.Errorf("the worker ended: %s", s.proc.describe())
	}
	for model := range s.lines {
		l := &s.lines[model]
		for i := range l.flights {
			if f := &l.flights[i]; f.sequence != 0 {
				f.sequence = 0
				f.result <- result{err: lost(s.reason)}
			}
		}
		l.n = 0
	}
	return s.reason
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// lost is the error of whoever needed a worker that is gone.
func lost(reason error) error { return fmt.Errorf("%w: %w", hailo.ErrDeviceLost, reason) }
