package decode

import (
	"bufio"

	"github.com/klauspost/compress/zlib"

	"fmt"
	"io"
)

// pngPass is one pass over the pixels: those at x, y and every dx-th and dy-th from there, w in a row, h rows.
type pngPass struct{ x, y, dx, dy, w, h int }

// passes are those of Adam7, some of which may be empty, or a single one.
func (f *pngFile) passes() []pngPass {
	if !f.interlaced {
		return []pngPass{{0, 0, 1, 1, f.width, f.height}}
	}
	passes := []pngPass{{dx: 8, dy: 8}, {x: 4, dx: 8, dy: 8}, {y: 4, dx: 4, dy: 8}, {x: 2, dx: 4, dy: 4}, {y: 2, dx: 2, dy: 4},
		{x: 1, dx: 2, dy: 2}, {y: 1, dx: 1, dy: 2}}
	for i := range passes {
		p := &passes[i]
		p.w, p.h = (f.width-p.x+p.dx-1)/p.dx, (f.height-p.y+p.dy-1)/p.dy
	}
	return passes
}

func (f *pngFile) pixelBits() int {
	return int(f.depth) * map[byte]int{pngGray: 1, pngRGB: 3, pngPalette: 1, pngGrayAlpha: 2, pngRGBA: 4}[f.color]
}

// rowBytes returns how long a row of w pixels is, without its filter.
func (f *pngFile) rowBytes(w int) int { return (w*f.pixelBits() + 7) / 8 }

// decode inflates row by row, straight into the image.
func (f *pngFile) decode(t *task) (p Image, err error) {
	const buffer = 16 << 10
	r, err := zlib.NewReader(bufio.NewReaderSize(&idatReader{task: t, rest: f.pixels}, buffer))
	if err != nil {
		return p, classify(PNG, err)
	}
	p = newImage(f.width, f.height)
	size := max(1, f.pixelBits()/8)
	rows := pngRows{r: r, buf: make([]byte, f.rowsMemory()), stride: size + f.rowBytes(f.width),
		bits: f.pixelBits(), size: size, expand: f.expander()}
	for _, pass := range f.passes() {
		if pass.w <= 0 || pass.h <= 0 {
			continue
		}
		for y := range pass.h {
			out := p.Pix[3*((pass.y+y*pass.dy)*f.width+pass.x):]
			if err := rows.next(t, out, 3*pass.dx, pass.w, y); err != nil {
				return p, classify(PNG, fmt.Errorf("row %d of %d: %w", y, pass.h, err))
			}
		}
	}
	if err := checkSum(r); err != nil {
		return p, classify(PNG, err)
	}
	return p, nil
}

// pngRows are the last two rows as they were inflated. Before the first pixel of each there is one of zeros.
type pngRows struct {
	r      io.Reader
	buf    []byte // for both, or for the only one
	above  []byte
	stride int
	bits   int // a pixel has
	size   int // of a pixel in bytes, at least one
	expand func(out []byte, step int, row []byte, n int)
}

func (f *pngFile) rowsMemory() int {
	return min(f.height, 2) * (max(1, f.pixelBits()/8) + f.rowBytes(f.width))
}

// next reads row y of a pass, w pixels, and writes them: the first at out[0], the next at out[step].
func (s *pngRows) next(t *task, out []byte, step, w, y int) error {
	row := s.buf[y%2*s.stride:][:s.size+(w*s.bits+7)/8]
	if _, err := io.ReadFull(s.r, row[s.size-1:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	filter := row[s.size-1]
	row[s.size-1] = 0
	above := s.above
	if y == 0 {
		above = nil
	}
	const piece = 8 << 10 // pixels, whole bytes of them
	for x := 0; x < w; x += piece {
		n := min(piece, w-x)
		from, to := x*s.bits/8, s.size+((x+n)*s.bits+7)/8
		var up []byte
		if above != nil {
			up = above[from:to]
		}
		if err := unfilter(filter, row[from:to], up, s.size); err != nil {
			return err
		}
		s.expand(out[step*x:], step, row[s.size+from:to], n)
		if err := t.spend(3*(to-from-s.size) + 3*n); err != nil {
			return err
		}
	}
	s.above = row
	return nil
}

// unfilter undoes the filter of a piece of a row, which has the pixel to the left of it in front, as has the piece above;
// size is that of a pixel in bytes. Above the first row (nil) all is 0.
func unfilter(filter byte, row, above []byte, size int) error {
	switch {
	case above != nil:
		above = above[:len(row)]
	case filter == 3:
		for i := size; i < len(row); i++ {
			row[i] += row[i-size] / 2
		}
		return nil
	case filter == 2 || filter == 4:
		filter /= 4 // nothing, or the pixel to the left
	}
	switch filter {
	case 0:
	case 1: // the pixel to the left
		for i := size; i < len(row); i++ {
			row[i] += row[i-size]
		}
	case 2: // the pixel above
		for i := size; i < len(row); i++ {
			row[i] += above[i]
		}
	case 3: // the average of both
		for i := size; i < len(row); i++ {
			row[i] += byte((int(row[i-size]) + int(above[i])) / 2)
		}
	case 4:
		paeth(row, above, size)
	default:
		return fmt.Errorf("there is no filter %d", filter)
	}
	return nil
}

// paeth adds to each byte the one that is nearest to left + above - above left: of the pixel to the left, above or above left.
func paeth(row, above []byte, size int) {
	for first := range size {
		left, corner := int(row[first]), int(above[first])
		for i := first + size; i < len(row); i += size {
			up := int(above[i])
			toUp, toLeft := left-corner, up-corner // how far the estimate is from above, from left
			toCorner := abs(toUp + toLeft)
			toUp, toLeft = abs(toUp), abs(toLeft)
			switch {
			case toLeft <= toUp && toLeft <= toCorner:
			case toUp <= toCorner:
				left = up
			default:
				left = corner
			}
			left = int(byte(left) + row[i])
			row[i], corner = byte(left), up
		}
	}
}

func abs(i int) int {
	sign := i >> 63
	return (i ^ sign) - sign
}

// expander returns the function that writes the n pixels of a row as RGB, the first at out[0], the next at out[step].
// Alpha is dropped, of 16 bits the upper eight are taken.
func (f *pngFile) expander() func(out []byte, step int, row []byte, n int) {
	size, pixel := int(f.depth)/8, f.pixelBits()/8 // of a sample and of a pixel in bytes; 0: several to the byte
	switch {
	case f.color == pngPalette || size == 0:
		colors, depth := f.colors(), int(f.depth)
		return func(out []byte, step int, row []byte, n int) { colors.unpack(out, step, n, row, depth) }
	case f.color == pngGray || f.color == pngGrayAlpha:
		return func(out []byte, step int, row []byte, n int) {
			for i, o := 0, 0; n > 0; i, o, n = i+pixel, o+step, n-1 {
				v, rgb := row[i], out[o:o+3:o+3]
				rgb[0], rgb[1], rgb[2] = v, v, v
			}
		}
	}
	return func(out []byte, step int, row []byte, n int) {
		if pixel == 3 && step == 3 {
			copy(out, row[:3*n])
			return
		}
		for i, o := 0, 0; n > 0; i, o, n = i+pixel, o+step, n-1 {
			in, rgb := row[i:i+2*size+1], out[o:o+3:o+3]
			rgb[0], rgb[1], rgb[2] = in[0], in[size], in[2*size]
		}
	}
}

// colors returns the RGB of each value of a pixel of up to 8 bits. What a palette lacks is a gray ramp, as in PIL.
func (f *pngFile) colors() *colorTable {
	if f.color == pngGray {
		return grayTable(int(f.depth))
	}
	colors := grayTable(8)
	if f.color == pngPalette {
		for i := range len(f.palette) / 3 {
			colors[i] = [3]byte(f.palette[3*i:])
		}
	}
	return colors
}
