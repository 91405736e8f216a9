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
// it for the others. Whoever made it calls release.
type group struct {
	entries []entry
	frames  []*hailo.Frame
	stuck   time.Time // from then on its call counts as stuck; zero: never

	once    sync.Once
	ended   chan struct{}
	waiting atomic.Int32
	stops   []func() bool

	few struct { // memory of entries and frames of a small group
		entries [4]entry
		frames  [4]*hailo.Frame
	}
}

// newGroup makes a group of a copy of entries.
func newGroup(entries []entry) *group {
	g := &group{}
	g.entries, g.frames = append(g.few.entries[:0], entries...), g.few.frames[:0]
	for _, e := range entries {
		g.frames = append(g.frames, e.frame)
	}
	return g
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
	if len(g.entries) == 1 {
		return g.entries[0].ctx.Done()
	}
	g.once.Do(func() {
		g.ended = make(chan struct{})
		g.waiting.Store(int32(len(g.entries)))
		for _, e := range g.entries {
			g.stops = append(g.stops, context.AfterFunc(e.ctx, func() {
				if g.waiting.Add(-1) == 0 {
					close(g.ended)
				}
			}))
		}
	})
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

// Value is that of a group of one; several have none in common.
func (g *group) Value(key any) any {
	if len(g.entries) == 1 {
		return g.entries[0].ctx.Value(key)
	}
	return nil
}

// release ends what Done has begun.
func (g *group) release() {
	for _, stop := range g.stops {
		stop()
	}
}
