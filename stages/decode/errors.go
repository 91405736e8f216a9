package decode

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// What can be wrong with an image. Decode wraps exactly one of them, with the detail.
var (
	ErrNotImage          = errors.New("not an image")
	ErrTruncated         = errors.New("truncated image")
	ErrCorrupt           = errors.New("corrupt image")
	ErrTooManyPixels     = errors.New("too many pixels")
	ErrUnsupportedFormat = errors.New("unsupported image format")
)

// Why an image may not be decoded now, or here.
var (
	ErrTooMuchMemory = errors.New("the image takes too much memory")
	ErrBusy          = errors.New("too many large images wait for memory")
)

// corrupt, truncated and unsupported wrap their sentinel with the detail, formatted as by fmt.Errorf.
func corrupt(format string, args ...any) error   { return detailed(ErrCorrupt, format, args...) }
func truncated(format string, args ...any) error { return detailed(ErrTruncated, format, args...) }
func unsupported(format string, args ...any) error {
	return detailed(ErrUnsupportedFormat, format, args...)
}

func detailed(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: %w", sentinel, fmt.Errorf(format, args...))
}

// classify wraps an error of a Go decoder with a sentinel. Those decoders have few error types, so the
// word "short" decides as well.
func classify(format string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "short") {
		return truncated("%s: %w", format, err)
	}
	return corrupt("%s: %w", format, err)
}
