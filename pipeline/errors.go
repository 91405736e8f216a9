package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// Errors of Pipeline.Do, besides those of the stages. They are wrapped with what happened.
var (
	ErrQueueFull  = errors.New("the queue is full")
	ErrDeadline   = errors.New("the deadline has passed") // or the context ended for another reason, which is wrapped too
	ErrClosed     = errors.New("the service is stopping")
	ErrSuperseded = errors.New("superseded by a newer one")

	// ErrDisplaced is the ErrQueueFull of a job that was in the queue.
	ErrDisplaced = fmt.Errorf("%w: another caller has less waiting", ErrQueueFull)
)

// PanicError is the error of the jobs whose stage panicked. Its text does not show the stack, which is for the log.
type PanicError struct {
	Stage string
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic in stage %s: %v", e.Stage, e.Value) }

// Recover is deferred: it makes an error of a panic.
func Recover(stage string, err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{stage, v, debug.Stack()}
	}
}

// Late returns the ErrDeadline of a context that has ended, with its cause.
func Late(ctx context.Context) error { return fmt.Errorf("%w: %w", ErrDeadline, context.Cause(ctx)) }
