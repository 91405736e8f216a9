package decode

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

// mirrorRows reverses the pixels of each row.
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
