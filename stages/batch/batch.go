// Package batch gathers the frames of several callers into groups that a backend encodes together, and decides when a group
// starts: at once, or after a short wait for callers that are known to send their next frame soon after an answer.
package batch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// Batcher stands in front of a backend. Frames wait in the order in which they come; as many as fit go together. For a device
// that makes its runs itself (hailo.Info.Gathers) it waits for returning callers as rule says:
//
//   - A full group is given to the device at once, behind the run that goes on.
//   - While the device works, fewer wait until it is free if somebody is expected back; otherwise each is given to the device
//     at once, which takes all that it has together.
//   - A free device starts with what waits, or first waits for who is expected.
//
// Any other backend has as many calls as keep it busy, and a call takes what waits. Safe for concurrent use.
type Batcher struct {
	backend hailo.Backend
	info    hailo.Info
	maxWait time.Duration
	calls   sync.Pool // of *call that are not in use
	idle    sync.Pool // of *group

	measuring sync.WaitGroup

	mu      sync.Mutex
	rule    rule
	waiting []entry
	device  []*caller // of the frames that the backend has
	running []*group  // calls of the backend, but for those that are stuck
	away    bool      // the last frames were encoded by something that stands in for the device
	unknown bool      // the device is still to be measured, when it has nothing to do
	tried   time.Time // when that began last
	timer   *time.Timer
	held    time.Time // since then a free device waits; zero: it does not
	freed   time.Time // when the device had nothing more to do
	stats   Stats
}

// Stats counts since the start.
type Stats struct {
	Groups []uint64      // Groups[n]: calls of the backend with n frames; the last one counts all larger too
	Held   uint64        // groups for which a free device waited
	Hold   time.Duration // for how long, in all
}

// entry is a frame that waits.
type entry struct {
	*call
	ctx   context.Context // of the call
	frame *hailo.Frame
	since time.Time
}

// call is one of Encode; Batcher.mu guards it.
type call struct {
	caller *caller
	left   int // frames not done
	err    error
	done   chan struct{} // gets a value when left is 0
}

const (
	maxGroup = 64 // largest group with a count of its own
	patience = 10 // full runs: so long a frame waits behind those that the device has, texts included, before it is given to it too
)

// New makes a batcher for a backend. maxWait is how long a frame waits for others in any case, 0 as a rule. It measures the
// device if that is ready, which takes six runs, or else when it first has nothing to do. The caller closes it before the backend.
func New(backend hailo.Backend, maxWait time.Duration) *Batcher {
	b := &Batcher{backend: backend, info: backend.Info(), maxWait: maxWait}
	b.rule.cap, b.info.ImageCalls = max(b.info.ImageBatch, 1), max(b.info.ImageCalls, 1)
	b.stats.Groups = make([]uint64, min(b.rule.cap, maxGroup)+1)
	b.calls.New = func() any { return &call{done: make(chan struct{}, 1)} }
	b.idle.New = func() any {
		g := &group{}
		g.run = func() { b.run(g) }
		return g
	}
	b.timer = time.AfterFunc(time.Hour, b.wake)
	b.timer.Stop()
	if b.info.Gathers && b.rule.cap > 1 {
		b.unknown = true
		if backend.Status().Ready {
			b.tried = time.Now()
			b.measure()
		}
	}
	return b
}

// Close waits for a measurement to end. Nobody may be inside Encode.
func (b *Batcher) Close() {
	b.mu.Lock()
	b.unknown = false
	b.timer.Stop()
	b.mu.Unlock()
	b.measuring.Wait()
}

// Room is how many frames it takes without a wait for a call of the backend to end: with more calls of Encode than that nothing
// is gained.
func (b *Batcher) Room() int { return b.info.ImageCalls * b.rule.cap }

// Rate is how many frames a second the device encodes in full runs, as measured; 0: not known. It allocates nothing.
func (b *Batcher) Rate() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rule.a <= 0 || b.away {
		return 0
	}
	return float64(b.rule.cap) / b.rule.full().Seconds()
}

// Stats returns the counters.
func (b *Batcher) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Groups = slices.Clone(s.Groups)
	return s
}

// Encode encodes the frames of a caller, in one or more groups, perhaps with those of others. It blocks until all are done, or
// until ctx ends while they still wait; then, too, nothing touches the frames any more. A frame that the encoder refuses fails
// alone; of several of one call the first error counts. Errors: those of the backend, or the cause of ctx.
func (b *Batcher) Encode(ctx context.Context, from fair.Caller, frames ...*hailo.Frame) error {
	if len(frames) == 0 {
		return nil
	}
	c := b.calls.Get().(*call)
	c.left, c.err = len(frames), nil
	b.mu.Lock()
	now := time.Now()
	c.caller = b.rule.caller(from)
	for _, f := range frames {
		b.rule.ready(now, c.caller)
		b.waiting = append(b.waiting, entry{c, ctx, f, now})
	}
	b.begin(now)
	b.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		b.giveUp(c, context.Cause(ctx))
		<-c.done
	}
	err := c.err
	c.caller = nil
	b.calls.Put(c)
	return err
}

// giveUp takes the frames of a call that still wait out of the queue; cause is their error.
func (b *Batcher) giveUp(c *call, cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.waiting)
	b.waiting = slices.DeleteFunc(b.waiting, func(e entry) bool { return e.call == c })
	for range before - len(b.waiting) {
		c.finish(cause)
	}
	if len(b.waiting) == 0 {
		b.held = time.Time{} // nobody waits with the device any more
	}
	b.begin(time.Now())
}

// finish notes that one of the frames is done, or failed with err.
func (c *call) finish(err error) {
	if c.err == nil {
		c.err = err
	}
	if c.left--; c.left == 0 {
		c.done <- struct{}{}
	}
}

// wake is for the timer.
func (b *Batcher) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begin(time.Now())
}

// decide starts what may start, or sets the timer for it. It returns the first group that it starts, which the caller has to run,
// or nil. The caller holds mu.
func (b *Batcher) decide(now time.Time) (first *group) {
	for i := 0; i < len(b.running); i++ {
		if g := b.running[i]; !g.stuck.IsZero() && now.After(g.stuck) {
			b.leave(g)
			i--
		}
	}
	for len(b.waiting) > 0 {
		n, wait := b.next(now)
		if n == 0 {
			if wait > 0 {
				b.timer.Reset(wait)
			}
			break
		}
		if g := b.start(now, n); first == nil {
			first = g
		} else {
			go g.run()
		}
	}
	return first
}

// begin is decide for who has no time to run a group.
func (b *Batcher) begin(now time.Time) {
	if g := b.decide(now); g != nil {
		go g.run()
	}
}

// next returns how many of the frames that wait are started now; if 0, in how long to look again, 0 where something else will
// have it look again.
func (b *Batcher) next(now time.Time) (n int, wait time.Duration) {
	m := min(len(b.waiting), b.rule.cap)
	full, free := m == b.rule.cap, len(b.device) == 0
	room := b.Room() - len(b.device)
	switch {
	case !b.info.Gathers && len(b.running) >= b.info.ImageCalls, full && room < m && !free, room < 1:
		return 0, 0
	case full:
		return m, 0
	}
	if wait = b.waiting[0].since.Add(b.maxWait).Sub(now); b.maxWait > 0 && wait > 0 {
		return 0, wait
	}
	switch {
	case !b.info.Gathers:
		return m, 0
	case b.away:
		return 1, 0 // whatever stands in makes groups of single frames itself
	case free:
		if wait = b.hold(now, m); wait > 0 {
			return 0, wait
		}
		return m, 0
	case b.rule.holds(now) && slices.ContainsFunc(b.device, (*caller).returns) || b.rule.hold(now, 1) > 0:
		if wait = b.waiting[0].since.Add(patience * b.rule.full()).Sub(now); wait > 0 {
			return 0, wait
		}
	}
	return 1, 0
}

// hold returns for how long the free device waits for more than the m frames that wait. A deadline that would pass ends the wait.
func (b *Batcher) hold(now time.Time, m int) time.Duration {
	wait := b.rule.hold(now, m)
	if wait <= 0 {
		return 0
	}
	end := now.Add(wait + b.rule.full()) // of the run, at the latest
	for _, e := range b.waiting[:m] {
		if deadline, ok := e.ctx.Deadline(); ok && deadline.Before(end) {
			return 0
		}
	}
	if b.held.IsZero() {
		b.held = now
	}
	return wait
}

// start makes a group of the first n frames that wait.
func (b *Batcher) start(now time.Time, n int) *group {
	b.timer.Stop()
	if b.rule.a > 0 && !b.away && b.rule.holds(now) {
		if out := b.rule.out(now); out > 0 || !b.held.IsZero() {
			idle := time.Duration(0)
			if len(b.device) == 0 {
				idle = now.Sub(b.freed)
			}
			b.rule.started(now, n, out+len(b.waiting)-n, idle)
		}
	}
	if !b.held.IsZero() {
		b.stats.Held++
		b.stats.Hold += now.Sub(b.held)
		b.held = time.Time{}
	}
	g := b.idle.Get().(*group)
	for _, e := range b.waiting[:n] {
		g.entries, g.frames = append(g.entries, e), append(g.frames, e.frame)
		b.device = append(b.device, e.caller)
	}
	if last, ok := g.Deadline(); ok {
		g.stuck = last.Add(stuckAfter)
	}
	rest := copy(b.waiting, b.waiting[n:])
	clear(b.waiting[rest:])
	b.waiting = b.waiting[:rest]
	b.running = append(b.running, g)
	b.stats.Groups[min(n, len(b.stats.Groups)-1)]++
	return g
}

// run has a group encoded, and then the next one if the device waits for that: whoever gets an answer now is to wait no longer, but
// the device must not wait until all of them have begun with their next frames.
func (b *Batcher) run(g *group) {
	for g != nil {
		b.encodeGroup(g)
		g = b.finish(g)
	}
}

// encodeGroup sets the error of each frame. When the encoder refuses a group of several, each frame gets a try of its own, so
// that one bad frame fails alone. A lost device or a deadline is the same for all.
func (b *Batcher) encodeGroup(g *group) {
	err := b.encode(g.context(), g.frames)
	alone := len(g.frames) > 1 && errors.Is(err, hailo.ErrEncode)
	for i, e := range g.entries {
		if alone {
			err = b.encode(e.ctx, g.frames[i:i+1])
		}
		g.errs = append(g.errs, err)
	}
}

// finish answers the calls of a group, and returns the next one to run, or nil.
func (b *Batcher) finish(g *group) (next *group) {
	again := g.release()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.leave(g); len(b.device) == 0 {
		b.freed = now
	}
	for i, e := range g.entries {
		b.learn(now, e, g.errs[i])
		e.finish(g.errs[i]) // from here on the call may be another's
	}
	if again {
		g.clear()
		b.idle.Put(g)
	}
	next = b.decide(now)
	if b.unknown && !b.away && len(b.running) == 0 && len(b.waiting) == 0 && now.Sub(b.tried) >= measureAgain {
		b.tried = now
		b.measuring.Go(b.measure)
	}
	return next
}

// leave takes a group off the device, if it is there. A call that does not return does not keep others out for ever; the workers
// that wait for it count as stuck in the pipeline, which replaces them.
func (b *Batcher) leave(g *group) {
	at := slices.Index(b.running, g)
	if at < 0 {
		return
	}
	b.running = slices.Delete(b.running, at, at+1)
	for _, e := range g.entries {
		at := slices.Index(b.device, e.caller)
		b.device = slices.Delete(b.device, at, at+1)
	}
}

// stuckAfter is how long after the last deadline of its frames a call of the backend counts as stuck.
const stuckAfter = 10 * time.Second

// encode makes a call of the backend, and an error of a panic.
func (b *Batcher) encode(ctx context.Context, frames []*hailo.Frame) (err error) {
	defer pipeline.Recover("encode", &err)
	return b.backend.EncodeImages(ctx, frames)
}

// learn keeps what a frame that is done tells of its caller and of the device.
func (b *Batcher) learn(now time.Time, e entry, err error) {
	if err != nil {
		return
	}
	b.rule.answered(now, e.caller)
	run := e.frame.Run
	b.away = run.Frames == 0
	if run.Took > 0 && b.rule.a > 0 {
		b.rule.ran(run.Frames, run.Took, 1/float64(run.Frames))
	}
}

// measure finds what a run of the device takes: the least of three with one frame, and of three full ones. Frames of others that
// come into one of these runs spoil it.
func (b *Batcher) measure() {
	ctx, cancel := context.WithTimeout(context.Background(), measureLimit)
	defer cancel()
	var frames []*hailo.Frame
	defer func() {
		for _, f := range frames {
			f.Release()
		}
	}()
	for range b.rule.cap {
		f := b.backend.Frames().TryGet()
		if f == nil {
			return
		}
		for i := range f.Pixels {
			f.Pixels[i] = byte(i / 3)
		}
		frames = append(frames, f)
	}
	var least [2]time.Duration
	for range 3 {
		for i, n := range []int{1, len(frames)} {
			err := b.encode(ctx, frames[:n])
			run := frames[0].Run
			if err != nil || run.Frames != n || run.Took <= 0 {
				return
			}
			if least[i] == 0 || run.Took < least[i] {
				least[i] = run.Took
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unknown = false
	b.rule.b = max(0, least[1]-least[0]) / time.Duration(len(frames)-1)
	b.rule.a = max(0, least[0]-b.rule.b)
}

const (
	measureLimit = 5 * time.Second  // of all runs of a measurement
	measureAgain = 10 * time.Second // from the begin of one that was spoilt to the next one
)
