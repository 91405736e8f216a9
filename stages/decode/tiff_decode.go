package decode

import (
	"errors"
	"io"
	"strings"

	"golang.org/x/image/ccitt"
)

// decode is the decoder of a Plan.
func (f *tiffFile) decode(t *task) (Image, error) {
	p := newImage(f.width, f.height)
	src := &tiffSource{task: t, reversed: f.reversed}
	start := f.codec(src)
	piece := f.newPiece()
	layer := f.blocks.w * f.blocks.h
	for i := range layer * min(f.planes, 3) { // alpha is not needed
		data, err := f.stored(i)
		if err != nil {
			return p, err
		}
		src.open(data)
		x, y := i%f.blocks.w*f.block.w, i/f.blocks.w%f.blocks.h*f.block.h
		r, err := start(min(f.block.h, f.height-y))
		if err == nil {
			err = f.decodeBlock(t, r, p.Pix, i/layer, x, y, piece)
		}
		if err != nil {
			return p, f.fault(err)
		}
	}
	return p, nil
}

// fault says what is wrong with the pixels.
func (f *tiffFile) fault(err error) error {
	switch ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); {
	case errors.Is(err, ErrUnsupportedFormat), errors.Is(err, ErrCorrupt):
		return err
	case ended, strings.HasSuffix(err.Error(), "incomplete code"):
		return truncated("TIFF: a strip or tile ends before its pixels")
	case f.fax(): // bad lines and unannounced fill bits, which libtiff passes over
		return unsupportedTIFF("fax with surplus bits or transmission errors: %v", err)
	}
	return corrupt("TIFF: %w", err)
}

// codec returns the function that begins to read so many rows of the strip or tile that src has been opened for.
func (f *tiffFile) codec(src *tiffSource) (start func(rows int) (io.Reader, error)) {
	switch f.compression {
	case tiffLZW:
		r := newLZWReader(src)
		return func(int) (io.Reader, error) { return r, r.start() }
	case tiffAdobeDeflate, tiffDeflate:
		r := &inflater{src: src}
		return func(int) (io.Reader, error) { return r.start() }
	case tiffPackBits:
		return func(int) (io.Reader, error) { return &packBits{src: src}, nil }
	case tiffGroup3, tiffGroup4:
		group := ccitt.Group3
		if f.compression == tiffGroup4 {
			group = ccitt.Group4
		}
		return func(rows int) (io.Reader, error) {
			return ccitt.NewReader(src, ccitt.MSB, group, f.block.w, rows, &ccitt.Options{Invert: true}), nil
		}
	}
	return func(int) (io.Reader, error) { return src, nil }
}

// tiffPiece is a buffer for a part of a row.
type tiffPiece struct {
	width int    // in pixels; a multiple of 8
	lead  int    // bytes of one pixel, where there is a predictor
	buf   []byte // the pixel before, and width pixels
}

func (f *tiffFile) newPiece() *tiffPiece {
	const width = 4 << 10
	lead := f.bits * f.samples / 8
	return &tiffPiece{width: width, lead: lead, buf: make([]byte, lead+width*f.bits*f.samples/8)}
}

// decodeBlock reads a strip or tile, of plane, whose first pixel is at x0, y0, as far down as the image reaches.
func (f *tiffFile) decodeBlock(t *task, r io.Reader, pix []byte, plane, x0, y0 int, c *tiffPiece) error {
	columns := min(f.block.w, f.width-x0)
	for y := y0; y < min(f.height, y0+f.block.h); y++ {
		clear(c.buf[:c.lead])
		for x := 0; x < f.block.w; x += c.width {
			n := min(c.width, f.block.w-x)
			data := c.buf[c.lead:][:(n*f.bits*f.samples+7)/8]
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
			if f.predicted {
				f.sum(c.buf[:c.lead+len(data)], c.lead)
				copy(c.buf[:c.lead], data[len(data)-c.lead:])
			}
			if n = max(0, min(n, columns-x)); n > 0 {
				f.pack(pix[3*(y*f.width+x0+x):][:3*n], data, plane)
			}
			if err := t.spend(f.touched()*len(data) + n*(f.pixelBytes()+3/min(f.planes, 3))); err != nil {
				return err
			}
		}
	}
	return nil
}
