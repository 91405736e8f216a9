package decode

// Transforms of lossless WebP, in the order of their numbers.
const (
	predictor = iota
	crossColor
	subtractGreen
	colorIndexing
	transformKinds
)

// vp8lTransform is a transform that has been applied to an image whose rows had w pixels.
type vp8lTransform struct {
	kind, w int
	bits    int      // the side of a tile, or pixels in one, as a power of two
	data    []uint32 // a pixel for each tile, or the 256 colors
}

// transforms reads the transforms of an image of w x h pixels, and returns how many pixels a row has behind them.
func (d *vp8l) transforms(w, h int) (list []vp8lTransform, coded int, err error) {
	var seen [transformKinds]bool
	for d.read(1) == 1 {
		t := vp8lTransform{kind: d.read(2), w: w}
		if seen[t.kind] {
			return nil, 0, corrupt("WebP: lossless: transform %d comes twice", t.kind)
		}
		seen[t.kind] = true
		switch t.kind {
		case predictor, crossColor:
			t.bits = 2 + d.read(3)
			columns := vp8lTiles(w, t.bits)
			t.data = make([]uint32, columns*vp8lTiles(h, t.bits))
			err = d.pixels(t.data, columns, false)
		case colorIndexing:
			n := 1 + d.read(8)
			t.data = make([]uint32, 256)
			err = d.pixels(t.data[:n], n, false)
			for i := 1; i < n; i++ {
				t.data[i] = addARGB(t.data[i], t.data[i-1])
			}
			for _, most := range []int{16, 4, 2} {
				if n <= most {
					t.bits++
				}
			}
			w = vp8lTiles(w, t.bits)
		}
		if err != nil {
			return nil, 0, err
		}
		list = append(list, t)
	}
	return list, w, nil
}

// invert undoes t in pix, which has rows of t.w pixels; a palette finds its indices packed at the end of it.
func (t *vp8lTransform) invert(d *vp8l, pix []uint32) error {
	packed := pix[len(pix)-len(pix)/t.w*vp8lTiles(t.w, t.bits):]
	for y := 0; y*t.w < len(pix); y++ {
		row := pix[y*t.w:][:t.w]
		switch t.kind {
		case predictor:
			t.predict(pix, y)
		case crossColor:
			t.cross(row, y)
		case subtractGreen:
			for x, c := range row {
				g := c >> 8 & 0xFF
				row[x] = addARGB(c, g<<16|g)
			}
		case colorIndexing:
			size := 8 >> t.bits
			for x := 0; x < t.w; {
				indices := packed[0] >> 8 & 0xFF
				packed = packed[1:]
				for end := min(x+1<<t.bits, t.w); x < end; x++ {
					row[x] = t.data[indices&(1<<size-1)]
					indices >>= size
				}
			}
		}
		if err := d.touch(4 * t.w); err != nil {
			return err
		}
	}
	return nil
}

func (t *vp8lTransform) tile(x, y int) uint32 {
	return t.data[y>>t.bits*vp8lTiles(t.w, t.bits)+x>>t.bits]
}

// predict adds to each pixel of row y what its tile predicts.
func (t *vp8lTransform) predict(pix []uint32, y int) {
	i := y * t.w
	if y == 0 {
		pix[0] = addARGB(pix[0], 0xFF000000)
		for x := 1; x < t.w; x++ {
			pix[x] = addARGB(pix[x], pix[x-1])
		}
		return
	}
	pix[i] = addARGB(pix[i], pix[i-t.w])
	for x := 1; x < t.w; {
		mode := t.tile(x, y) >> 8 & 15
		for end := min((x>>t.bits+1)<<t.bits, t.w); x < end; x++ {
			// Right of the last pixel of the row above comes the first one of this row.
			p := i + x
			near := pix[p-t.w-1 : p-t.w+2 : p-t.w+2]
			pix[p] = addARGB(pix[p], predicted(mode, pix[p-1], near[0], near[1], near[2]))
		}
	}
}

// predicted returns what a mode predicts of the pixels to the left (l), above left, above and above right.
func predicted(mode, l, tl, t, tr uint32) uint32 {
	switch mode {
	case 1:
		return l
	case 2:
		return t
	case 3:
		return tr
	case 4:
		return tl
	case 5:
		return average(average(l, tr), t)
	case 6:
		return average(l, tl)
	case 7:
		return average(l, t)
	case 8:
		return average(tl, t)
	case 9:
		return average(t, tr)
	case 10:
		return average(average(l, tl), average(t, tr))
	case 11: // the one that is nearer to l + t - tl
		toLeft, toAbove := 0, 0
		for shift := 0; shift < 32; shift += 8 {
			corner := int(tl >> shift & 0xFF)
			toLeft += abs(int(t>>shift&0xFF) - corner)
			toAbove += abs(int(l>>shift&0xFF) - corner)
		}
		if toLeft < toAbove {
			return l
		}
		return t
	case 12, 13:
		var sum uint32
		for shift := 0; shift < 32; shift += 8 {
			a, b, c := int(l>>shift&0xFF), int(t>>shift&0xFF), int(tl>>shift&0xFF)
			v := a + b - c
			if mode == 13 {
				a = (a + b) / 2
				v = a + (a-c)/2
			}
			sum |= uint32(min(max(v, 0), 255)) << shift
		}
		return sum
	}
	return 0xFF000000
}

// cross adds to red and blue of each pixel in row y what its tile says that they have of green, and blue of red.
func (t *vp8lTransform) cross(row []uint32, y int) {
	for x := 0; x < len(row); {
		m := t.tile(x, y)
		ofBlueRed, ofBlueGreen, ofRedGreen := int32(int8(m>>16)), int32(int8(m>>8)), int32(int8(m))
		for end := min((x>>t.bits+1)<<t.bits, len(row)); x < end; x++ {
			c := row[x]
			g := int32(int8(c >> 8))
			r := c>>16 + uint32(ofRedGreen*g>>5)
			b := c + uint32(ofBlueGreen*g>>5) + uint32(ofBlueRed*int32(int8(r))>>5)
			row[x] = c&0xFF00FF00 | r&0xFF<<16 | b&0xFF
		}
	}
}

// addARGB adds two pixels, each channel modulo 256.
func addARGB(a, b uint32) uint32 {
	const even = 0x00FF00FF
	return (a&^even+b&^even)&^even | (a&even+b&even)&even
}

// average returns the average of two pixels, rounded down.
func average(a, b uint32) uint32 { return (a^b)&0xFEFEFEFE>>1 + a&b }
