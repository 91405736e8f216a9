package pipeline

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// maxStages bounds the stages of a pipeline, so that a job keeps their times without allocating.
const maxStages = 8

// Stage is a bounded queue and the workers that read it.
type Stage[T any] struct {
	Name    string
	Queue   int // jobs that may wait in front of it, at least 0 (1 for the first stage)
	Workers int // at least 1

	// Skip says that a job needs nothing of this stage: the worker of the one before hands it on to the next, and it is in none
	// of this one's counters and times. nil: every job needs it, as all do the first stage.
	Skip func(*Job[T]) bool

	// Work does the stage's part for a job that has neither failed nor passed its deadline
	// before the call. worker is 0..2*Workers-1; one worker makes one call at a time, and the upper
	// half works only in the place of those that are stuck (see Stuck). It calls
	// Fail on a job that cannot go on, and does not keep the job.
	Work func(worker int, job *Job[T])
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
	w := &watch{}
	for job := range l.in {
		if l.door != nil {
			job = l.door.next()
		}
		if job != nil && l.run(n, w, job) {
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

// run does the stage's work for a job and passes it on. It says whether the worker has been replaced meanwhile.
func (l *line[T]) run(worker int, w *watch, job *Job[T]) (replaced bool) {
	if job.ctx.Err() != nil {
		job.Fail(l.count(fmt.Errorf("before %s: %w", l.Name, job.late())))
		l.pipeline.finish(job)
		return false
	}
	start := time.Now()
	l.busy.Add(1)
	l.begin(w, job)
	l.call(job, func() { l.Work(worker, job) })
	stuck, replaced := w.end(&l.crew, worker)
	l.busy.Add(-1)
	end := time.Now()
	l.calls.Add(1)
	if l.door != nil {
		l.door.charge(job.Lane, end.Sub(start))
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

// call contains a panic of work to its job.
func (l *line[T]) call(job *Job[T], work func()) {
	var err error
	defer func() { job.Fail(err) }()
	defer Recover(l.Name, &err)
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
