package stream

import (
	"context"
	"fmt"
	"time"
)

// deadlines makes contexts for frames. Those that come within a tenth of the timeout share one, so that few are made: a frame has nine
// tenths of the timeout at least. Not for concurrent use.
type deadlines struct {
	parent  context.Context
	timeout time.Duration
	ctx     context.Context
	next    time.Time // when another one is due
	cancel  []func()  // of those that may have frames, the oldest first
}

// maxDeadlines is how many contexts may have frames.
const maxDeadlines = 12

func (d *deadlines) of(received time.Time) context.Context {
	if d.ctx != nil && received.Before(d.next) {
		return d.ctx
	}
	if len(d.cancel) == maxDeadlines {
		d.cancel[0]() // it has expired
		d.cancel = append(d.cancel[:0], d.cancel[1:]...)
	}
	ctx, cancel := context.WithDeadlineCause(d.parent, received.Add(d.timeout), fmt.Errorf("%w: %v", context.DeadlineExceeded, d.timeout))
	d.ctx, d.next, d.cancel = ctx, received.Add(d.timeout/10), append(d.cancel, cancel)
	return ctx
}

func (d *deadlines) stop() {
	for _, cancel := range d.cancel {
		cancel()
	}
}
