package decode

import (
	"context"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// budgetBytes is what all pictures of the process may take at a time. A picture that needs more is
	// decoded all the same, alone.
	budgetBytes = 1 << 30
	// uncounted is the size below which a picture does not take part: it would wait behind huge ones, and
	// a few for each worker do not matter.
	uncounted = 8 << 20
	// reclaimed is the size from which garbage is handed back to the system at once. Left to itself, the
	// collector takes two minutes to notice it in an idle process, and the pages go back later still.
	reclaimed = 64 << 20
)

// budget serves in the order of arrival, so that a huge picture is not passed over for ever.
var budget = semaphore.NewWeighted(budgetBytes)

// garbage is how many bytes of the budget wait for reclaim.
var garbage atomic.Int64

// reserve waits until a picture that needs n bytes may be decoded. It returns what was taken from the budget,
// or the cause of ctx when that ends before. A goroutine that keeps a large picture and decodes another may
// wait for itself.
func reserve(ctx context.Context, n int) (int64, error) {
	if n < uncounted {
		return 0, nil
	}
	taken := min(int64(n), budgetBytes)
	if err := budget.Acquire(ctx, taken); err != nil {
		return 0, context.Cause(ctx)
	}
	return taken, nil
}

// giveBack returns n bytes to the budget: at once, or when their memory has gone back to the system, so that
// the next picture does not come on top of the garbage of this one. It does not block. Nothing may
// refer to the memory any more.
func giveBack(n int64) {
	switch {
	case n == 0:
	case n < reclaimed:
		budget.Release(n)
	case garbage.Add(n) == n: // otherwise a reclaim runs, and will see this
		go reclaim()
	}
}

// reclaim frees garbage until there is none. Only one runs at a time.
func reclaim() {
	for left := int64(1); left > 0; {
		n := garbage.Load()
		debug.FreeOSMemory()
		budget.Release(n)
		left = garbage.Add(-n)
	}
}

// admit waits for the memory of a picture whose header has been judged: own bytes for what its decoder
// allocates, and the packed pixels, twice where the orientation exchanges rows and columns.
func (d *Decoder) admit(w, h, own, orientation int) (err error) {
	packed := 3 * w * h
	if orientation >= 5 {
		own += packed
	}
	d.held, err = reserve(d.ctx, own+packed)
	return err
}

// settle leaves to p the share of the budget that its pixels have, until its release, and gives back the rest.
func (d *Decoder) settle(p *Picture) {
	rest := d.held
	d.held = 0
	if p.buf != nil {
		p.buf.held = min(rest, int64(len(p.Pix)))
		rest -= p.buf.held
	}
	giveBack(rest)
}
