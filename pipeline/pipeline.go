package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hailoclip/pipeline/fair"
)

// Pipeline is a line of running stages. Safe for concurrent use.
type Pipeline struct {
	lines   []*line
	door    *door // in front of the first line
	workers sync.WaitGroup

	abandon     chan struct{} // closed when Close gives up on what is still inside
	abandonOnce sync.Once
}

// New starts the workers of all stages. At least one stage, at most 8.
func New(stages ...Stage) (*Pipeline, error) {
	if len(stages) == 0 || len(stages) > maxStages {
		return nil, fmt.Errorf("pipeline: %d stages, want 1 to %d", len(stages), maxStages)
	}
	p := &Pipeline{abandon: make(chan struct{})}
	for i, s := range stages {
		if err := s.validate(i == 0); err != nil {
			return nil, fmt.Errorf("pipeline: %w", err)
		}
		p.lines = append(p.lines, &line{Stage: s, in: make(chan *Job, s.Queue)})
	}
	p.door = &door{announce: p.lines[0].in}
	p.lines[0].door = p.door
	for i, l := range p.lines {
		if i+1 < len(p.lines) {
			l.next = p.lines[i+1]
		}
		l.working.Store(int32(l.Workers))
		l.ended = p.workers.Done
		l.crew.able = l.Workers
		for n := range l.Workers {
			l.crew.spare = append(l.crew.spare, l.Workers+n)
			p.workers.Add(1)
			go l.worker(n)
		}
	}
	return p, nil
}

// Do takes the job through the line. It blocks until the job is finished or ctx ends; with a
// deadline in ctx it therefore always answers by the deadline, if Enter of the first stage does.
//
// Errors: ErrQueueFull and ErrClosed without having started, ErrQueueFull also when a caller with less waiting took
// the job's place in the queue; ErrDeadline when ctx ended first
// (the line still finishes or drops the job behind it); ErrClosed when Close gave up waiting;
// otherwise what a stage gave to Job.Fail. See Job for what may be touched afterwards.
func (p *Pipeline) Do(ctx context.Context, job *Job) error {
	job.ctx, job.done = ctx, make(chan struct{})
	if err := p.enter(job); err != nil {
		job.Fail(err) // before leave: afterwards the job may be somebody else's
		job.leave()
		return err
	}
	select {
	case <-job.done:
		return job.err
	case <-ctx.Done():
		if p.door.giveUp(job) {
			job.Fail(fmt.Errorf("%w: %w", ErrDeadline, context.Cause(ctx)))
			p.lines[0].count(job)
			err := job.err
			job.leave()
			return err
		}
	case <-p.abandon:
	}
	select {
	case <-job.done: // finished at the same moment: a result is better than an error
		return job.err
	default:
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrDeadline, context.Cause(ctx))
	}
	return fmt.Errorf("%w: not finished in time", ErrClosed)
}

// Refuses says why a job of the caller would be refused now, nil when it would not. It is for refusing cheaply,
// before a request is read or parsed; Do is what decides. Safe for concurrent use.
func (p *Pipeline) Refuses(c fair.Caller) error { return p.door.refuses(c) }

// enter puts the job into the first queue, or says why not.
func (p *Pipeline) enter(job *Job) error {
	first := p.lines[0]
	if first.Enter != nil {
		if err := p.door.refuses(job.Caller); err != nil {
			return err
		}
		first.call([]*Job{job}, func() {
			if err := first.Enter(job); err != nil {
				job.Fail(err)
			}
		})
		switch {
		case job.err == nil:
		case job.ctx.Err() != nil:
			first.expired.Add(1)
			return fmt.Errorf("%w: %w", ErrDeadline, context.Cause(job.ctx))
		default:
			first.count(job)
			return job.err
		}
	}
	job.queued = time.Now()
	displaced, err := p.door.enter(job)
	if displaced != nil {
		displaced.Fail(errDisplaced)
		displaced.leave()
	}
	return err
}

// Close refuses new jobs, lets the line finish those inside and waits for all workers to end.
// When ctx ends first, the callers of Do that still wait get ErrClosed, and Close returns the
// cause of ctx although workers may still run. It does not wait for stuck workers that have been replaced; when there
// are some, its error says so. It may be called again, and concurrently.
func (p *Pipeline) Close(ctx context.Context) error {
	p.door.close()
	ended := make(chan struct{})
	go func() { p.workers.Wait(); close(ended) }()
	select {
	case <-ended:
		if s, ok := p.Stuck(); ok {
			return fmt.Errorf("pipeline: %d workers are stuck in %s", s.Workers, s.Stage)
		}
		return nil
	case <-ctx.Done():
		p.abandonOnce.Do(func() { close(p.abandon) })
		return fmt.Errorf("pipeline: jobs are still inside: %w", context.Cause(ctx))
	}
}
