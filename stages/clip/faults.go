package clip

import (
	"errors"

	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// imageFaults are the errors that are the image's own, whoever encodes it and whenever, by the codes of the service's answers
// (api/errors.go).
var imageFaults = []struct {
	err  error
	code string
}{
	{decode.ErrNotImage, "invalid_image"},
	{decode.ErrTruncated, "invalid_image"},
	{decode.ErrCorrupt, "invalid_image"},
	{resize.ErrTooExtreme, "invalid_image"},
	{decode.ErrTooManyPixels, "image_too_large"},
	{decode.ErrTooMuchMemory, "image_too_large"},
	{decode.ErrUnsupportedFormat, "unsupported_image"},
}

// ImageFault returns the code of an error that is the image's own, so that to try again is of no use; "" for any other error, and
// for none.
func ImageFault(err error) (code string) {
	for _, f := range imageFaults {
		if errors.Is(err, f.err) {
			return f.code
		}
	}
	return ""
}
