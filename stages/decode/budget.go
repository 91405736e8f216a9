package decode

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"

	"hailoclip/pipeline/fair"
)

const (
	// small is the memory below which an image does not wait: it would wait behind huge ones, and a few for each
	// worker do not matter. NewBudget sets aside what those that are decoded at a time may take.
	small = 8 << 20
	// leastSmall is what small is where memory is scarce: an image of half a million pixels is always decoded.
	leastSmall = 2 << 20
	// longWork is the work from which an image counts as long: about a quarter of a second.
	longWork = 160 << 20
)

// Budget bounds the memory that decoding takes, and keeps a worker free of long work. Waiting callers are served in turn,
// and long work in turn with the rest. Safe for concurrent use.
type Budget struct {
	bytes    int64 // for images that are not small
	small    int64 // see the constant; less where there is next to nothing
	runtime  int64 // the soft limit of the Go runtime while no library holds memory; math.MaxInt64: none
	longMax  int
	queueMax int

	mu       sync.Mutex
	free     int64 // of bytes
	native   int64 // reserved for memory of libraries, which the Go runtime does not see
	promised int64 // what else of the reserved may still be allocated: of images that are not decoded yet
	long     int   // images of long work that are being decoded
	queues   [2]claims
	turn     int // index of the one of queues that is served first

	limit sync.Mutex // of who sets the runtime's limit
}

// claims wait in turn; next is the one that is served first.
type claims struct {
	next    *claim
	waiting fair.Queue[*claim]
}

// Indices of Budget.queues.
const (
	shortClaims = iota
	longClaims
)

// claim is a plan that waits for its memory. Budget.mu guards it.
type claim struct {
	plan   Plan
	caller fair.Caller
	queue  int           // index of Budget.queues
	bulk   bool          // it is not refused, however many wait
	done   chan struct{} // closed when err or the reservation is there
	err    error
}

// LeastBudget is the least that NewBudget should get: room for the small images, and for one of 12 million pixels.
func LeastBudget(workers int) int64 { return int64(3*workers)*small + 48<<20 }

// NewBudget returns a budget of so many bytes for images, for so many workers. As many images as queue says may wait, of
// long work and of the rest each. runtime is the soft memory limit of the Go runtime: while libraries hold memory of
// images, the budget lowers it by as much. It is left alone when it is math.MaxInt64.
func NewBudget(bytes, runtime int64, workers, queue int) *Budget {
	// A small image is being decoded, or waits for the resizer, or is being resized.
	places := int64(3 * workers)
	b := &Budget{small: min(small, max(bytes/2/places, leastSmall)), runtime: runtime, longMax: max(workers-1, 1), queueMax: queue}
	b.bytes = max(bytes-places*b.small, 0)
	b.free = b.bytes
	return b
}

// Reservation is memory for one image, and the right to decode it. Not for concurrent use.
type Reservation struct {
	budget   *Budget
	memory   int64
	native   int64
	promised int64
	long     bool
}

// nothing is the reservation of small images: none of its methods changes it.
var nothing Reservation

// Reserve waits until the image may be decoded, but not beyond the end of ctx. Small images never wait. The caller
// releases the reservation. Errors: ErrTooMuchMemory, ErrBusy when too many wait already, or the cause of ctx.
func (b *Budget) Reserve(ctx context.Context, caller fair.Caller, plan Plan) (*Reservation, error) {
	return b.reserve(ctx, caller, plan, false)
}

// ReserveBulk is Reserve without ErrBusy. Only few may call it at once.
func (b *Budget) ReserveBulk(ctx context.Context, caller fair.Caller, plan Plan) (*Reservation, error) {
	return b.reserve(ctx, caller, plan, true)
}

func (b *Budget) reserve(ctx context.Context, caller fair.Caller, plan Plan, bulk bool) (*Reservation, error) {
	if plan.Memory < b.small && !plan.long() {
		return &nothing, nil
	}
	if plan.Memory > b.bytes {
		return nil, detailed(ErrTooMuchMemory, "decoding %d x %d pixels takes %d MB, resource_limits.memory_max leaves %d MB for images",
			plan.Width, plan.Height, plan.Memory>>20, b.bytes>>20)
	}
	c := &claim{plan: plan, caller: caller, bulk: bulk, done: make(chan struct{})}
	if plan.long() {
		c.queue = longClaims
	}
	q := &b.queues[c.queue]
	b.mu.Lock()
	if q.waiting.Len() >= b.queueMax && !bulk {
		other, ok := q.waiting.DisplaceFor(caller, 1)
		if ok && other.bulk {
			q.waiting.Push(other.caller, other) // it waits on
		}
		if !ok || other.bulk {
			b.mu.Unlock()
			return nil, ErrBusy
		}
		other.err = ErrBusy
		close(other.done)
	}
	q.waiting.Push(caller, c)
	b.serve()
	b.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		if b.giveUp(c) {
			return nil, context.Cause(ctx)
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	b.adjust(true)
	return &Reservation{budget: b, memory: plan.Memory, native: plan.Native, promised: plan.Memory - plan.Native,
		long: c.queue == longClaims}, nil
}

// serve hands out what is free, in turn. Nobody is passed over for memory: the large would wait for ever. The caller
// holds b.mu.
func (b *Budget) serve() {
	for c := b.first(); c != nil && c.plan.Memory <= b.free; c = b.first() {
		b.queues[c.queue].next = nil
		b.turn = 1 - c.queue
		b.free -= c.plan.Memory
		b.native += c.plan.Native
		b.promised += c.plan.Memory - c.plan.Native
		if c.queue == longClaims {
			b.long++
		}
		close(c.done)
	}
}

// first is the claim whose turn it is, nil when there is none. While no more long work may begin, that waits and the
// others do not. The caller holds b.mu.
func (b *Budget) first() *claim {
	for _, i := range [...]int{b.turn, 1 - b.turn} {
		q := &b.queues[i]
		if q.next == nil {
			q.next, _ = q.waiting.Pop()
		}
		if q.next != nil && (i != longClaims || b.long < b.longMax) {
			return q.next
		}
	}
	return nil
}

// giveUp takes back a claim; false when it has been decided. When it was its caller's turn, it still is: who gives up for a newer
// image every time, as a stream does whose frames replace each other, would never have a turn.
func (b *Budget) giveUp(c *claim) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := &b.queues[c.queue]
	switch {
	case q.next == c:
		q.next = nil
		if others := q.waiting.Of(c.caller); len(others) > 0 {
			q.next = others[0]
			q.waiting.Remove(c.caller, q.next)
		}
	case !q.waiting.Remove(c.caller, c):
		return false
	}
	b.serve()
	return true
}

// Shrink gives back all but n bytes, when the image has been decoded.
func (r *Reservation) Shrink(n int) { r.giveBack(min(int64(n), r.memory)) }

// Release gives back the rest. It may be called again, and on nil.
func (r *Reservation) Release() {
	if r != nil {
		r.giveBack(0)
	}
}

func (r *Reservation) giveBack(keep int64) {
	b := r.budget
	if b == nil {
		return
	}
	native := r.native
	b.mu.Lock()
	b.free += r.memory - keep
	b.native -= native
	b.promised -= r.promised
	if r.long {
		b.long--
	}
	b.serve()
	b.mu.Unlock()
	r.memory, r.native, r.promised, r.long = keep, 0, 0, false
	if keep == 0 {
		r.budget = nil
	}
	if native != 0 {
		b.adjust(false)
	}
}

// adjust sets the limit of the runtime after a change of b.native. Before an image is decoded, more is true: where what
// it takes does not fit beside what Go holds, garbage goes back to the system. The runtime would begin to collect only
// when the limit has been passed, which one image does by 150 MB.
func (b *Budget) adjust(more bool) {
	if b.runtime == math.MaxInt64 {
		return
	}
	b.limit.Lock()
	defer b.limit.Unlock()
	b.mu.Lock()
	limit, promised := b.runtime-b.native, b.promised
	b.mu.Unlock()
	debug.SetMemoryLimit(limit)
	if more && GoMemory()+promised > limit {
		debug.FreeOSMemory()
	}
}

// GoMemory is how many bytes the Go runtime holds of the system's memory, as its limit counts them. Safe for concurrent use.
func GoMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
