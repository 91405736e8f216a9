package decode

import "encoding/binary"

// gifFrame is the first frame of a GIF (GIF89a) with what matters for it.
type gifFrame struct {
	width, height int // of the canvas
	x, y, w, h    int // of the frame on it
	interlaced    bool
	colors        *colorTable
	background    byte // index of what the frame does not cover: the transparent one, else 0, as PIL has it
	codeBits      int  // the minimum code size
	data          []byte
}

func (d *Decoder) planGIF(b []byte) (Plan, error) {
	f, err := readGIF(b)
	if err != nil {
		return Plan{}, err
	}
	if err := d.checkSize(f.width, f.height); err != nil {
		return Plan{}, err
	}
	if f.w == 0 || f.h == 0 {
		return Plan{}, corrupt("GIF: its first frame has %d x %d pixels", f.w, f.h)
	}
	if f.codeBits > 12 {
		return Plan{}, corrupt("GIF: codes of %d bits", f.codeBits)
	}
	const tables = 20 << 10
	work := len(f.data)
	if !f.fills() {
		work += 3 * f.w * f.h
	}
	const codeTime = 6
	return newPlan(f.width, f.height, tables, work, 1, f.decode).coded(len(f.data), codeTime), nil
}

// fills tells that the frame covers the canvas.
func (f *gifFrame) fills() bool { return f.w == f.width && f.h == f.height }

// readGIF reads b up to the pixels of its first frame. Like PIL it enlarges the canvas where the frame goes beyond
// it, skips what it does not know, and keeps the transparent index of an earlier control block when a later one
// has none.
func readGIF(b []byte) (*gifFrame, error) {
	const screen, descriptor = 13, 9
	if len(b) < screen {
		return nil, truncated("GIF: ends within the header")
	}
	f := &gifFrame{colors: grayTable(8)}
	f.width, f.height = int(binary.LittleEndian.Uint16(b[6:])), int(binary.LittleEndian.Uint16(b[8:]))
	r := gifReader{b[screen:]}
	f.setColors(r.palette(b[10]))
	for {
		switch intro := r.take(1); {
		case intro == nil:
			return nil, truncated("GIF: ends before its first frame")
		case intro[0] == ';':
			return nil, corrupt("GIF: has no frame")
		case intro[0] == '!':
			if control := r.extension(); len(control) >= 4 && control[0]&1 != 0 {
				f.background = control[3]
			}
		case intro[0] == ',':
			at := r.take(descriptor)
			if at == nil {
				return nil, truncated("GIF: ends within the head of its first frame")
			}
			f.x, f.y = int(binary.LittleEndian.Uint16(at)), int(binary.LittleEndian.Uint16(at[2:]))
			f.w, f.h = int(binary.LittleEndian.Uint16(at[4:])), int(binary.LittleEndian.Uint16(at[6:]))
			f.width, f.height = max(f.width, f.x+f.w), max(f.height, f.y+f.h)
			f.interlaced = at[8]&0x40 != 0
			f.setColors(r.palette(at[8]))
			bits := r.take(1)
			if bits == nil {
				return nil, truncated("GIF: ends before its pixels")
			}
			f.codeBits, f.data = int(bits[0]), r.rest
			return f, nil
		}
	}
}

// setColors replaces the first colours. A palette that only says that each index is its gray does not count for
// PIL: the global one stays in force under such a local one.
func (f *gifFrame) setColors(palette []byte) {
	ramp := true
	for i, v := range palette {
		ramp = ramp && int(v) == i/3
	}
	if ramp {
		return
	}
	f.colors = grayTable(8)
	for i := range len(palette) / 3 {
		f.colors[i] = [3]byte(palette[3*i:])
	}
}

func (f *gifFrame) decode(t *task) (Image, error) {
	p := newImage(f.width, f.height)
	if !f.fills() {
		if err := t.paint(p, f.colors[f.background]); err != nil {
			return p, err
		}
	}
	type pass struct{ first, step int } // rows
	passes := []pass{{0, 1}}
	if f.interlaced {
		passes = []pass{{0, 8}, {4, 8}, {2, 4}, {1, 2}}
	}
	y := passes[0].first - passes[0].step
	next := func() []byte {
		for y += passes[0].step; y >= f.h; y = passes[0].first {
			if passes = passes[1:]; len(passes) == 0 {
				return nil
			}
		}
		return p.Pix[3*((f.y+y)*p.Width+f.x):][:3*f.w]
	}
	return p, gifPixels(f.data, f.codeBits, &indexWriter{task: t, colors: f.colors, next: next})
}

func (t *task) paint(p Image, color [3]byte) error {
	first := p.Pix[:3*p.Width]
	for i := 0; i < len(first); i += 3 {
		copy(first[i:], color[:])
	}
	return t.rows(p, len(first), func(row []byte, _ int) { copy(row, first) })
}

// gifReader reads the blocks of a GIF from the front of rest. At the end of the file it returns what there is.
type gifReader struct{ rest []byte }

// take returns the next n bytes, nil where there are fewer.
func (r *gifReader) take(n int) []byte {
	if n > len(r.rest) {
		r.rest = nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// palette returns the palette that flags announce, nil where they do not.
func (r *gifReader) palette(flags byte) []byte {
	if flags&0x80 == 0 {
		return nil
	}
	return r.take(3 << (flags&7 + 1))
}

// extension skips an extension and returns the first data block of a graphic control extension.
func (r *gifReader) extension() (control []byte) {
	const graphicControl = 0xF9
	label := r.take(1)
	for first := true; ; first = false {
		size := r.take(1)
		if size == nil || size[0] == 0 {
			return control
		}
		if block := r.take(int(size[0])); first && label[0] == graphicControl {
			control = block
		}
	}
}

// gifPixels decompresses the data blocks of a frame into out until that is full; what follows is surplus. It reads
// every code as PIL does and not as compress/lzw: any code size up to 12 bits, codes that stay at 12 bits until a
// clear code comes however late, no clear code at the start, blocks of no bytes in between.
func gifPixels(b []byte, bits int, out *indexWriter) error {
	z := lzw{clear: 1 << bits}
	z.reset()
	var (
		i, end int  // of what is to be read of the current block
		acc    uint // have bits that were read and not used, the lowest first
		have   int
	)
	if more, err := out.write(nil); !more {
		return err
	}
	for {
		for have < z.width {
			if i == end {
				if i == len(b) || int(b[i]) > len(b)-i-1 {
					return truncated("GIF: ends within its first frame")
				}
				n := 1 + int(b[i])
				i, end = i+1, i+n
				if err := out.task.spend(n); err != nil {
					return err
				}
				continue
			}
			acc |= uint(b[i]) << have
			i++
			have += 8
		}
		code := int(acc & (1<<z.width - 1))
		acc >>= z.width
		have -= z.width
		switch {
		case code == z.clear:
			z.reset()
			continue
		case code == z.clear+1:
			return truncated("GIF: its first frame has too few pixels")
		case !z.defined(code):
			return corrupt("GIF: code %d where the next one is %d", code, z.next)
		}
		indices := z.expand(code)
		if indices == nil {
			return corrupt("GIF: code %d has no string", code)
		}
		if more, err := out.write(indices); !more {
			return err
		}
	}
}
