package decode

import "encoding/binary"

// vp8l decodes lossless WebP (RFC 9649, section 3): libwebp's pixels, in 4 bytes a pixel where other decoders take twice
// as much, and it ends with its task.
type vp8l struct {
	task    *task
	b       []byte   // what is still to be read
	bits    uint64   // bits that were taken from b, the next one lowest
	n       uint     // how many
	padding uint     // how many of all that were taken lie beyond the end; they are 0
	tables  int      // bytes that codes may still take
	scratch struct { // where codes are built
		lengths [256 + lengths + 1<<11]byte // of the code of each symbol, in bits; 0: none
		table   []uint32
	}
}

// vp8lTables returns how many bytes the codes of an image may take. What cwebp writes stays far below it, but a file of
// 100 kB may ask for 30 MB.
func vp8lTables(pixels int) int { return 1<<20 + pixels/2 }

// vp8lMemory returns how many bytes decoding w x h pixels takes, beside the packed ones: ARGB, three images of at least
// 4 x 4 pixels to one (two transforms, and which codes are used where), the codes.
func vp8lMemory(w, h int) int {
	return 4*w*h + 3*4*vp8lTiles(w, 2)*vp8lTiles(h, 2) + vp8lTables(w*h) + 64<<10
}

// vp8lWork returns how many bytes are touched at most: those of the file and its codes, a palette, and each pixel when it
// is read, in four transforms and when it is packed.
func vp8lWork(size, w, h int) int {
	return size + 2*vp8lCodeWork*size + 4*256 + 4*(6*w*h+3*vp8lTiles(w, 2)*vp8lTiles(h, 2))
}

// vp8lTiles returns how many tiles of 1<<bits pixels cover n pixels.
func vp8lTiles(n, bits int) int { return (n + 1<<bits - 1) >> bits }

// fill makes sure that there are 32 bits at least.
func (d *vp8l) fill() {
	if d.n >= 32 {
		return
	}
	if len(d.b) >= 4 {
		d.bits |= uint64(binary.LittleEndian.Uint32(d.b)) << d.n
		d.b, d.n = d.b[4:], d.n+32
		return
	}
	for d.n < 32 {
		if len(d.b) > 0 {
			d.bits |= uint64(d.b[0]) << d.n
			d.b = d.b[1:]
		} else {
			d.padding += 8
		}
		d.n += 8
	}
}

// read returns the next n bits, 32 at most.
func (d *vp8l) read(n uint) int {
	d.fill()
	v := d.bits & (1<<n - 1)
	d.bits, d.n = d.bits>>n, d.n-n
	return int(v)
}

// touch spends n bytes, and tells when more was read than there is.
func (d *vp8l) touch(n int) error {
	if d.padding > d.n {
		return truncated("WebP: the lossless pixels end early")
	}
	return d.task.spend(n)
}

// decodeVP8L decodes the data of a chunk VP8L, whose head has been read: its image is w x h pixels.
func (t *task) decodeVP8L(b []byte, w, h int) (p Image, err error) {
	const head = 5
	d := &vp8l{task: t, b: b[head:], tables: vp8lTables(w * h)}
	transforms, coded, err := d.transforms(w, h)
	if err != nil {
		return p, err
	}
	pix := make([]uint32, w*h)
	// Where a palette packs several pixels into one these lie at the end, so that they can be unpacked from the start on.
	if err := d.pixels(pix[len(pix)-coded*h:], coded, true); err != nil {
		return p, err
	}
	for i := len(transforms) - 1; i >= 0; i-- {
		tr := &transforms[i]
		if err := tr.invert(d, pix[len(pix)-tr.w*h:]); err != nil {
			return p, err
		}
	}
	p = newImage(w, h)
	err = t.rows(p, 7*w, func(out []byte, y int) {
		for x, c := range pix[y*w:][:w] {
			rgb := out[3*x:][:3:3]
			rgb[0], rgb[1], rgb[2] = byte(c>>16), byte(c>>8), byte(c)
		}
	})
	return p, err
}

// pixels reads an image, w pixels a row, into out: ARGB. Only the main one may have a different group of codes for each of
// its tiles.
func (d *vp8l) pixels(out []uint32, w int, main bool) error {
	cacheBits := 0
	if d.read(1) == 1 {
		if cacheBits = d.read(4); cacheBits < 1 || cacheBits > 11 {
			return corrupt("WebP: lossless: a colour cache of %d bits", cacheBits)
		}
	}
	var tiles []uint32 // the group of each tile; nil: always the first
	tileBits, tilesInRow := 0, 0
	if main && d.read(1) == 1 {
		tileBits = 2 + d.read(3)
		tilesInRow = vp8lTiles(w, tileBits)
		tiles = make([]uint32, tilesInRow*vp8lTiles(len(out)/w, tileBits))
		if err := d.pixels(tiles, tilesInRow, false); err != nil {
			return err
		}
		for i, c := range tiles {
			tiles[i] = c >> 8 & 0xFFFF
		}
	}
	groups, err := d.groups(tiles, cacheBits)
	if err != nil {
		return err
	}
	group, mask := &groups[0], 1<<tileBits-1
	cache := make([]uint32, 1<<cacheBits)
	cached := 0 // how many pixels have gone into the cache
	for i, x, y, jumped := 0, 0, 0, true; i < len(out); {
		if tiles != nil && (jumped || x&mask == 0) {
			group = &groups[tiles[y>>tileBits*tilesInRow+x>>tileBits]]
		}
		d.fill()
		n, symbol := 1, d.symbol(&group[green])
		switch {
		case symbol < 256:
			r := d.symbol(&group[red])
			d.fill()
			b := d.symbol(&group[blue])
			out[i] = d.symbol(&group[alpha])<<24 | r<<16 | symbol<<8 | b
		case symbol < 256+lengths:
			n = d.extended(symbol - 256)
			d.fill()
			back := d.distance(d.extended(d.symbol(&group[distances])), w)
			if back > i || n > len(out)-i {
				return corrupt("WebP: lossless: pixel %d repeats %d from %d before it", i, n, back)
			}
			to, from := out[i:i+n], out[i-back:]
			for k := range to {
				to[k] = from[k]
			}
		default:
			for ; cached < i; cached++ {
				cache[out[cached]*0x1e35a7bd>>(32-cacheBits)] = out[cached]
			}
			out[i] = cache[symbol-256-lengths]
		}
		i, x, jumped = i+n, x+n, n > 1
		for x >= w {
			x, y = x-w, y+1
			if err := d.touch(4 * w); err != nil {
				return err
			}
		}
	}
	return d.touch(0)
}

// extended reads the rest of a length or a distance.
func (d *vp8l) extended(symbol uint32) int {
	if symbol < 4 {
		return int(symbol) + 1
	}
	bits := uint(symbol-2) >> 1
	return int(2+symbol&1)<<bits + d.read(bits) + 1
}

// vp8lNear are the pixels that the distances 1 to 120 mean: 8 less the column in the low half of each byte, rows up in
// the high one.
const vp8lNear = "\x18\x07\x17\x19\x28\x06\x27\x29\x16\x1a\x26\x2a\x38\x05\x37\x39\x15\x1b\x36\x3a" +
	"\x25\x2b\x48\x04\x47\x49\x14\x1c\x35\x3b\x46\x4a\x24\x2c\x58\x45\x4b\x34\x3c\x03" +
	"\x57\x59\x13\x1d\x56\x5a\x23\x2d\x44\x4c\x55\x5b\x33\x3d\x68\x02\x67\x69\x12\x1e" +
	"\x66\x6a\x22\x2e\x54\x5c\x43\x4d\x65\x6b\x32\x3e\x78\x01\x77\x79\x53\x5d\x11\x1f" +
	"\x64\x6c\x42\x4e\x76\x7a\x21\x2f\x75\x7b\x31\x3f\x63\x6d\x52\x5e\x00\x74\x7c\x41" +
	"\x4f\x10\x20\x62\x6e\x30\x73\x7d\x51\x5f\x40\x72\x7e\x61\x6f\x50\x71\x7f\x60\x70"

// distance returns how many pixels back a distance means in rows of w.
func (d *vp8l) distance(code, w int) int {
	if code > len(vp8lNear) {
		return code - len(vp8lNear)
	}
	near := int(vp8lNear[code-1])
	return max(1, near>>4*w+8-near&15)
}
