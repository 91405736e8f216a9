package pipeline

import (
	"fmt"
	"sync"
	"time"

	"hailoclip/pipeline/fair"
)

// door is the queue in front of the first stage, in which lanes take turns: the address goes first for which the
// stage has worked least. Its jobs are announced to the workers
// by nil jobs in the channel of the stage, at least as many as wait: a worker takes the announcement and then
// whoever's turn it is. Safe for concurrent use.
type door[T any] struct {
	announce chan *Job[T] // as long as the queue

	mu      sync.Mutex
	waiting fair.Queue[*Job[T]]
	outside fair.Queue[*Job[T]] // of Bulk lanes, while the queue is full: at most one of each
	closed  bool
}

// enter queues the job, or says at once why not. Another job that has to go for it is returned: it has failed and is
// no longer in the line.
func (d *door[T]) enter(job *Job[T]) (gone *Job[T], err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	caller := job.Lane.Caller
	if d.supersedes(job.Lane) {
		gone = d.waiting.Of(caller)[0]
		d.waiting.Remove(caller, gone)
		gone.Fail(ErrSuperseded)
	}
	if d.full() {
		displaced, ok := d.waiting.DisplaceFor(caller, 1)
		switch {
		case !ok && job.Lane.policy == Bulk:
			d.outside.Push(caller, job)
			return nil, nil
		case !ok:
			return nil, ErrQueueFull
		case displaced.Lane.policy == Bulk:
			d.outside.Push(displaced.Lane.Caller, displaced)
		default:
			gone = displaced
			gone.Fail(fmt.Errorf("%w: another caller has less waiting", ErrQueueFull))
		}
	}
	d.push(job)
	return gone, nil
}

func (d *door[T]) full() bool { return d.waiting.Len() >= cap(d.announce) }

// supersedes says whether the next job of the lane takes the place of one of its own.
func (d *door[T]) supersedes(lane Lane) bool {
	return lane.policy == Latest && len(d.waiting.Of(lane.Caller)) >= maxLatest
}

func (d *door[T]) push(job *Job[T]) {
	d.waiting.Push(job.Lane.Caller, job)
	select {
	case d.announce <- nil:
	default: // full of announcements of jobs that were given up
	}
}

// refill lets in who waits outside, as far as there is room.
func (d *door[T]) refill() {
	for !d.full() {
		job, ok := d.outside.Pop()
		if !ok {
			return
		}
		d.push(job)
	}
}

// refuses says why a job of the lane would not be let in now; nil when it would.
func (d *door[T]) refuses(lane Lane) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.full() && lane.policy != Bulk && !d.supersedes(lane) && !d.waiting.Yields(lane.Caller):
		return ErrQueueFull
	}
	return nil
}

// next returns the job whose turn it is; nil when the one that was announced has been given up.
func (d *door[T]) next() *Job[T] {
	d.mu.Lock()
	defer d.mu.Unlock()
	job, ok := d.waiting.Pop()
	if ok {
		job.passTurn()
		d.refill()
	}
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
	caller := job.Lane.Caller
	if !d.waiting.Remove(caller, job) && !d.outside.Remove(caller, job) {
		return false
	}
	d.refill()
	return true
}

func (d *door[T]) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting.Len()
}

// close lets nobody in any more. What waits in the queue is still handed out; the jobs outside are failed and returned,
// and no longer in the line.
func (d *door[T]) close() (gone []*Job[T]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.announce)
	for job, ok := d.outside.Pop(); ok; job, ok = d.outside.Pop() {
		job.Fail(ErrClosed)
		gone = append(gone, job)
	}
	return gone
}
