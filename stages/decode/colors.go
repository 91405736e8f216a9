package decode

// colorTable has the colours of all palette indices.
type colorTable [256][3]byte

// grayTable has the grays of all samples of so many bits, 1 to 8. That of 8 bits is the table of an image without a
// palette, and PIL starts every palette with it, so an index beyond the palette of a file is a gray as well.
func grayTable(bits int) *colorTable {
	var c colorTable
	step := 255 / (1<<bits - 1)
	for i := range 1 << bits {
		v := byte(i * step)
		c[i] = [3]byte{v, v, v}
	}
	return &c
}

// unpack writes n pixels to out, step bytes apart. Their indices of 1, 2, 4 or 8 bits are packed in in, the highest bits first.
func (c *colorTable) unpack(out []byte, step, n int, in []byte, bits int) {
	o, perByte := 0, 8/bits
	if perByte == 1 {
		for _, b := range in[:n] {
			*(*[3]byte)(out[o:]) = c[b]
			o += step
		}
		return
	}
	for _, b := range in {
		for range min(perByte, n) {
			*(*[3]byte)(out[o:]) = c[b>>(8-bits)]
			b, o, n = b<<bits, o+step, n-1
		}
	}
}

// unpackBytes writes pixels of size bytes to out. at has the places of red, green and blue in the bytes of a pixel.
func unpackBytes(out, in []byte, size int, at [3]int) {
	for ; len(out) > 0; in, out = in[size:], out[3:] {
		out[0], out[1], out[2] = in[at[0]], in[at[1]], in[at[2]]
	}
}

// indexWriter writes a stream of palette indices into the rows of an image.
type indexWriter struct {
	task    *task
	colors  *colorTable
	next    func() []byte // the pixels of the next row, nil after the last one
	row     []byte        // what is to be written of the current one
	written int           // bytes that are not spent yet: less than a row or a piece of one
}

// write writes indices, and drops those behind the last row. It tells whether more are to come.
func (w *indexWriter) write(indices []byte) (more bool, err error) {
	const piece = 32 << 10
	for {
		n := min(len(indices), len(w.row)/3)
		row := w.row[:3*n]
		for _, index := range indices[:n] {
			*(*[3]byte)(row) = w.colors[index]
			row = row[3:]
		}
		indices, w.row, w.written = indices[n:], w.row[3*n:], w.written+3*n
		full := len(w.row) == 0
		if full || w.written >= piece {
			if err := w.task.spend(w.written); err != nil {
				return false, err
			}
			w.written = 0
		}
		if !full {
			return true, nil
		}
		if w.row = w.next(); w.row == nil {
			return false, nil
		}
	}
}

// unpackInks writes pixels of size bytes to out, which begin with CMYK. flip is 255 where 255 is no ink, else 0.
func unpackInks(out, in []byte, size int, flip byte) {
	for ; len(out) > 0; in, out = in[size:], out[3:] {
		out[0], out[1], out[2] = fromInks(in[0]^flip, in[1]^flip, in[2]^flip, in[3]^flip)
	}
}

// fromInks converts CMYK, 255 being full ink, as PIL does: what black leaves, less the share of each ink.
func fromInks(c, m, y, k byte) (r, g, b byte) {
	left := 255 - int(k)
	return byte(left - share(c, left)), byte(left - share(m, left)), byte(left - share(y, left))
}

// share returns a*b/255, rounded.
func share(a byte, b int) int {
	t := int(a)*b + 128
	return (t>>8 + t) >> 8
}
