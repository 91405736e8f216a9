package stages

import (
	"errors"
	"fmt"
	"math"

	"hailoclip/stages/decode"
)

// ErrRegion says that a region is not a part of the image, see Region, or that there are too many.
var ErrRegion = errors.New("regions that cannot be")

// parts returns the sizes of the regions, for the decoder, and ErrRegion where one cannot be, or where they are more than may
// be or than there are frames.
func (r *Request) parts(frames int) (parts []decode.Part, err error) {
	if n := len(r.Regions); n > min(MaxRegions, frames) {
		return nil, fmt.Errorf("%w: %d regions, at most %d", ErrRegion, n, min(MaxRegions, frames))
	}
	if len(r.Regions) > 0 && r.Raw.Compressed() {
		parts = make([]decode.Part, 0, len(r.Regions))
	}
	for i := range r.Regions {
		if err := r.Regions[i].Check(); err != nil {
			return nil, fmt.Errorf("region %d: %w", i, err)
		}
		if parts != nil {
			parts = append(parts, decode.Part{Width: r.Regions[i].W, Height: r.Regions[i].H})
		}
	}
	return parts, nil
}

// Check returns an ErrRegion when r is not a part of an image.
func (r Region) Check() error {
	if r.X >= 0 && r.Y >= 0 && r.X < r.X+r.W && r.Y < r.Y+r.H && r.X+r.W <= 1 && r.Y+r.H <= 1 { // no comparison with NaN is true
		return nil
	}
	return fmt.Errorf("%w: x %v, y %v, width %v, height %v is not inside the image, which is 0 to 1", ErrRegion, r.X, r.Y, r.W, r.H)
}

// Crop returns a region of the image, without copying it. Each of the four edges lies where it falls between two pixels, rounded
// to the nearest such place, so that regions that touch share no pixel; a region has one pixel at least. r must be one that
// Check accepts.
func (p Pixels) Crop(r Region) Pixels {
	x, w := along(r.X, r.W, p.Width)
	y, h := along(r.Y, r.H, p.Height)
	from, to := y*p.Stride+3*x, (y+h-1)*p.Stride+3*(x+w)
	return Pixels{Pix: p.Pix[from:to:to], Width: w, Height: h, Stride: p.Stride}
}

// along is the first pixel, and how many there are, of what begins at from and is part long, in parts of length pixels.
func along(from, part float64, length int) (first, n int) {
	edge := func(at float64) int { return int(math.Round(at * float64(length))) }
	first = min(edge(from), length-1)
	return first, min(max(edge(from+part)-first, 1), length-first)
}
