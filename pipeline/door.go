package pipeline

import (
	"slices"
	"sync"
	"time"

	"hailoclip/pipeline/fair"
)

// door is the queue in front of the first stage. Lanes are served in turn, beginning with the address that has used
// the least of the workers' time. For each waiting job there is a nil in the channel of the stage, at least: a worker
// that receives one calls next for the job whose turn it is. Safe for concurrent use.
type door[T any] struct {
	announce chan *Job[T] // as long as the queue

	mu       sync.Mutex
	entering []*Job[T] // of Latest lanes, inside Hooks.Enter, in no order
	arrived  uint64    // jobs of Latest lanes so far
	waiting  fair.Queue[*Job[T]]
	outside  fair.Queue[*Job[T]] // of Bulk lanes, while there is no room for them: at most one of each
	bulk     int                 // of waiting, those of Bulk lanes: at most half of the queue, and one
	closed   bool
}

// begin counts a job of a Latest lane as one that waits, until forget or enter; other jobs it leaves alone. The oldest of the
// lane may have to make room: it gets ErrSuperseded. If it is gone, it was in the queue, and the caller finishes it; one
// inside Hooks.Enter has its context ended, and forget and enter say so.
func (d *door[T]) begin(job *Job[T]) (gone *Job[T]) {
	if job.Lane.policy != Latest {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	oldest := d.superseded(job.Lane)
	switch {
	case oldest == nil:
	case d.waiting.Remove(oldest.Lane.Caller, oldest):
		oldest.Fail(ErrSuperseded)
		gone = oldest
	default: // it cannot leave Enter behind, and be used again, before the lock is free
		d.remove(oldest)
		oldest.entry.supersede()
	}
	d.arrived++
	job.number = d.arrived
	job.entry = job.entry.next(job.ctx)
	d.entering = append(d.entering, job)
	return gone
}

// forget ends begin for a job that does not enter. It says whether the job was superseded meanwhile.
func (d *door[T]) forget(job *Job[T]) (superseded bool) {
	if job.Lane.policy != Latest {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.remove(job)
}

// remove takes a job out of those that are entering, and says whether it was there.
func (d *door[T]) remove(job *Job[T]) bool {
	i := slices.Index(d.entering, job)
	if i >= 0 {
		d.entering = slices.Delete(d.entering, i, i+1)
	}
	return i >= 0
}

// enter queues the job, after begin, or returns at once why not. gone is a job that had to make room: it has been failed and is
// no longer in the queue. The caller finishes it.
func (d *door[T]) enter(job *Job[T]) (gone *Job[T], err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if job.Lane.policy == Latest && !d.remove(job) {
		return nil, ErrSuperseded
	}
	if d.closed {
		return nil, ErrClosed
	}
	caller := job.Lane.Caller
	if job.Lane.policy == Bulk && d.bulkFull() {
		d.outside.Push(caller, job)
		return nil, nil
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
			d.bulk--
			d.outside.Push(displaced.Lane.Caller, displaced)
		default:
			gone = displaced
			gone.Fail(ErrDisplaced)
		}
	}
	d.push(job)
	return gone, nil
}

func (d *door[T]) full() bool { return d.waiting.Len() >= cap(d.announce) }

// bulkFull says that jobs of Bulk lanes have all the places that they may have: many of these lanes leave room for others.
func (d *door[T]) bulkFull() bool { return d.bulk >= max(cap(d.announce)/2, 1) }

// superseded returns the job whose place the next one of a Latest lane takes; nil when there is room for both.
func (d *door[T]) superseded(lane Lane) (oldest *Job[T]) {
	if lane.policy != Latest {
		return nil
	}
	waiting := 0
	for _, jobs := range [...][]*Job[T]{d.entering, d.waiting.Of(lane.Caller)} {
		for _, job := range jobs {
			if job.Lane.latest != lane.latest {
				continue
			}
			if waiting++; oldest == nil || job.number < oldest.number {
				oldest = job
			}
		}
	}
	if waiting < maxLatest {
		return nil
	}
	return oldest
}

// gives says whether the next job of a lane has the place of another one of it in the queue.
func (d *door[T]) gives(lane Lane) bool {
	oldest := d.superseded(lane)
	return oldest != nil && !slices.Contains(d.entering, oldest)
}

func (d *door[T]) push(job *Job[T]) {
	d.waiting.Push(job.Lane.Caller, job)
	if job.Lane.policy == Bulk {
		d.bulk++
	}
	select {
	case d.announce <- nil:
	default: // it is full, in part of nils for jobs that were given up since
	}
}

// refill moves jobs from outside into the queue, as far as there is room.
func (d *door[T]) refill() {
	for !d.full() && !d.bulkFull() {
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
	case d.full() && lane.policy != Bulk && !d.gives(lane) && !d.waiting.Yields(lane.Caller):
		return ErrQueueFull
	}
	return nil
}

// next takes the job whose turn it is out of the queue. It is nil when the queue has fewer jobs than the channel nils.
func (d *door[T]) next() *Job[T] {
	d.mu.Lock()
	defer d.mu.Unlock()
	job, ok := d.waiting.Pop()
	if ok {
		if job.Lane.policy == Bulk {
			d.bulk--
		}
		job.passTurn()
		d.refill()
	}
	return job
}

// charge adds the time that a job took to what its address has used, so that long jobs cost their own caller turns.
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
	switch {
	case d.waiting.Remove(caller, job):
		if job.Lane.policy == Bulk {
			d.bulk--
		}
	case !d.outside.Remove(caller, job):
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

// close refuses all further jobs. next still returns those in the queue. Those outside are failed and returned, for the
// caller to finish.
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
