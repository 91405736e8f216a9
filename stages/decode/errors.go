package decode

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// What can be wrong with an image. Decode wraps exactly one of them, with the detail.
var (
	ErrNotImage          = errors.New("not an image")
	ErrTruncated         = errors.New("truncated image")
	ErrCorrupt           = errors.New("corrupt image")
	ErrTooManyPixels     = errors.New("too many pixels")
	ErrUnsupportedFormat = errors.New("unsupported image format")
)

// unsupported wraps ErrUnsupportedFormat, naming the format that was found and those that are accepted.
func unsupported(found string) error {
	return fmt.Errorf("%w: %s (accepted: %s)", ErrUnsupportedFormat, found, accepted)
}

// unsupportedKind is for a picture of an accepted format that no decoder here can read.
func unsupportedKind(what string) error {
	return fmt.Errorf("%w: %s", ErrUnsupportedFormat, what)
}

// classify maps an error of a Go decoder to a sentinel. Those decoders have few error types, so the
// words "not enough" (PNG, GIF, TIFF: the pixel data ended early), "short" (RIFF) and "EOF" at the end
// (GIF, which does not wrap it) decide as well.
func classify(format string, err error) error {
	var tiffFeature tiff.UnsupportedError
	switch {
	case errors.As(err, &tiffFeature), errors.Is(err, bmp.ErrUnsupported):
		return unsupportedKind(fmt.Sprintf("this kind of %s (%v)", format, err))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "not enough"), strings.Contains(err.Error(), "short"), strings.HasSuffix(err.Error(), "EOF"):
		return fmt.Errorf("%w: %s: %w", ErrTruncated, format, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, format, err)
}
