package stages

import (
	"errors"
	"fmt"
	"math"
)

// ErrRegion says that a region is not a part of the image: Region says what it must be.
var ErrRegion = errors.New("the region is not inside the image")

// Check returns an ErrRegion when r is not a part of an image.
func (r Region) Check() error {
	if r.X >= 0 && r.Y >= 0 && r.X < r.X+r.W && r.Y < r.Y+r.H && r.X+r.W <= 1 && r.Y+r.H <= 1 { // no comparison with NaN is true
		return nil
	}
	return fmt.Errorf("%w: x %v, y %v, width %v, height %v, where the image is 0 to 1", ErrRegion, r.X, r.Y, r.W, r.H)
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
