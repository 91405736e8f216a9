package pipeline

import (
	"fmt"
	"sync"
	"time"

	"hailoclip/pipeline/fair"
)

// Lane is where jobs enter: those of one caller wait in one lane, and the lanes are served in turn. The zero value is
// the lane of the program itself.
type Lane struct {
	Caller fair.Caller
}

// door is the queue in front of the first stage, in which lanes take turns: the address goes first for which the
// stage has worked least. Its jobs are announced to the workers
// by nil jobs in the channel of the stage, at least as many as wait: a worker takes the announcement and then
// whoever's turn it is. Safe for concurrent use.
type door[T any] struct {
	announce chan *Job[T] // as long as the queue

	mu      sync.Mutex
	waiting fair.Queue[*Job[T]]
	closed  bool
}

// enter queues the job, or says at once why not. When the queue is full and another lane has more waiting, the
// youngest of that one's jobs has to go: it is returned, and no longer in the line.
func (d *door[T]) enter(job *Job[T]) (displaced *Job[T], err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if d.full() {
		ok := false
		if displaced, ok = d.waiting.Displace(job.Lane.Caller); !ok {
			return nil, ErrQueueFull
		}
	}
	d.waiting.Push(job.Lane.Caller, job)
	select {
	case d.announce <- nil:
	default: // full of announcements of jobs that were given up
	}
	return displaced, nil
}

func (d *door[T]) full() bool { return d.waiting.Len() >= cap(d.announce) }

// refuses says why a job of the lane would not be let in now; nil when it would.
func (d *door[T]) refuses(lane Lane) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.full() && !d.waiting.Yields(lane.Caller):
		return ErrQueueFull
	}
	return nil
}

// next returns the job whose turn it is; nil when the one that was announced has been given up.
func (d *door[T]) next() *Job[T] {
	d.mu.Lock()
	defer d.mu.Unlock()
	job, _ := d.waiting.Pop()
	return job
}

// charge notes how long a job of the lane was worked on, so that callers with long work do not take the time of others.
func (d *door[T]) charge(lane Lane, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting.Charge(lane.Caller.Address, int64(took))
}

// giveUp takes the job out of the queue, and says whether it was still there.
func (d *door[T]) giveUp(job *Job[T]) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting.Remove(job.Lane.Caller, job)
}

func (d *door[T]) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting.Len()
}

// close lets nobody in any more; what waits is still handed out.
func (d *door[T]) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		close(d.announce)
	}
}

// errDisplaced is the end of a job whose place another caller got.
var errDisplaced = fmt.Errorf("%w: another caller has less waiting", ErrQueueFull)
