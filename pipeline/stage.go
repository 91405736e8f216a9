package pipeline

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// maxStages bounds the stages of a pipeline, so that a job keeps their times without allocating.
const maxStages = 8

// Stage is a bounded queue and the workers that read it.
type Stage[T any] struct {
	Name    string
	Queue   int           // jobs that may wait in front of it, at least 0 (1 for the first stage)
	Workers int           // at least 1
	Batch   int           // jobs that one call of Work gets at most; 0 means 1
	MaxWait time.Duration // how long a worker that has a job waits for the rest of a batch

	// Skip says that a job needs nothing of this stage: the worker of the one before hands it on to the next, and it is in none
	// of this one's counters and times. nil: every job needs it, as all do the first stage.
	Skip func(*Job[T]) bool

	// Work does the stage's part for jobs, none of which has failed or passed its deadline
	// before the call. worker is 0..2*Workers-1; one worker makes one call at a time, and the upper
	// half works only in the place of those that are stuck (see Stuck). It calls
	// Fail on jobs that cannot go on, and keeps neither the slice nor the jobs.
	Work func(worker int, jobs []*Job[T])
}

// line is a running stage.
type line[T any] struct {
	Stage[T]
	pipeline *Pipeline[T]
	in       chan *Job[T]
	door     *door[T]     // of the first one; in is its announcements then
	next     *line[T]     // nil for the last one
	working  atomic.Int32 // workers that have not ended
	crew     crew
	counters
}

// worker runs until the queue is closed and empty, or until it has been replaced.
func (l *line[T]) worker(n int) {
	batch := make([]*Job[T], 0, max(l.Batch, 1))
	w := &watch{}
	for job := range l.in {
		batch = l.gather(l.add(batch[:0], job))
		if replaced := l.run(n, w, batch); replaced {
			return
		}
	}
	switch last := l.working.Add(-1) == 0; {
	case last && l.next != nil:
		close(l.next.in)
	case last:
		close(l.pipeline.ended)
	}
}

// add appends to batch what came out of the queue.
func (l *line[T]) add(batch []*Job[T], job *Job[T]) []*Job[T] {
	if l.door != nil {
		if job = l.door.next(); job == nil {
			return batch
		}
	}
	return append(batch, job)
}

// gather fills the batch with what is queued, and waits for more only if MaxWait says so.
func (l *line[T]) gather(batch []*Job[T]) []*Job[T] {
	var timer *time.Timer
	for len(batch) < cap(batch) {
		var job *Job[T]
		ok := false
		select {
		case job, ok = <-l.in:
		default:
			if l.MaxWait <= 0 || len(batch) == 0 {
				return batch
			}
			if timer == nil {
				timer = time.NewTimer(l.MaxWait)
				defer timer.Stop()
			}
			select {
			case job, ok = <-l.in:
			case <-timer.C:
			}
		}
		if !ok {
			return batch
		}
		batch = l.add(batch, job)
	}
	return batch
}

// run does the stage's work for a batch and passes every job on. It says whether the worker has been replaced
// meanwhile.
func (l *line[T]) run(worker int, w *watch, batch []*Job[T]) (replaced bool) {
	defer clear(batch) // a worker that waits must not keep the last jobs alive
	start := time.Now()
	live := batch[:0]
	for _, job := range batch {
		if job.ctx.Err() == nil {
			live = append(live, job)
			continue
		}
		job.Fail(l.count(fmt.Errorf("before %s: %w", l.Name, job.late())))
		l.pipeline.finish(job)
	}
	if len(live) == 0 {
		return false
	}
	l.busy.Add(1)
	l.begin(w, live)
	l.call(live, func() { l.Work(worker, live) })
	stuck, replaced := w.end(&l.crew, worker)
	l.busy.Add(-1)
	end := time.Now()
	l.batches[min(len(live), maxBatchCounted)].Add(1)
	for _, job := range live {
		if l.door != nil {
			l.door.charge(job.Lane, end.Sub(start)/time.Duration(len(live)))
		}
		if stuck { // it was answered long ago, and the next stage may have ended
			job.Fail(fmt.Errorf("in %s: %w", l.Name, job.late()))
		}
		job.times[job.passed] = StageTime{Stage: l.Name, Wait: start.Sub(job.queued), Work: end.Sub(start)}
		job.passed++
		job.queued = end
		if next := l.after(job); l.count(job.err) != nil || next == nil {
			l.pipeline.finish(job)
		} else {
			next.in <- job
		}
	}
	return replaced
}

// after is the next stage that the job needs; nil when there is none.
func (l *line[T]) after(job *Job[T]) *line[T] {
	next := l.next
	for next != nil && next.Skip != nil && next.Skip(job) {
		next = next.next
	}
	return next
}

// call contains a panic of work to its jobs.
func (l *line[T]) call(jobs []*Job[T], work func()) {
	defer func() {
		if v := recover(); v != nil {
			err := &PanicError{Stage: l.Name, Value: v, Stack: debug.Stack()}
			for _, job := range jobs {
				job.Fail(err)
			}
		}
	}()
	work()
}

// count notes that a job has passed the stage, or that it failed in it with err, which it returns.
func (c *counters) count(err error) error {
	switch {
	case err == nil:
		c.passed.Add(1)
	case errors.Is(err, ErrDeadline):
		c.expired.Add(1)
	default:
		c.failed.Add(1)
	}
	return err
}
