package decode

import (
	"compress/zlib"
	"errors"
	"io"
	"strings"

	"golang.org/x/image/ccitt"
)

// packBits expands Apple's run lengths (TIFF 6.0, section 9).
type packBits struct {
	src             *source
	literal, repeat int // bytes to copy, and to repeat
	value           byte
}

func (r *packBits) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case r.literal > 0:
			k, err := r.src.Read(p[n:min(len(p), n+r.literal)])
			if err != nil {
				return n, err
			}
			n, r.literal = n+k, r.literal-k
		case r.repeat > 0:
			run := p[n:min(len(p), n+r.repeat)]
			for i := range run {
				run[i] = r.value
			}
			n, r.repeat = n+len(run), r.repeat-len(run)
		default:
			c, err := r.src.ReadByte()
			if err != nil {
				return n, err
			}
			switch head := int(int8(c)); {
			case head >= 0:
				r.literal = head + 1
			case head > -128: // -128 does nothing
				r.repeat = 1 - head
				if r.value, err = r.src.ReadByte(); err != nil {
					return n, err
				}
			}
		}
	}
	return n, nil
}

// lzwReader expands LZW (TIFF 6.0, section 13): the highest bit of a code comes first.
type lzwReader struct {
	lzw
	src     *source
	bits    uint32 // the lowest have bits are those read and not used yet
	have    int
	pending []byte
}

// start begins with what src holds.
func (r *lzwReader) start() error {
	one := byte(1)
	if r.src.reversed {
		one = 0x80
	}
	if b := r.src.b; len(b) > 1 && b[0] == 0 && b[1]&one != 0 { // a clear code, the lowest bit first
		return unsupportedTIFF("old-style LZW")
	}
	r.have, r.pending = 0, nil
	r.reset()
	return nil
}

func (r *lzwReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.pending) == 0 {
			if err := r.code(); err != nil {
				return n, err
			}
		}
		k := copy(p[n:], r.pending)
		n, r.pending = n+k, r.pending[k:]
	}
	return n, nil
}

// code reads a code and leaves what it stands for in pending.
func (r *lzwReader) code() error {
	for r.have < r.width {
		c, err := r.src.ReadByte()
		if err != nil {
			return err
		}
		r.bits, r.have = r.bits<<8|uint32(c), r.have+8
	}
	r.have -= r.width
	switch code := int(r.bits >> r.have & (1<<r.width - 1)); {
	case code == r.clear:
		r.reset()
	case code == r.clear+1:
		return io.EOF
	case !r.defined(code):
		return errors.New("LZW code that is not defined")
	default:
		r.pending = r.expand(code)
	}
	return nil
}

// decode is the decoder of a Plan.
func (f *tiffFile) decode(t *task) (Image, error) {
	p := newImage(f.width, f.height)
	src := &source{task: t, reversed: f.reversed}
	start := f.codec(src)
	buf := make([]byte, f.lead()+tiffPiece*f.bits*f.samples/8)
	layer := f.blocks.X * f.blocks.Y
	for i := range layer * min(f.planes, 3) { // alpha is not needed
		data, err := f.stored(i)
		if err != nil {
			return p, err
		}
		src.open(data)
		x, y := i%f.blocks.X*f.block.X, i/f.blocks.X%f.blocks.Y*f.block.Y
		r, err := start(min(f.block.Y, f.height-y))
		if err == nil {
			err = f.decodeBlock(t, r, p.Pix, i/layer, x, y, buf)
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
func (f *tiffFile) codec(src *source) (start func(rows int) (io.Reader, error)) {
	switch f.compression {
	case tiffLZW:
		r := &lzwReader{lzw: lzw{clear: 256, early: 1}, src: src}
		return func(int) (io.Reader, error) { return r, r.start() }
	case tiffAdobeDeflate, tiffDeflate:
		var z io.ReadCloser
		return func(int) (r io.Reader, err error) {
			if z == nil {
				z, err = zlib.NewReader(src)
			} else {
				err = z.(zlib.Resetter).Reset(src, nil)
			}
			return z, err
		}
	case tiffPackBits:
		return func(int) (io.Reader, error) { return &packBits{src: src}, nil }
	case tiffGroup3, tiffGroup4:
		group := map[int]ccitt.SubFormat{tiffGroup3: ccitt.Group3, tiffGroup4: ccitt.Group4}[f.compression]
		return func(rows int) (io.Reader, error) {
			return ccitt.NewReader(src, ccitt.MSB, group, f.block.X, rows, &ccitt.Options{Invert: true}), nil
		}
	}
	return func(int) (io.Reader, error) { return src, nil }
}

// tiffPiece is how many pixels of a row are unpacked at a time; a multiple of 8.
const tiffPiece = 4 << 10

// lead is the size of a pixel in bytes. The predictor needs the pixel before a piece: the buffer begins with it.
func (f *tiffFile) lead() int { return f.bits * f.samples / 8 }

// decodeBlock reads a strip or tile, of plane, whose first pixel is at x0, y0, as far down as the image reaches.
func (f *tiffFile) decodeBlock(t *task, r io.Reader, pix []byte, plane, x0, y0 int, buf []byte) error {
	lead := f.lead()
	columns := min(f.block.X, f.width-x0)
	for y := y0; y < min(f.height, y0+f.block.Y); y++ {
		clear(buf[:lead])
		for x := 0; x < f.block.X; x += tiffPiece {
			n := min(tiffPiece, f.block.X-x)
			data := buf[lead:][:(n*f.bits*f.samples+7)/8]
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
			if f.predicted {
				f.sum(buf[:lead+len(data)], lead)
				copy(buf[:lead], data[len(data)-lead:])
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
