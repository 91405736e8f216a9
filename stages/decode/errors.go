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

// unsupported wraps ErrUnsupportedFormat, naming the format that was found and those that are accepted.
func unsupported(found string) error {
	return fmt.Errorf("%w: %s (accepted: %s)", ErrUnsupportedFormat, found, accepted)
}

// unsupportedKind is for an image of an accepted format that no decoder here can read.
func unsupportedKind(what string) error {
	return fmt.Errorf("%w: %s", ErrUnsupportedFormat, what)
}

// classify maps an error of a Go decoder to a sentinel. Those decoders have few error types, so the
// word "short" decides as well.
func classify(format string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "short") {
		return fmt.Errorf("%w: %s: %w", ErrTruncated, format, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, format, err)
}
