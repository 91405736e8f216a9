package fair

import (
	"context"
	"sync"
	"time"
)

// Turns lets callers in, so many at once, as a Queue serves them; addresses that have been inside for long come later.
// Safe for concurrent use.
type Turns struct {
	mu      sync.Mutex
	free    int
	waiting Queue[chan struct{}]
}

// NewTurns lets n callers in at once.
func NewTurns(n int) *Turns { return &Turns{free: n} }

// Take waits until it is c's turn, which lasts until done is called, once. When ctx ends first, the error is its cause.
func (t *Turns) Take(ctx context.Context, c Caller) (done func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return t.since(c, time.Now()), nil
	}
	come := make(chan struct{})
	t.waiting.Push(c, come)
	t.mu.Unlock()
	select {
	case <-come:
		return t.since(c, time.Now()), nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.waiting.Remove(c, come) { // it has come, too
		t.next()
	}
	return nil, context.Cause(ctx)
}

// Waiting says whether somebody waits.
func (t *Turns) Waiting() bool { return t.Len() > 0 }

// Len is how many wait.
func (t *Turns) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting.Len()
}

func (t *Turns) since(c Caller, start time.Time) func() {
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting.Charge(c.Address, int64(time.Since(start)))
		t.next()
	}
}

func (t *Turns) next() {
	if come, ok := t.waiting.Pop(); ok {
		close(come)
	} else {
		t.free++
	}
}
