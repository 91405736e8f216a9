package decode

import "encoding/binary"

// Kinds of compression in the header of a BMP.
const (
	bmpRaw       = 0
	bmpRuns8     = 1
	bmpRuns4     = 2
	bmpBitFields = 3
)

// bmpFile is what the head of a BMP says.
type bmpFile struct {
	b                   []byte
	width, height, bits int
	topDown             bool // the first row comes first
	compression         uint32
	offset              int // of the pixels
	colors              *colorTable
	unpack              func(out, in []byte) // a row, unless compressed
}

func (d *Decoder) planBMP(b []byte) (Plan, error) {
	f, err := readBMP(b)
	if err != nil {
		return Plan{}, err
	}
	if err := d.checkSize(f.width, f.height); err != nil {
		return Plan{}, err
	}
	const table = 1 << 10 // of colours
	if f.unpack == nil {
		return newPlan(f.width, f.height, table, len(b)+f.width*f.height+256, 1, f.decodeRuns), nil // the last run may be too long
	}
	// The padding of the last row may be missing.
	if end := f.offset + (f.height-1)*f.stride() + f.rowBytes(); end > len(b) {
		return Plan{}, truncated("BMP: %d bytes, %d x %d pixels end at %d", len(b), f.width, f.height, end)
	}
	return newPlan(f.width, f.height, table, len(b), 1, f.decodeRows), nil
}

func (f *bmpFile) rowBytes() int { return (f.width*f.bits + 7) / 8 }
func (f *bmpFile) stride() int   { return (f.width*f.bits + 31) / 32 * 4 }

// readBMP reads the headers and the palette of b: the OS/2 header of 12 bytes, and the Windows header of 40 with all
// that extend it, one of OS/2 among them.
func readBMP(b []byte) (*bmpFile, error) {
	const fileHeader, core, info, v2, v3, os2, v4, v5 = 14, 12, 40, 52, 56, 64, 108, 124
	if len(b) < fileHeader+4 {
		return nil, truncated("BMP: ends within the header")
	}
	size := binary.LittleEndian.Uint32(b[fileHeader:])
	switch size {
	case core, info, v2, v3, os2, v4, v5:
	default:
		return nil, unsupported("BMP with a header of %d bytes", size)
	}
	after := fileHeader + int(size)
	if len(b) < after {
		return nil, truncated("BMP: ends within the header")
	}
	f := &bmpFile{b: b, offset: int(binary.LittleEndian.Uint32(b[10:]))}
	short := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	long := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	entry, colors := 4, 0 // bytes of a colour, number of them
	if size == core {
		f.width, f.height, f.bits = short(18), short(20), short(24)
		entry = 3
	} else {
		f.width, f.height, f.bits = int(int32(long(18))), int(int32(long(22))), short(28)
		f.compression, colors = long(30), int(long(46))
		if f.height < 0 {
			f.height, f.topDown = -f.height, true
		}
	}
	switch {
	case f.compression == bmpRaw,
		f.compression == bmpRuns8 && f.bits == 8,
		f.compression == bmpRuns4 && f.bits == 4:
	case f.compression == bmpBitFields && f.bits >= 16:
		if size == info {
			after += 12
		}
		if len(b) < fileHeader+info+12 {
			return nil, truncated("BMP: ends within the masks")
		}
	case f.compression == 4:
		return nil, unsupported("BMP that holds a JPEG, or run lengths of 24 bits")
	case f.compression == 5:
		return nil, unsupported("BMP that holds a PNG")
	default:
		return nil, unsupported("BMP of %d bits with compression %d", f.bits, f.compression)
	}
	if f.bits <= 8 {
		after = f.setColors(after, entry, colors)
	}
	if f.offset == 0 {
		f.offset = after
	}
	switch {
	case f.compression == bmpRuns8 || f.compression == bmpRuns4:
		return f, nil
	case f.compression == bmpBitFields:
		masks := [3]uint32{long(54), long(58), long(62)} // behind the shortest header, within the others
		if f.bits != 32 || masks != [3]uint32{} {
			return f, f.setUnpack(masks)
		}
	case f.bits == 16:
		return f, f.setUnpack(bmp555)
	}
	return f, f.setUnpack(bmp888)
}

// Masks of red, green and blue in a pixel.
var (
	bmp888 = [3]uint32{0xFF0000, 0xFF00, 0xFF}
	bmp565 = [3]uint32{0xF800, 0x7E0, 0x1F}
	bmp555 = [3]uint32{0x7C00, 0x3E0, 0x1F}
)

// setColors takes the palette at that place, of n colours (0: as many as there are indices): blue, green, red and,
// where an entry has 4 bytes, nothing. It returns where the palette ends. Pixels that are said to start where the
// palette does start behind it.
func (f *bmpFile) setColors(at, entry, n int) (end int) {
	if n == 0 {
		n = 1 << f.bits
	}
	if f.offset == at {
		f.offset += 4 * n
	}
	end = at + entry*n
	f.colors = grayTable(8)
	palette := f.b[at:min(end, len(f.b))]
	for i := 0; i < len(f.colors) && len(palette) >= entry; i++ {
		f.colors[i] = [3]byte{palette[2], palette[1], palette[0]}
		palette = palette[entry:]
	}
	return end
}

// setUnpack finds how a row is unpacked, by the bits of a pixel and the masks of red, green and blue in it.
// It refuses what is not read.
func (f *bmpFile) setUnpack(masks [3]uint32) error {
	switch f.bits {
	case 1, 2, 4, 8:
		f.unpack = func(out, in []byte) { f.colors.unpack(out, 3, len(out)/3, in, f.bits) }
		return nil
	case 16:
		green := 6 // bits
		if masks == bmp555 {
			green = 5
		} else if masks != bmp565 {
			break
		}
		f.unpack = func(out, in []byte) { unpack16(out, in, green) }
		return nil
	case 24, 32:
		var at [3]int // of red, green and blue in the bytes of a pixel
		for i, mask := range masks {
			for at[i] = 0; at[i] < f.bits/8 && mask != 0xFF<<(8*at[i]); {
				at[i]++
			}
		}
		if max(at[0], at[1], at[2]) == f.bits/8 || at[0] == at[1] || at[1] == at[2] || at[0] == at[2] {
			break
		}
		f.unpack = func(out, in []byte) { unpackBytes(out, in, f.bits/8, at) }
		return nil
	default:
		return unsupported("BMP of %d bits", f.bits)
	}
	return unsupported("BMP of %d bits with the masks %x, %x, %x", f.bits, masks[0], masks[1], masks[2])
}

// decodeRows unpacks rows that are not compressed, in pieces that end with a byte.
func (f *bmpFile) decodeRows(t *task) (Image, error) {
	const piece = 32 << 10 // pixels
	p := newImage(f.width, f.height)
	next := f.rows(p)
	for at := f.offset; ; at += f.stride() {
		row := next()
		if row == nil {
			return p, nil
		}
		for in := f.b[at:][:f.rowBytes()]; len(row) > 0; {
			n, size := min(3*piece, len(row)), min(piece*f.bits/8, len(in))
			if err := t.spend(size + n); err != nil {
				return p, err
			}
			f.unpack(row[:n], in[:size])
			row, in = row[n:], in[size:]
		}
	}
}

// rows returns the rows of p in the order of the file, nil after the last one.
func (f *bmpFile) rows(p Image) func() []byte {
	i := -1
	return func() []byte {
		if i++; i >= f.height {
			return nil
		}
		y := f.height - 1 - i
		if f.topDown {
			y = i
		}
		return p.Pix[3*f.width*y:][:3*f.width]
	}
}

// unpack16 unpacks 5 bits of red, green (5 or 6) and 5 of blue, scaled to 8 bits as PIL does: rounded down.
func unpack16(out, in []byte, green int) {
	greens := 1<<green - 1
	for ; len(out) > 0; in, out = in[2:], out[3:] {
		v := int(binary.LittleEndian.Uint16(in))
		out[0] = byte(v >> (5 + green) & 31 * 255 / 31)
		out[1] = byte(v >> 5 & greens * 255 / greens)
		out[2] = byte(v & 31 * 255 / 31)
	}
}

// decodeRuns decodes run lengths of 8 or 4 bits. It refuses what PIL shows wrongly or not at all: pixels that are left
// out (by a delta, an empty row, or an end before the last row), and runs of an odd number of single pixels of 4 bits.
// Like PIL it drops what a run has beyond its row, but lets single pixels go on in the next one.
func (f *bmpFile) decodeRuns(t *task) (Image, error) {
	const (
		endOfRow   = 0
		endOfImage = 1
		delta      = 2
	)
	p := newImage(f.width, f.height)
	out := &indexWriter{task: t, colors: f.colors, next: f.rows(p)}
	var run [256]byte
	write := func(n, read int) (bool, error) { // n indices of run, made of so many bytes
		if err := t.spend(n + read); err != nil {
			return false, err
		}
		return out.write(run[:n])
	}
	more, err := write(0, 0)
	x := 0 // as PIL counts: it only starts again at the end of a row
	for at := f.offset; more && err == nil; {
		in := f.b[min(at, len(f.b)):]
		if len(in) < 2 {
			return p, truncated("BMP: ends within its run lengths")
		}
		at += 2
		switch count, value := int(in[0]), in[1]; {
		case count > 0:
			count = min(count, max(f.width-x, 0))
			for i := range count {
				run[i] = f.index(value, i)
			}
			x += count
			more, err = write(count, 2)
		case value == endOfRow:
			if x == 0 {
				return p, unsupported("BMP with run lengths and an empty row")
			}
			x = 0
			clear(run[:])
			for read := 2; more && err == nil && len(out.row) != 3*f.width; read = 0 {
				more, err = write(min(len(out.row)/3, len(run)), read)
			}
		case value == endOfImage:
			return p, unsupported("BMP with run lengths that end before its last row")
		case value == delta:
			return p, unsupported("BMP with run lengths that leave pixels out")
		default: // single pixels, padded to an even place in the file
			size := int(value) * f.bits / 8
			if 8*size != int(value)*f.bits {
				return p, unsupported("BMP with an odd number of single pixels of 4 bits")
			}
			in = in[2:min(2+size, len(in))]
			count = len(in) * 8 / f.bits
			for i := range count {
				run[i] = f.index(in[i*f.bits/8], i)
			}
			x += int(value)
			at += len(in)
			at += at & 1
			more, err = write(count, 2+len(in))
		}
	}
	return p, err
}

// index returns the index of pixel i in a byte of a run.
func (f *bmpFile) index(b byte, i int) byte {
	switch {
	case f.bits == 8:
		return b
	case i&1 == 0:
		return b >> 4
	}
	return b & 15
}
