package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Pipeline is a line of running stages. Safe for concurrent use.
type Pipeline struct {
	lines   []*line
	workers sync.WaitGroup

	door   sync.RWMutex // guards closed and the closing of the first queue
	closed bool

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
	for i, l := range p.lines {
		if i+1 < len(p.lines) {
			l.next = p.lines[i+1]
		}
		l.working.Store(int32(l.Workers))
		for n := range l.Workers {
			p.workers.Go(func() { l.worker(n) })
		}
	}
	return p, nil
}

// Do takes the job through the line. It blocks until the job is finished or ctx ends; with a
// deadline in ctx it therefore always answers by the deadline.
//
// Errors: ErrQueueFull and ErrClosed without having started; ErrDeadline when ctx ended first
// (the line still finishes or drops the job behind it); ErrClosed when Close gave up waiting;
// otherwise what a stage gave to Job.Fail. See Job for what may be touched afterwards.
func (p *Pipeline) Do(ctx context.Context, job *Job) error {
	job.ctx, job.done, job.queued = ctx, make(chan struct{}), time.Now()
	if err := p.enter(job); err != nil {
		job.leave()
		return err
	}
	select {
	case <-job.done:
		return job.err
	case <-ctx.Done():
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

// Full says that a job would be refused now. It is for refusing cheaply, before a request is
// read or parsed; Do is what decides. Safe for concurrent use.
func (p *Pipeline) Full() bool { return len(p.lines[0].in) == cap(p.lines[0].in) }

// enter puts the job into the first queue, or says at once why not.
func (p *Pipeline) enter(job *Job) error {
	p.door.RLock()
	defer p.door.RUnlock()
	if p.closed {
		return ErrClosed
	}
	select {
	case p.lines[0].in <- job:
		return nil
	default:
		return ErrQueueFull
	}
}

// Close refuses new jobs, lets the line finish those inside and waits for all workers to end.
// When ctx ends first, the callers of Do that still wait get ErrClosed, and Close returns the
// cause of ctx although workers may still run. It may be called again, and concurrently.
func (p *Pipeline) Close(ctx context.Context) error {
	p.door.Lock()
	if !p.closed {
		p.closed = true
		close(p.lines[0].in)
	}
	p.door.Unlock()

	ended := make(chan struct{})
	go func() { p.workers.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		p.abandonOnce.Do(func() { close(p.abandon) })
		return fmt.Errorf("pipeline: jobs are still inside: %w", context.Cause(ctx))
	}
}
