// Package pipeline moves jobs through a line of stages.
//
// A [Job] is an item of any type and its way from a request to its answer. A [Stage] is a bounded queue and the
// workers that read it. A [Pipeline] is a row of stages. This package knows nothing of what they do and promises:
//
//   - [Pipeline.Do] answers by the deadline of its context, whatever the stages do.
//   - Work is refused at the front door only, where the policy of its [Lane] says so: a full first queue is
//     ErrQueueFull at once, a full queue inside the line means wait. Lanes are served in turn.
//   - One goroutine holds a job at a time; the send to the next queue is the transfer.
//   - A panic in a stage fails its job and nothing else.
//   - Every job leaves the line exactly once.
//   - Close drains: the first queue is closed, and the last worker out of each stage closes
//     the next one. No goroutine is left behind.
package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// Pipeline is a line of running stages for items of type T. Safe for concurrent use.
type Pipeline[T any] struct {
	hooks Hooks[T]
	lines []*line[T]
	ended chan struct{} // closed by the last worker of all

	patience context.Context // ends when Close gives up on what is still inside
	giveUp   context.CancelFunc
}

// Hooks are what happens to a job at the ends of the line. Each may be nil.
type Hooks[T any] struct {
	// Enter is called for every job before it may queue, by the goroutine that called Do. It may block until the
	// job's context ends, which for a job of a Latest lane may be before that of Do: with ErrSuperseded. It does not keep that
	// context. An error is the job's.
	Enter func(*Job[T]) error

	// Leave is called exactly once for every job given to Do, whatever Do returns, when nothing in the line will
	// touch the item any more. It gives back what the item holds. It may run on a worker: it must not block.
	Leave func(*Job[T])
}

// New starts the workers of all stages. At least one stage, at most 8.
func New[T any](hooks Hooks[T], stages ...Stage[T]) (*Pipeline[T], error) {
	if len(stages) == 0 || len(stages) > maxStages {
		return nil, fmt.Errorf("pipeline: %d stages, want 1 to %d", len(stages), maxStages)
	}
	p := &Pipeline[T]{hooks: hooks, ended: make(chan struct{})}
	p.patience, p.giveUp = context.WithCancel(context.Background())
	for i, s := range stages {
		if s.Work == nil || s.Workers < 1 || s.Queue < 0 || i == 0 && s.Queue < 1 {
			return nil, fmt.Errorf("pipeline: stage %q has no work, or %d workers or a queue of %d", s.Name, s.Workers, s.Queue)
		}
		l := &line[T]{Stage: s, pipeline: p, in: make(chan *Job[T], s.Queue), crew: crew{able: s.Workers}}
		l.working.Store(int32(s.Workers))
		for n := range s.Workers {
			l.crew.spare = append(l.crew.spare, s.Workers+n)
		}
		if i == 0 {
			l.door = &door[T]{announce: l.in}
		} else {
			p.lines[i-1].next = l
		}
		p.lines = append(p.lines, l)
	}
	for _, l := range p.lines {
		for n := range l.Workers {
			go l.worker(n)
		}
	}
	return p, nil
}

// Do takes the job through the line. It blocks until the job is finished or ctx ends; with a
// deadline in ctx it therefore always answers by the deadline, if Enter does.
//
// Errors: ErrQueueFull and ErrSuperseded, as the policy of the lane says, and ErrClosed, all before a worker has seen
// the job; ErrDeadline, which wraps the cause of ctx, when ctx ended first (the line may still work on the job);
// ErrClosed when Close gave up waiting; otherwise what was given to Job.Fail. See Job for what may be touched afterwards.
func (p *Pipeline[T]) Do(ctx context.Context, job *Job[T]) error {
	job.ctx, job.err, job.passed = ctx, nil, 0
	if job.done == nil {
		job.done = make(chan struct{}, 1)
	}
	if err := p.enter(job); err != nil {
		return p.leave(job, err)
	}
	select {
	case <-job.done:
		return job.err
	case <-ctx.Done():
		if p.door().giveUp(job) {
			return p.leave(job, p.lines[0].count(job.late()))
		}
	case <-p.patience.Done():
	}
	select {
	case <-job.done: // finished at the same moment: a result is better than an error
		return job.err
	default:
	}
	if ctx.Err() != nil {
		return job.late()
	}
	return fmt.Errorf("%w: not finished in time", ErrClosed)
}

// Refuses says why a job of the lane would be refused now, nil when it would not. It is for refusing cheaply,
// before a request is read or parsed; Do is what decides.
func (p *Pipeline[T]) Refuses(lane Lane) error { return p.door().refuses(lane) }

func (p *Pipeline[T]) door() *door[T] { return p.lines[0].door }

// enter puts the job into the first queue, or says why not.
func (p *Pipeline[T]) enter(job *Job[T]) error {
	first := p.lines[0]
	if turn := job.Lane.turn; turn != nil {
		select {
		case turn <- struct{}{}:
			job.turn = true
		case <-job.ctx.Done():
			return first.count(job.late())
		case <-p.patience.Done():
			return ErrClosed
		}
	}
	if p.hooks.Enter != nil {
		if err := p.Refuses(job.Lane); err != nil {
			return err
		}
	}
	if gone := first.door.begin(job); gone != nil {
		p.finish(gone)
	}
	if p.hooks.Enter != nil {
		if err := p.callEnter(job); err != nil {
			if first.door.forget(job) {
				return ErrSuperseded
			}
			job.Fail(err)
			return first.count(job.err)
		}
	}
	job.queued = time.Now()
	gone, err := first.door.enter(job)
	if gone != nil {
		p.finish(gone)
	}
	return err
}

// callEnter returns the error or panic of Hooks.Enter.
func (p *Pipeline[T]) callEnter(job *Job[T]) (err error) {
	if job.Lane.policy == Latest {
		ctx := job.ctx
		job.ctx = job.entry
		defer func() {
			job.entry.close()
			job.ctx = ctx
		}()
	}
	p.lines[0].call(job, func() { err = p.hooks.Enter(job) })
	return cmp.Or(job.err, err)
}

// finish takes a job out of the line and wakes the Do that waits for it. The caller must not touch it afterwards.
func (p *Pipeline[T]) finish(job *Job[T]) {
	_ = p.leave(job, nil)
	job.done <- struct{}{}
}

// leave fails the job with err, if that is not nil, gives back what the job holds, and returns its outcome.
func (p *Pipeline[T]) leave(job *Job[T], err error) error {
	job.Fail(err)
	job.passTurn()
	if p.hooks.Leave != nil {
		p.hooks.Leave(job)
	}
	return job.err
}

// Close refuses new jobs, lets the line finish those inside and waits for all workers to end.
// When ctx ends first, the callers of Do that still wait get ErrClosed, and Close returns the
// cause of ctx although workers may still run. It does not wait for stuck workers that have been replaced; when there
// are some, its error says so. It may be called again, and concurrently.
func (p *Pipeline[T]) Close(ctx context.Context) error {
	for _, job := range p.door().close() {
		p.finish(job)
	}
	select {
	case <-p.ended:
		if s, ok := p.Stuck(); ok {
			return fmt.Errorf("pipeline: %d workers are stuck in %s", s.Workers, s.Stage)
		}
		return nil
	case <-ctx.Done():
		p.giveUp()
		return fmt.Errorf("pipeline: jobs are still inside: %w", context.Cause(ctx))
	}
}
