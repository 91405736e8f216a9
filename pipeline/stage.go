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
type Stage struct {
	Name    string
	Queue   int           // jobs that may wait in front of it, at least 0 (1 for the first stage)
	Workers int           // at least 1
	Batch   int           // jobs that one call of Work gets at most; 0 means 1
	MaxWait time.Duration // how long a worker that has a job waits for the rest of a batch

	// Work does the stage's part for jobs, none of which has failed or passed its deadline
	// before the call. worker is 0..2*Workers-1; one worker makes one call at a time, and the upper
	// half works only in the place of those that are stuck (see Stuck). It calls
	// Fail on jobs that cannot go on, and keeps neither the slice nor the jobs.
	Work func(worker int, jobs []*Job)

	// Enter, of the first stage only, is called for every job before it may queue, by the goroutine that
	// called Do. It may block until the job's context ends. An error is the job's. May be nil.
	Enter func(job *Job) error
}

func (s *Stage) validate(first bool) error {
	switch {
	case s.Work == nil:
		return fmt.Errorf("stage %q has no Work", s.Name)
	case s.Workers < 1:
		return fmt.Errorf("stage %q has %d workers, needs 1", s.Name, s.Workers)
	case s.Batch < 0:
		return fmt.Errorf("stage %q has batch size %d", s.Name, s.Batch)
	case s.Queue < 0, first && s.Queue < 1:
		return fmt.Errorf("stage %q has a queue of %d", s.Name, s.Queue)
	case s.Enter != nil && !first:
		return fmt.Errorf("stage %q has an Enter, but is not the first", s.Name)
	}
	return nil
}

// line is a running stage.
type line struct {
	Stage
	in      chan *Job
	door    *door        // of the first one; in is its announcements then
	next    *line        // nil for the last one
	working atomic.Int32 // workers that have not ended
	ended   func()       // called by each worker at its end
	crew    crew
	counters
}

// worker runs until the queue is closed and empty, or until it has been replaced.
func (l *line) worker(n int) {
	batch := make([]*Job, 0, max(l.Batch, 1))
	w := &watch{}
	for job := range l.in {
		batch = l.gather(l.add(batch[:0], job))
		if replaced := l.run(n, w, batch); replaced {
			return
		}
	}
	if l.working.Add(-1) == 0 && l.next != nil {
		close(l.next.in)
	}
	l.ended()
}

// add appends to batch what came out of the queue.
func (l *line) add(batch []*Job, job *Job) []*Job {
	if l.door != nil {
		if job = l.door.next(); job == nil {
			return batch
		}
	}
	return append(batch, job)
}

// gather fills the batch with what is queued, and waits for more only if MaxWait says so.
func (l *line) gather(batch []*Job) []*Job {
	for len(batch) < cap(batch) {
		select {
		case job, ok := <-l.in:
			if !ok {
				return batch
			}
			batch = l.add(batch, job)
			continue
		default:
		}
		break
	}
	if l.MaxWait <= 0 || len(batch) == 0 || len(batch) == cap(batch) {
		return batch
	}
	timer := time.NewTimer(l.MaxWait)
	defer timer.Stop()
	for len(batch) < cap(batch) {
		select {
		case job, ok := <-l.in:
			if !ok {
				return batch
			}
			batch = l.add(batch, job)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// run does the stage's work for a batch and passes every job on. It says whether the worker has been replaced
// meanwhile.
func (l *line) run(worker int, w *watch, batch []*Job) (replaced bool) {
	defer clear(batch) // a worker that waits must not keep the last jobs alive
	start := time.Now()
	live := batch[:0]
	for _, job := range batch {
		if err := job.ctx.Err(); err != nil {
			job.Fail(fmt.Errorf("%w before %s", ErrDeadline, l.Name))
			l.count(job)
			job.leave()
			continue
		}
		live = append(live, job)
	}
	if len(live) == 0 {
		return false
	}
	l.busy.Add(1)
	w.begin(l, live)
	l.call(live, func() { l.Work(worker, live) })
	stuck, replaced := w.end(l, worker)
	l.busy.Add(-1)
	end := time.Now()
	l.countBatch(len(live))
	for _, job := range live {
		if l.door != nil {
			l.door.charge(job.Caller, end.Sub(start)/time.Duration(len(live)))
		}
		if stuck { // it was answered long ago, and the next stage may have ended
			job.Fail(fmt.Errorf("%w in %s", ErrDeadline, l.Name))
		}
		job.stages[job.passed] = StageTime{Stage: l.Name, Wait: start.Sub(job.queued), Work: end.Sub(start)}
		job.passed++
		job.queued = end
		l.count(job)
		if job.err != nil || l.next == nil {
			job.leave()
		} else {
			l.next.in <- job
		}
	}
	return replaced
}

// call contains a panic of work to its jobs.
func (l *line) call(jobs []*Job, work func()) {
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

// count notes that a job has passed the stage or failed in it.
func (c *counters) count(job *Job) {
	switch {
	case job.err == nil:
		c.passed.Add(1)
	case errors.Is(job.err, ErrDeadline):
		c.expired.Add(1)
	default:
		c.failed.Add(1)
	}
}
