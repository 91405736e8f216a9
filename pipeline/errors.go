package pipeline

import (
	"errors"
	"fmt"
)

// Why a job has no result. Do and the stages return them wrapped with what happened.
var (
	ErrQueueFull        = errors.New("the queue is full")
	ErrDeadline         = errors.New("the deadline has passed")
	ErrClosed           = errors.New("the service is stopping")
	ErrPanic            = errors.New("internal error")
	ErrBadImage         = errors.New("cannot decode the image")
	ErrImageTooLarge    = errors.New("the image is too large")
	ErrUnsupportedImage = errors.New("unsupported image format")
	ErrUnavailable      = errors.New("the encoder is not available")
	ErrEncode           = errors.New("the image could not be encoded")
)

// PanicError is the error of the jobs whose stage panicked. It is an ErrPanic; its text does
// not show the stack, which is for the log.
type PanicError struct {
	Stage string
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic in stage %s: %v", e.Stage, e.Value) }
func (e *PanicError) Unwrap() error { return ErrPanic }
