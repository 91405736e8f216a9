package pipeline

import (
	"context"
	"sync"
)

// entry is the context of a job of a Latest lane inside Hooks.Enter: it ends with that of the job, or before it with the cause
// ErrSuperseded. It costs nothing while nobody waits for its end. Safe for concurrent use.
type entry struct {
	context.Context // of the job

	mu     sync.Mutex
	own    context.Context // nil until it is needed
	cancel context.CancelCauseFunc
}

// next returns an entry for another job, whose context is ctx: e, which may be nil, unless there may be contexts derived from it.
// Those may look at it long after they have ended.
func (e *entry) next(ctx context.Context) *entry {
	if e == nil || e.own != nil {
		return &entry{Context: ctx}
	}
	e.Context = ctx
	return e
}

// close ends e, if it has not ended, so that the context of the job does not keep it.
func (e *entry) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own != nil {
		e.cancel(nil)
	}
}

// supersede ends e with ErrSuperseded.
func (e *entry) supersede() {
	e.derive()
	e.cancel(ErrSuperseded)
}

// derive makes the context that can be ended before that of the job.
func (e *entry) derive() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own == nil {
		e.own, e.cancel = context.WithCancelCause(e.Context)
	}
	return e.own
}

// now is the context that answers for e.
func (e *entry) now() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own != nil {
		return e.own
	}
	return e.Context
}

func (e *entry) Done() <-chan struct{} { return e.derive().Done() }
func (e *entry) Err() error            { return e.now().Err() }
func (e *entry) Value(key any) any     { return e.now().Value(key) }
