// Package resize brings a decoded image into the square that an image encoder takes: with PIL's
// antialiased bicubic filter, equal to Pillow's Image.resize(BICUBIC) in every byte (the integer algorithm
// of its Resample.c), computing only what the square shows.
//
// Rows go through the horizontal filter once, two at a time, into a window of a few rows that stays in the
// first-level cache; the vertical filter reads that window and writes into the caller's memory.
package resize

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Values of Config.Fit.
const (
	FitCrop   = "crop"   // shorter side to the size, then the middle: CLIP's own preprocessing
	FitSquash = "squash" // both sides to the size, whatever the aspect ratio
	FitPad    = "pad"    // longer side to the size, centred on CLIP's mean colour
)

// Config says how an image is fitted into the square.
type Config struct {
	Fit string `yaml:"fit" bounds:"crop, squash, pad"`
}

// ErrTooExtreme means that a side of the image is too long for the square: squeezing it would take weights
// by the million. Only "squash" and "pad" have the case, beyond about 260,000 pixels for a square of 224.
var ErrTooExtreme = errors.New("image too long for its size")

// padding is the colour that "pad" fills with: the mean of CLIP's training images
// (0.48145466, 0.4578275, 0.40821073), which the encoder's normalisation turns into zeros.
var padding = [3]byte{123, 117, 104}

// Resizer has the working memory of one worker; not for concurrent use.
type Resizer struct {
	size   int
	fit    string
	kern   kernels
	window []byte // rows after the horizontal filter
	edge   []byte // two copies of rows too close to the end of the image for kernels that read ahead
}

// New makes a resizer by a valid cfg to squares of size x size pixels, 1 to 4096.
func New(cfg Config, size int) *Resizer {
	return &Resizer{size: size, fit: cfg.Fit, kern: fastest}
}

// Resize writes the size*size*3 bytes of the square to dst: RGB rows from the top. pix are the 3*w*h bytes
// of the image in the same layout; neither is kept. It allocates nothing once it has seen a size, and it
// blocks for as long as it computes (under a millisecond for VGA). The error is ErrTooExtreme, or tells that
// the lengths of the arguments do not fit together; dst is then untouched.
func (r *Resizer) Resize(dst, pix []byte, w, h int) error { return r.ResizeRows(dst, pix, w, h, 3*w) }

// ResizeRows is Resize for an image whose rows begin stride bytes apart, at least 3*w: pix are stride*h bytes, or fewer where
// nothing follows the last row's pixels.
func (r *Resizer) ResizeRows(dst, pix []byte, w, h, stride int) error {
	if err := check(dst, r.size, r.size, pix, w, h, stride); err != nil {
		return err
	}
	return r.draw(dst, pix, w, h, stride, fitted(r.fit, w, h, r.size))
}

// Scale writes the whole image to dst: width x height pixels, 3 bytes each, rows from the top. pix, w, h and stride are as for ResizeRows,
// and so are the filter and the errors. Its working memory is its own.
func Scale(dst []byte, width, height int, pix []byte, w, h, stride int) error {
	if err := check(dst, width, height, pix, w, h, stride); err != nil {
		return err
	}
	r := &Resizer{size: width, kern: fastest}
	return r.draw(dst, pix, w, h, stride, geometry{width: width, height: height, columns: width, rows: height})
}

func check(dst []byte, width, height int, pix []byte, w, h, stride int) error {
	if w < 1 || h < 1 || stride/3 < w || len(pix) < 3*w || h != (len(pix)-3*w)/stride+1 || len(pix)/stride >= h && len(pix) != h*stride {
		return fmt.Errorf("resize: %d bytes are not an image of %d x %d with %d bytes a row", len(pix), w, h, stride)
	}
	if width < 1 || height < 1 || len(dst)/3/width != height || len(dst) != 3*width*height {
		return fmt.Errorf("resize: %d bytes to write to, want %d x %d pixels", len(dst), width, height)
	}
	return nil
}

// draw writes what g says of an image to dst, whose rows have r.size pixels. The arguments are checked.
func (r *Resizer) draw(dst, pix []byte, w, h, stride int, g geometry) error {
	across, err := tables.get(span{w, g.width, g.left, g.columns})
	if err != nil {
		return err
	}
	down, err := tables.get(span{h, g.height, g.top, g.rows})
	if err != nil {
		return err
	}
	if 3*g.columns*g.rows < len(dst) {
		for i := 0; i < len(dst); i += 3 {
			copy(dst[i:], padding[:])
		}
	}
	out := dst[3*(g.y*r.size+g.x):]
	switch whole := g.width == w && g.height == h; { // at scale 1 the filter changes nothing
	case whole && g.columns == r.size && stride == 3*r.size:
		copy(out[:g.rows*stride], pix[g.top*stride:])
	case whole:
		for y := range g.rows {
			copy(out[3*y*r.size:][:3*g.columns], pix[(g.top+y)*stride+3*g.left:])
		}
	default:
		r.filter(out, pix, stride, h, across, down, g)
	}
	return nil
}

func (r *Resizer) filter(dst, pix []byte, stride, h int, across, down *table, g geometry) {
	const ahead = 32                     // rows of the window beyond the taps, so that it seldom has to be moved
	filtered := (3*g.columns + 16) &^ 15 // bytes of a row of the window
	capacity := down.taps + ahead
	window, edge := capacity*filtered+slack, 2*(3*across.need+slack) // bytes
	r.window, r.edge = slices.Grow(r.window[:0], window)[:window], slices.Grow(r.edge[:0], edge)[:edge]

	bottom := h - down.base // rows that the image has from down.base on
	start, have := 0, 0     // rows in the window: from start to have
	for y, first := range down.first {
		first := int(first)
		for need := min(first+down.taps, bottom); have < need; have += 2 {
			if have+2-start > capacity {
				copy(r.window, r.window[(first-start)*filtered:(have-start)*filtered])
				start = first
			}
			rows := r.window[(have-start)*filtered:]
			r.kern.horizontal(rows, rows[filtered:],
				r.row(0, pix, stride, down.base+have, across),
				r.row(1, pix, stride, down.base+min(have+1, bottom-1), across), across)
		}
		r.kern.vertical(dst[3*y*r.size:][:3*g.columns], r.window[(first-start)*filtered:], filtered, down, y)
	}
}

// row returns row y of pix from sample across.base on, with the bytes after it that kernels may read: pix
// itself, or edge memory number i where pix ends before.
func (r *Resizer) row(i int, pix []byte, stride, y int, across *table) []byte {
	n := 3*across.need + slack
	row := pix[y*stride+3*across.base:]
	if len(row) >= n {
		return row[:n]
	}
	edge := r.edge[i*n:][:n]
	copy(edge, row)
	return edge
}

// geometry says which part of the scaled image is wanted, and where it goes. The scaled image itself
// never exists: only its window of columns x rows is computed.
type geometry struct {
	width, height int // of the whole image after scaling
	left, top     int // first column and row of the window
	columns, rows int // size of the window, at most size x size
	x, y          int // where the window goes in the square
}

// fitted returns the geometry that brings w x h into size x size.
func fitted(fit string, w, h, size int) geometry {
	switch fit {
	case FitSquash:
		return geometry{width: size, height: size, columns: size, rows: size}
	case FitPad:
		g := geometry{width: size, height: size}
		if w >= h {
			g.height = max(size*h/w, 1)
		} else {
			g.width = max(size*w/h, 1)
		}
		g.columns, g.rows = g.width, g.height
		g.x, g.y = (size-g.width)/2, (size-g.height)/2
		return g
	}
	// As torchvision's Resize and CenterCrop: the longer side is cut to an integer, the margin is rounded
	// as Python does.
	g := geometry{width: size, height: size, columns: size, rows: size}
	if w <= h {
		g.height = size * h / w
	} else {
		g.width = size * w / h
	}
	g.left = int(math.RoundToEven(float64(g.width-size) / 2))
	g.top = int(math.RoundToEven(float64(g.height-size) / 2))
	return g
}
