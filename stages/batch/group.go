package batch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hailoclip/hailo"
)

// group is frames that the backend encodes in one call, and the context of that: it ends with the last of the calls' contexts,
// but not with its cause, which is that of one call. A context that ends early, as that of a client who has gone, does not end
// it for the others.
type group struct {
	entries []entry
	frames  []*hailo.Frame
	errs    []error   // of each frame, when it was encoded
	stuck   time.Time // from then on its call counts as stuck; zero: never
	run     func()    // has it encoded; made once, so that to start it allocates nothing

	mu      sync.Mutex
	ended   chan struct{} // nil until Done is called
	waiting atomic.Int32
	stops   []func() bool
}

// context is that of the call; of a group of one frame it is that of its own.
func (g *group) context() context.Context {
	if len(g.entries) == 1 {
		return g.entries[0].ctx
	}
	return g
}

// clear makes it ready for other frames.
func (g *group) clear() {
	clear(g.entries)
	clear(g.frames)
	clear(g.errs)
	g.entries, g.frames, g.errs, g.stuck = g.entries[:0], g.frames[:0], g.errs[:0], time.Time{}
}

var _ context.Context = (*group)(nil)

// Deadline is the last of the deadlines; there is none if one of the calls has none.
func (g *group) Deadline() (last time.Time, ok bool) {
	for _, e := range g.entries {
		deadline, ok := e.ctx.Deadline()
		if !ok {
			return time.Time{}, false
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	return last, true
}

// Done costs something the first time only, which a backend that has room does not need.
func (g *group) Done() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended != nil {
		return g.ended
	}
	g.ended = make(chan struct{})
	g.waiting.Store(int32(len(g.entries)))
	for _, e := range g.entries {
		g.stops = append(g.stops, context.AfterFunc(e.ctx, func() {
			if g.waiting.Add(-1) == 0 {
				close(g.ended)
			}
		}))
	}
	return g.ended
}

// Err is nil while one of the calls waits.
func (g *group) Err() (err error) {
	for _, e := range g.entries {
		if err = e.ctx.Err(); err == nil {
			return nil
		}
	}
	return err
}

// Value is nil: the calls have none in common.
func (g *group) Value(any) any { return nil }

// release ends what Done has begun. It says whether nobody else can know of the group any more.
func (g *group) release() (alone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, stop := range g.stops {
		stop()
	}
	return g.ended == nil
}
