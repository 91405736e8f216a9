package decode

import (
	"math/bits"
	"sync"
)

// Image is a decoded image, upright: its EXIF orientation has been applied.
type Image struct {
	Pix           []byte // 3*Width*Height bytes: rows from the top without gaps, RGB, 8 bit; see Stride
	Width, Height int
	Stride        int    // bytes from a row to the next, of raw rgb24, whose Pix is the frame itself; 0: there are no gaps
	Format        string // JPEG, PNG, WebP, GIF, BMP or TIFF, or that of a raw frame
	Orientation   int    // the EXIF orientation that has been applied, 1 to 8; 1 where there was none

	buf *buffer
}

// Release hands the pixels back for the next image; Pix must not be used after it. Safe to call
// again on the same Image, but not on a copy of it.
func (p *Image) Release() {
	p.buf.release()
	p.buf, p.Pix = nil, nil
}

// newImage takes a buffer for w x h pixels; its content is undefined.
func newImage(w, h int) Image {
	b := newBuffer(3 * w * h)
	return Image{Pix: b.bytes, Width: w, Height: h, Orientation: 1, buf: b}
}

// buffer is memory for pixels.
type buffer struct {
	bytes []byte
	class int // which of the pools it goes back to; unpooled: none
}

// maxPooled is the largest buffer that is kept for the next image: 16 million pixels, what a telephone takes.
const (
	maxPooled = 48 << 20
	unpooled  = -1
)

// pools holds free buffers by size class. There are never more than were in use at one time, which the
// number of workers bounds, and the garbage collector frees those that two of its cycles did not see used.
var pools [39]sync.Pool

// newBuffer returns a buffer of n bytes with undefined content.
func newBuffer(n int) *buffer {
	if n > maxPooled {
		return &buffer{bytes: make([]byte, n), class: unpooled}
	}
	class, size := sizeClass(n)
	b, _ := pools[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, size), class: class}
	}
	b.bytes = b.bytes[:n]
	return b
}

// released sees the bytes of every buffer that goes back. Tests overwrite them, so that whatever is used after its
// release, or handed out without being written, shows.
var released = func([]byte) {}

// release hands b to the next image, or to the garbage collector. Nothing may refer to its bytes any more.
func (b *buffer) release() {
	if b == nil {
		return
	}
	released(b.bytes)
	if b.class == unpooled {
		b.bytes = nil
		return
	}
	pools[b.class].Put(b)
}

// sizeClass rounds n up to a size of which there are four for each power of two (at most a quarter is
// wasted, 64 KiB the smallest) and returns its number and the size.
func sizeClass(n int) (class, size int) {
	const smallest = 64 << 10
	n = max(n, smallest)
	shift := bits.Len(uint(n-1)) - 3 // the three leading bits of n-1 and what is to the right of them
	quarters := (n-1)>>shift + 1     // 5 to 8
	return 4*(shift-14) + quarters - 4, quarters << shift
}

// upright applies an EXIF orientation, 1 to 8, to p (EXIF 2.32, table 6): 2 mirrored, 3 turned by 180
// degrees, 4 upside down mirrored, 5 to 8 the same after an exchange of rows and columns.
func upright(p *Image, orientation int) {
	switch orientation {
	case 2:
		mirrorRows(p.Pix, 3*p.Width)
	case 3:
		reversePixels(p.Pix)
	case 4:
		reverseRows(p.Pix, 3*p.Width)
	case 5, 6, 7, 8:
		transpose(p, orientation == 6 || orientation == 7, orientation == 7 || orientation == 8)
	default:
		return
	}
	p.Orientation = orientation
}

// reversePixels reverses the order of the RGB pixels in pix.
func reversePixels(pix []byte) {
	for i, j := 0, len(pix)-3; i < j; i, j = i+3, j-3 {
		a, b := pix[i:i+3:i+3], pix[j:j+3:j+3]
		a[0], a[1], a[2], b[0], b[1], b[2] = b[0], b[1], b[2], a[0], a[1], a[2]
	}
}

func mirrorRows(pix []byte, stride int) {
	for ; len(pix) > 0; pix = pix[stride:] {
		reversePixels(pix[:stride])
	}
}

// reverseRows puts the last row first.
func reverseRows(pix []byte, stride int) {
	for i, j := 0, len(pix)-stride; i < j; i, j = i+stride, j-stride {
		a, b := pix[i:i+stride], pix[j:j+stride]
		for k := range a {
			a[k], b[k] = b[k], a[k]
		}
	}
}

// transpose exchanges rows and columns, from right to left and from the last row up where asked for, in
// tiles that fit the first-level cache.
func transpose(p *Image, mirror, flip bool) {
	const tile = 32
	w, h := p.Width, p.Height
	out := newImage(h, w)
	for y0 := 0; y0 < h; y0 += tile {
		for x0 := 0; x0 < w; x0 += tile {
			for x := x0; x < min(x0+tile, w); x++ {
				from, to, step := 3*(y0*w+x), 3*(x*h+y0), 3
				if flip {
					to += 3 * (w - 1 - 2*x) * h
				}
				if mirror {
					to, step = to+3*(h-1-2*y0), -3
				}
				for range min(tile, h-y0) {
					*(*[3]byte)(out.Pix[to:]) = *(*[3]byte)(p.Pix[from:])
					from, to = from+3*w, to+step
				}
			}
		}
	}
	p.buf.release()
	p.Pix, p.Width, p.Height, p.buf = out.Pix, h, w, out.buf
}
