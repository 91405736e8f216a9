package decode

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
