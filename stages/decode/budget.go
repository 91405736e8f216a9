package decode

import (
	"context"
	"fmt"
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
	// longWork is the work from which an image counts as long: about a quarter of a second.
	longWork = 160 << 20
)

// Budget bounds the memory that decoding takes, and keeps a worker free of long work. Callers who wait are served
// in turn. Safe for concurrent use.
type Budget struct {
	bytes    int64 // for images that are not small
	runtime  int64 // the soft limit of the Go runtime while no library holds memory; math.MaxInt64: none
	longMax  int
	queueMax int

	mu      sync.Mutex
	free    int64 // of bytes
	native  int64 // reserved for memory of libraries, which the Go runtime does not see
	long    int   // images of long work that are being decoded
	next    *claim
	waiting fair.Queue[*claim]

	limit sync.Mutex // of who sets the runtime's limit
}

// claim is a plan that waits for its memory. Budget.mu guards it.
type claim struct {
	plan   Plan
	caller fair.Caller
	done   chan struct{} // closed when err or the reservation is there
	err    error
}

// LeastBudget is the least that NewBudget should get: room for the small images, and for one of 12 million pixels.
func LeastBudget(workers int) int64 { return int64(3*workers)*small + 48<<20 }

// NewBudget makes a budget of so many bytes for images, for so many workers, in which as many images as queue
// may wait. runtime is the soft memory limit of the Go runtime: while libraries hold memory of images, the budget
// lowers it by as much. It is left alone when it is math.MaxInt64.
func NewBudget(bytes, runtime int64, workers, queue int) *Budget {
	// A small image is being decoded, or waits for the resizer, or is being resized.
	bytes = max(bytes-int64(3*workers)*small, small)
	return &Budget{bytes: bytes, free: bytes, runtime: runtime, longMax: max(workers-1, 1), queueMax: queue}
}

// Reservation is memory for one image, and the right to decode it. Not for concurrent use.
type Reservation struct {
	budget *Budget
	memory int64
	native int64
	long   bool
}

// Reserve waits until the image may be decoded, but not beyond the end of ctx. Small images never wait. The caller
// releases the reservation. Errors: ErrTooMuchMemory, ErrBusy when too many wait already, or the cause of ctx.
func (b *Budget) Reserve(ctx context.Context, caller fair.Caller, plan Plan) (*Reservation, error) {
	if plan.Memory < small && !plan.long() {
		return &Reservation{}, nil
	}
	if plan.Memory > b.bytes {
		return nil, fmt.Errorf("%w: decoding %d x %d pixels takes %d MB, resource_limits.memory_max leaves %d MB for images",
			ErrTooMuchMemory, plan.Width, plan.Height, plan.Memory>>20, b.bytes>>20)
	}
	c := &claim{plan: plan, caller: caller, done: make(chan struct{})}
	b.mu.Lock()
	if b.waiting.Len() >= b.queueMax {
		other, ok := b.waiting.Displace(caller)
		if !ok {
			b.mu.Unlock()
			return nil, ErrBusy
		}
		other.err = ErrBusy
		close(other.done)
	}
	b.waiting.Push(caller, c)
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
	b.adjust(plan.Native)
	return &Reservation{budget: b, memory: plan.Memory, native: plan.Native, long: plan.long()}, nil
}

// serve hands out what is free, in turn. Nobody is passed over: the large would wait for ever. The caller holds b.mu.
func (b *Budget) serve() {
	for {
		if b.next == nil {
			b.next, _ = b.waiting.Pop()
		}
		c := b.next
		if c == nil || c.plan.Memory > b.free || c.plan.long() && b.long == b.longMax {
			return
		}
		b.next = nil
		b.free -= c.plan.Memory
		b.native += c.plan.Native
		if c.plan.long() {
			b.long++
		}
		close(c.done)
	}
}

// giveUp takes back a claim; false when it has been decided.
func (b *Budget) giveUp(c *claim) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.next == c:
		b.next = nil
	case !b.waiting.Remove(c.caller, c):
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
	if r.long {
		b.long--
	}
	b.serve()
	b.mu.Unlock()
	r.memory, r.native, r.long = keep, 0, false
	if keep == 0 {
		r.budget = nil
	}
	b.adjust(native)
}

// adjust sets the limit of the runtime after a change of b.native by n. What Go holds beyond it goes back to the
// system before the image that needs it is decoded.
func (b *Budget) adjust(n int64) {
	if n == 0 || b.runtime == math.MaxInt64 {
		return
	}
	b.limit.Lock()
	defer b.limit.Unlock()
	b.mu.Lock()
	limit := b.runtime - b.native
	b.mu.Unlock()
	if debug.SetMemoryLimit(limit) > limit && goMemory() > limit {
		debug.FreeOSMemory()
	}
}

// goMemory is what the Go runtime holds of the system's memory, as its limit counts it.
func goMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
