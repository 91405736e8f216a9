package pipeline

import (
	"sync"
	"time"
)

// stuckAfter is how long after the last deadline of its jobs a worker counts as stuck. By then they have all been
// answered, and a stage that looks at deadlines has long returned.
const stuckAfter = 2 * time.Second

// leastStuck is how long a call may take in any case: the client chooses the deadline, some work cannot be stopped (a
// large JPEG), and a small machine at half of its clock takes seconds for what is honest.
const leastStuck = 10 * time.Second

// Stuck is what is known of a stage whose workers do not return.
type Stuck struct {
	Stage   string
	Workers int  // stuck ones
	All     bool // and no other is left to serve
}

// crew is the workers of a stage, who may get stuck. One that does is replaced while there are numbers left, of
// which there are twice as many as workers. Safe for concurrent use.
type crew struct {
	mu    sync.Mutex
	spare []int // numbers without a worker
	able  int   // workers that are not stuck
	stuck int
}

// watch is over the calls of one worker, one after the other.
type watch struct {
	timer *time.Timer
	call  *call // the one that the timer is for
}

// call is one call of a stage's work; crew.mu guards it.
type call struct{ running, stuck, replaced bool }

// begin starts the watch of a worker over a call for jobs. When one of them has no deadline, it may take for ever.
func (l *line[T]) begin(w *watch, jobs []*Job[T]) {
	var last time.Time
	for _, job := range jobs {
		deadline, ok := job.ctx.Deadline()
		if !ok {
			return
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	after := max(time.Until(last)+stuckAfter, leastStuck)
	if w.timer != nil {
		w.timer.Reset(after)
		return
	}
	c := &call{running: true}
	w.call, w.timer = c, time.AfterFunc(after, func() { l.replace(c) })
}

// replace starts a worker in the place of one that is stuck. It takes over that one's part in the end of the line.
func (l *line[T]) replace(c *call) {
	l.crew.mu.Lock()
	defer l.crew.mu.Unlock()
	if !c.running { // it has returned at this moment
		return
	}
	c.stuck = true
	l.crew.stuck++
	l.crew.able--
	if n := len(l.crew.spare); n > 0 {
		number := l.crew.spare[n-1]
		l.crew.spare = l.crew.spare[:n-1]
		l.crew.able++
		c.replaced = true
		go l.worker(number)
	}
}

// end says whether the call of worker took so long that it was stuck, and whether another works in its place.
func (w *watch) end(c *crew, worker int) (stuck, replaced bool) {
	if w.timer == nil || w.timer.Stop() {
		return false, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stuck, replaced = w.call.stuck, w.call.replaced
	if stuck {
		c.stuck--
		if replaced {
			c.spare = append(c.spare, worker)
		} else {
			c.able++
		}
	}
	w.call.running = false
	w.timer, w.call = nil, nil // this timer has fired, and may not have run yet
	return stuck, replaced
}

// Stuck describes the stage with stuck workers that matters most; ok is false when there is none.
func (p *Pipeline[T]) Stuck() (found Stuck, ok bool) {
	for _, l := range p.lines {
		l.crew.mu.Lock()
		s := Stuck{Stage: l.Name, Workers: l.crew.stuck, All: l.crew.able == 0}
		l.crew.mu.Unlock()
		if s.Workers > 0 && (!ok || s.All && !found.All) {
			found, ok = s, true
		}
	}
	return found, ok
}
