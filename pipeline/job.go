package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Job is an item on its way through the line.
//
// Once given to Do it belongs to the line: when Do returns an error, the line may still be working on it, so the
// caller must not touch it again, nor what Item refers to until Hooks.Leave has been called. After a nil error the
// caller owns it, and may give it to Do once more.
type Job[T any] struct {
	Item T
	Lane Lane // where it enters

	ctx    context.Context
	entry  *entry // ctx of a Latest lane's job inside Hooks.Enter
	number uint64 // of a Latest lane's job: in the order of arrival
	err    error
	done   chan struct{} // gets a value when the job has left the line
	turn   bool          // it has the turn of its lane
	queued time.Time     // when it was put into the queue it waits in
	times  [maxStages]StageTime
	passed int
}

// StageTime is the time that a job spent in one stage.
type StageTime struct {
	Stage string
	Wait  time.Duration // in the queue before it
	Work  time.Duration // in its worker
}

// Context carries the deadline of the job. For stages and hooks.
func (j *Job[T]) Context() context.Context { return j.ctx }

// Fail makes err the outcome of the job, which leaves the line after this stage. Nil does nothing, and so does an error
// after the first. The end of a context becomes ErrDeadline; if it is the job's own context, with its cause. For stages
// and hooks.
func (j *Job[T]) Fail(err error) {
	if j.err != nil || err == nil {
		return
	}
	switch j.err = err; {
	case errors.Is(err, ErrDeadline):
	case j.ctx.Err() != nil && (isEnd(err) || errors.Is(err, context.Cause(j.ctx))):
		j.err = j.late()
	case isEnd(err):
		j.err = fmt.Errorf("%w: %w", ErrDeadline, err)
	}
}

// isEnd says whether err is the end of some context.
func isEnd(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// Times returns the time in each stage that the job has passed, in order.
func (j *Job[T]) Times() []StageTime { return j.times[:j.passed] }

// passTurn lets the next job of a Bulk lane enter. Only the goroutine that holds the job calls it.
func (j *Job[T]) passTurn() {
	if j.turn {
		j.turn = false
		<-j.Lane.turn
	}
}

// late is the error of a job whose context has ended.
func (j *Job[T]) late() error { return Late(j.ctx) }
