package pipeline

import (
	"fmt"
	"sync"
	"time"

	"hailoclip/pipeline/fair"
)

// door is the queue in front of the first stage, in which callers take turns: the address goes first for which the
// stage has worked least. Its jobs are announced to the workers
// by nil jobs in the channel of the stage, at least as many as wait: a worker takes the announcement and then
// whoever's turn it is. Safe for concurrent use.
type door struct {
	announce chan *Job // as long as the queue

	mu      sync.Mutex
	waiting fair.Queue[*Job]
	closed  bool
}

// enter queues the job, or says at once why not. When the queue is full and another caller has more waiting, the
// youngest of that one's jobs has to go: it is returned, and no longer in the line.
func (d *door) enter(job *Job) (displaced *Job, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if d.waiting.Len() == cap(d.announce) {
		ok := false
		if displaced, ok = d.waiting.Displace(job.Caller); !ok {
			return nil, ErrQueueFull
		}
	}
	d.waiting.Push(job.Caller, job)
	select {
	case d.announce <- nil:
	default: // full of announcements of jobs that were given up
	}
	return displaced, nil
}

// refuses says why a job of c would not be let in now; nil when it would.
func (d *door) refuses(c fair.Caller) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.waiting.Len() == cap(d.announce) && !d.waiting.Yields(c):
		return ErrQueueFull
	}
	return nil
}

// next returns the job whose turn it is; nil when the one that was announced has been given up.
func (d *door) next() *Job {
	d.mu.Lock()
	defer d.mu.Unlock()
	job, _ := d.waiting.Pop()
	return job
}

// charge notes how long a job of c was worked on, so that callers with long work do not take the time of others.
func (d *door) charge(c fair.Caller, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting.Charge(c.Address, int64(took))
}

// giveUp takes the job out of the queue, and says whether it was still there.
func (d *door) giveUp(job *Job) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting.Remove(job.Caller, job)
}

func (d *door) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting.Len()
}

// close lets nobody in any more; what waits is still handed out.
func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		close(d.announce)
	}
}

// errDisplaced is the end of a job whose place another caller got.
var errDisplaced = fmt.Errorf("%w: another caller has less waiting", ErrQueueFull)
