package stream

import (
	"cmp"
	"context"
	"sync"
	"time"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// Feed is who pushes frames into a stream.
//
// Frames go to the engine by several goroutines, which are started as they are needed. One more goroutine takes what comes of them
// in the order of Push: it looks at what changes, and calls Opening.Answer.
type Feed struct {
	stream   *stream
	answer   func(*Answer)
	caller   fair.Caller
	ctx      context.Context // of all frames
	cancel   context.CancelCauseFunc
	detach   []func() bool // from contexts
	done     chan struct{}
	finished chan struct{} // closed when all frames are answered, and nothing of the feed is left
	gate     gate
	clock    clock
	sampler  sampler

	mu       sync.Mutex
	ready    sync.Cond     // the first frame is settled, or the feed is over
	room     sync.Cond     // there is room for another frame, or the feed is over
	over     bool          // no more frames are taken
	err      error         // why, if not by Close
	pushed   time.Time     // when Push has taken the last frame, or the feed was opened
	gap      time.Duration // from the frame before until Push was given the last one
	blocked  bool          // Push waits for room
	counts   Counts
	lanes    map[pipeline.Policy]pipeline.Lane
	deadline deadlines

	entries    []entry // a ring: frame n is entries[n % len(entries)]
	head, tail uint64  // the oldest frame that is not answered, and the next one's number

	work    chan *job // for the goroutines that ask the engine
	idle    int
	inside  int // jobs that are not settled
	waiting []waiting
	queued  bool  // it is in the hub's queue for a place
	known   *plan // whose prompts are encoded, or failed to be
	asking  bool  // prompts are being encoded
	spare   []*job

	out     Answer // the deliverer's
	failing bool   // Opening.Answer has panicked
}

// entry is a frame that is not answered yet.
type entry struct {
	seq      uint64
	time     int64
	hasTime  bool
	backward bool
	received time.Time
	settled  bool // it was dropped, or the engine is done with it
	dropped  Dropped
	err      error
	job      *job // nil: it has none yet, or was dropped before
}

// waiting is a frame that waits for a place.
type waiting struct {
	number uint64
	frame  Frame
	plan   *plan
	at     time.Time
}

const (
	// maxWaiting is how many frames of policy latest wait, for one of the hub's places or while Opening.Answer blocks.
	maxWaiting = 2

	// maxUnanswered is how many frames, also dropped ones, may wait for Opening.Answer with policy latest. Their images do not.
	maxUnanswered = 4096

	// staleFeed is how long a feed must have pushed nothing until another one may take its place, or three times as long as it was
	// from the last frame but one to the last, if that is more. While Push blocks it is not stale.
	staleFeed = 5 * time.Second
)

// newFeed makes a feed that runs until it is over and all its frames are answered.
func newFeed(ctx context.Context, s *stream, o Opening) *Feed {
	f := &Feed{
		stream: s, answer: o.Answer, caller: o.Caller, done: make(chan struct{}), finished: make(chan struct{}), pushed: time.Now(),
		lanes: map[pipeline.Policy]pipeline.Lane{}, work: make(chan *job, 2*MaxInFlight), entries: make([]entry, 16),
	}
	f.ready.L, f.room.L = &f.mu, &f.mu
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	f.detach = []func() bool{
		context.AfterFunc(s.hub.abort, func() { f.cancel(ErrStopping) }),
		context.AfterFunc(f.ctx, func() { f.end(context.Cause(f.ctx)) }),
	}
	f.deadline = deadlines{parent: f.ctx, timeout: s.hub.settings.Load().timeout}
	s.hub.running.Go(f.deliver)
	return f
}

// ID is that of the stream, for Filter.Stream. It is no name where the stream is the feed's own.
func (f *Feed) ID() string { return f.stream.id }

// Definition is what is in force now; only to be read.
func (f *Feed) Definition() Definition { return f.stream.plan.Load().Definition }

// Push gives a frame to the stream. With policy queue it blocks while MaxInFlight frames are not answered. With latest it blocks only
// while very many answers, some thousand, wait for Opening.Answer; images never do. It returns early when the feed ends, and an
// error then: ErrFed by another feed, ErrEnded, ErrStopping, or the cause of ctx of Open. Not for concurrent use.
func (f *Feed) Push(frame Frame) error { return f.push(frame, "", nil) }

// Drop is Push for a frame that cannot be read or kept: it is answered, in its order, as dropped for the reason that is given.
func (f *Feed) Drop(frame Frame, why Dropped, err error) error {
	return f.push(frame, cmp.Or(why, Bad), err)
}

func (f *Feed) push(frame Frame, why Dropped, err error) error {
	if now := time.Now(); frame.Received.IsZero() || frame.Received.After(now) {
		frame.Received = now
	}
	p := f.stream.plan.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	gap := time.Since(f.pushed)
	for !f.over && f.unanswered() >= f.most(p) {
		f.blocked = true
		f.room.Wait()
		p = f.stream.plan.Load()
	}
	f.blocked = false
	if f.over || f.ctx.Err() != nil {
		release(&frame)
		return cmp.Or(f.err, context.Cause(f.ctx), ErrEnded)
	}
	f.pushed, f.gap = time.Now(), gap
	f.counts.Frames++
	f.stream.frame()
	at, backward := f.clock.next(&frame, p.Clock == clockFrame)
	recheck := time.Duration(0)
	if f.stream.pending.Load() {
		recheck = p.recheck
	}
	if why == "" && p.interval > 0 && !f.sampler.pass(at, p.interval, recheck) {
		why = Rate
	}
	number := f.add(entry{
		seq: frame.Seq, time: frame.Time, hasTime: frame.HasTime, backward: backward, received: frame.Received,
		settled: why != "", dropped: why, err: err,
	})
	if why != "" {
		release(&frame)
		f.ready.Signal()
	} else {
		f.wait(waiting{number, frame, p, at})
		f.next()
	}
	return nil
}

func release(frame *Frame) {
	if frame.Release != nil {
		frame.Release()
	}
}

func (f *Feed) unanswered() int { return int(f.tail - f.head) }

// most is how many frames may be unanswered.
func (f *Feed) most(p *plan) int {
	if p.policy == pipeline.Latest {
		return maxUnanswered
	}
	return p.inFlight
}

// add appends a frame to those that are not answered. The caller holds mu.
func (f *Feed) add(e entry) (number uint64) {
	if f.unanswered() == len(f.entries) {
		longer := make([]entry, 2*len(f.entries))
		for n := f.head; n < f.tail; n++ {
			longer[n%uint64(len(longer))] = *f.entry(n)
		}
		f.entries = longer
	}
	number = f.tail
	f.tail++
	*f.entry(number) = e
	return number
}

func (f *Feed) entry(n uint64) *entry { return &f.entries[n%uint64(len(f.entries))] }

// wait has a frame wait, in the place of an older one if too many do. The caller holds mu.
func (f *Feed) wait(w waiting) {
	if len(f.waiting) == maxWaiting && w.plan.policy == pipeline.Latest {
		old := f.first()
		release(&old.frame)
		e := f.entry(old.number)
		e.settled, e.dropped = true, Superseded
		f.ready.Signal()
	}
	f.waiting = append(f.waiting, w)
}

// first takes the oldest frame that waits. The caller holds mu.
func (f *Feed) first() waiting {
	w := f.waiting[0]
	f.waiting[0] = waiting{}
	f.waiting = append(f.waiting[:0], f.waiting[1:]...)
	return w
}

// next starts frames that wait, as far as there are places. The caller holds mu.
func (f *Feed) next() {
	for f.startable() && (f.waiting[0].plan.policy != pipeline.Latest || f.prepared(f.waiting[0].plan) && f.stream.hub.places.take(f)) {
		f.start(f.first())
	}
}

// prepared says whether the prompts of a plan are encoded. Otherwise they will be, and next is called then: new ones may wait long
// for the text encoder, and must not keep one of the hub's places meanwhile. The caller holds mu.
func (f *Feed) prepared(p *plan) bool {
	if len(p.Prompts) == 0 || f.known == p {
		return true
	}
	if f.asking {
		return false
	}
	f.asking = true
	hub := f.stream.hub
	hub.running.Go(func() {
		_ = f.try("prompts of a stream", func() {
			ctx, cancel := context.WithTimeout(f.ctx, hub.settings.Load().timeout)
			defer cancel()
			_, _ = hub.parts.Engine.EmbedTexts(ctx, f.caller, p.Prompts) // the frame fails likewise
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.known, f.asking = p, false
		f.next()
	})
	return false
}

func (f *Feed) startable() bool { return len(f.waiting) > 0 && f.inside < f.waiting[0].plan.inFlight }

// granted is called with a place that f has waited for. It returns false if f has no use for it.
func (f *Feed) granted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued = false
	if !f.startable() || f.waiting[0].plan.policy != pipeline.Latest || !f.prepared(f.waiting[0].plan) {
		return false
	}
	f.start(f.first())
	f.next()
	return true
}

// start gives a frame to the engine. The caller holds mu.
func (f *Feed) start(w waiting) {
	p := w.plan
	var j *job
	if last := len(f.spare) - 1; last >= 0 {
		j, f.spare = f.spare[last], f.spare[:last]
	} else {
		j = &job{feed: f}
		j.release, j.seen = j.drop, j.see
	}
	j.number, j.frame, j.plan, j.at, j.base, j.encoded, j.over = w.number, w.frame, p, w.at, nil, false, false
	j.ctx = f.deadline.of(w.frame.Received)
	j.request = clip.Request{
		Image: w.frame.Image, Raw: w.frame.Raw, Prompts: p.Prompts, PromptSet: p.set, TopK: p.TopK, Regions: p.parts,
		Lane: f.lane(p.policy), Release: j.release,
	}
	if j.request.Raw == (decode.Raw{}) {
		j.request.Raw = p.raw
	}
	if p.Events != nil {
		j.request.Logits, j.request.Embedding, j.request.TopK = true, true, 0
	}
	j.holders.Store(1)
	if p.holdsFrames() {
		j.holders.Store(2)
	}
	if p.Gate != nil {
		j.request.Seen = j.seen // and the memory of the result may become that of a base
	} else {
		j.request.Into = &j.memory
	}
	f.entry(w.number).job = j
	f.inside++
	f.run(j)
}

// run has a worker ask the engine. The caller holds mu.
func (f *Feed) run(j *job) {
	if f.idle == 0 {
		f.stream.hub.running.Go(f.ask)
	} else {
		f.idle--
	}
	f.work <- j // there is room for more than there are jobs
}

// lane returns the lane of the feed with a policy. The caller holds mu.
func (f *Feed) lane(policy pipeline.Policy) pipeline.Lane {
	l, ok := f.lanes[policy]
	if !ok {
		l = pipeline.NewLane(f.caller, policy)
		f.lanes[policy] = l
	}
	return l
}

// ask is a worker: it asks the engine until the feed is over.
func (f *Feed) ask() {
	for j := range f.work {
		j.classify(f.stream.hub.parts.Engine)
		f.mu.Lock()
		f.idle++
		e := f.entry(j.number)
		if e.settled = true; j.err != nil {
			e.dropped, e.err = droppedBy(j.err, j.plan.policy)
		}
		latest := j.plan.policy == pipeline.Latest // j is not ours any more
		f.ready.Signal()
		f.mu.Unlock()
		if latest {
			f.stream.hub.places.give()
		}
	}
}

// deliver takes what came of the frames in their order, until the feed is over.
func (f *Feed) deliver() {
	f.mu.Lock()
	for {
		for f.head == f.tail && !f.over || f.head != f.tail && !f.entry(f.head).settled {
			f.ready.Wait()
		}
		if f.head == f.tail {
			break
		}
		e := *f.entry(f.head)
		f.mu.Unlock()
		settled := f.settle(&e)
		f.mu.Lock()
		if !settled { // it is to be encoded after all
			at := f.entry(f.head)
			at.settled, at.dropped, at.err = false, "", nil
			f.run(e.job)
			continue
		}
		f.counts.outcome(&f.out)
		*f.entry(f.head) = entry{}
		f.head++
		if e.job != nil {
			f.retire(e.job)
		}
		f.room.Signal()
	}
	close(f.work)
	f.mu.Unlock()
	f.finish()
}

// retire ends a job, and starts the next one. The caller holds mu.
func (f *Feed) retire(j *job) {
	f.inside--
	if j.plan.holdsFrames() {
		j.drop()
	}
	if j.holders.Load() == 0 { // else the engine still has it, after an error, or an event
		if j.request.Into != nil && j.err == nil {
			j.memory = j.result.Result
		}
		j.frame, j.request, j.result, j.base = Frame{}, clip.Request{}, clip.Result{}, nil
		f.spare = append(f.spare, j)
	}
	f.next()
}

// end has the feed take no more frames, for a reason or, by Close, none. Those that are inside are answered.
func (f *Feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	if f.over, f.err = true, err; err != nil {
		close(f.done)
	}
	f.ready.Broadcast()
	f.room.Broadcast()
}

// finish gives back what the feed has when all is answered.
func (f *Feed) finish() {
	for _, stop := range f.detach {
		stop()
	}
	f.cancel(nil)
	f.deadline.stop()
	f.stream.left(f)
	close(f.finished)
}

// Close ends the feed and blocks until all its frames are answered, and their events published. It may be called again.
func (f *Feed) Close() {
	f.end(nil)
	<-f.finished
	f.stream.outbox.wait()
}

// Done is closed when the feed ends for another reason than Close: Err says which.
func (f *Feed) Done() <-chan struct{} { return f.done }

func (f *Feed) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Counts says what became of the frames of this feed.
func (f *Feed) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Change has the frames from now on treated otherwise: JSON as Definition.Merge reads it. If the stream is defined, that holds while the
// feed lasts.
// Errors: sets.Faults, of prompt sets, and those of Push once another feed has its place.
func (f *Feed) Change(definition []byte) error {
	h := f.stream.hub
	for {
		before := f.stream.plan.Load()
		d, err := before.Merge(definition, h.settings.Load().limits)
		if err != nil {
			return err
		}
		if d.Source != before.Source {
			return errSource
		}
		if err := h.check(d); err != nil {
			return err
		}
		if changed, err := f.change(before, newPlan(d)); changed || err != nil {
			return err
		}
	}
}

// change puts a plan in the place of the one that it was made from. It returns false where that is not in force any more.
func (f *Feed) change(before, p *plan) (changed bool, err error) {
	f.stream.mu.Lock()
	defer f.stream.mu.Unlock()
	if f.stream.feed != f {
		return false, cmp.Or(f.Err(), ErrEnded)
	}
	if !f.stream.plan.CompareAndSwap(before, p) {
		return false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room.Broadcast()
	return true, nil
}
