package pipeline

import (
	"sync"
	"time"
)

// stuckAfter is how long after the deadline of its job a worker counts as stuck. By then that has been
// answered, and a stage that looks at deadlines has long returned.
const stuckAfter = 2 * time.Second

// leastStuck is how long a call may take whatever the deadline of its job: clients choose that, some work cannot be
// interrupted (decoding a large JPEG), and a slow machine needs seconds for it.
const leastStuck = 10 * time.Second

// Stuck is what is known of a stage whose workers do not return.
type Stuck struct {
	Stage   string
	Workers int  // stuck ones
	All     bool // and no other is left to serve
}

// crew counts the workers of a stage that are stuck. Each is replaced by a new worker with a number of its own, while
// numbers are left: there are twice as many as workers. Safe for concurrent use.
type crew struct {
	mu    sync.Mutex
	spare []int // numbers without a worker
	able  int   // workers that are not stuck
	stuck int
}

// watch is the timer over the calls of one worker. Only that worker uses it.
type watch struct {
	timer *time.Timer
	call  *call // what the timer marks as stuck when it fires
}

// call is one call of a stage's work; crew.mu guards it.
type call struct{ running, stuck, replaced bool }

// begin starts the timer over a call for a job. Without a deadline the call may take for ever: no timer runs.
func (l *line[T]) begin(w *watch, job *Job[T]) {
	deadline, ok := job.ctx.Deadline()
	if !ok {
		return
	}
	after := max(time.Until(deadline)+stuckAfter, leastStuck)
	if w.timer != nil {
		w.timer.Reset(after)
		return
	}
	c := &call{running: true}
	w.call, w.timer = c, time.AfterFunc(after, func() { l.replace(c) })
}

// replace starts a new worker in the place of one that is stuck. line.working counts the two as one.
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

// end stops the timer. It says whether the call of worker took so long that it counted as stuck, and whether another
// worker has taken its place.
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

// Stuck describes a stage with stuck workers, one in which all are stuck before others; ok is false when there is none.
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
