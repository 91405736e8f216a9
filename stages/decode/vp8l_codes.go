package decode

import (
	"math/bits"
	"slices"
)

// The codes of a group, by what they stand for.
const (
	green     = iota // or a length, or an entry of the colour cache
	red              //
	blue             //
	alpha            //
	distances        //
	groupSize        //

	lengths = 24 // how many lengths there are
)

const vp8lCodeWork = 8 // bytes spent on each code, of which there are two to the byte at most

// vp8lCode is a prefix code as a table, indexed by the next root bits. An entry is a symbol above the length of its code;
// where that is longer than root, the offset of a second table above linked and the number of bits that index it.
type vp8lCode struct {
	table []uint32
	root  uint
}

const (
	symbolShift = 8
	linked      = 1 << 7
	mostRoot    = 8
	mostBits    = 15
)

type vp8lGroup [groupSize]vp8lCode

// symbol reads a symbol; at least mostBits bits must be there.
func (d *vp8l) symbol(c *vp8lCode) uint32 {
	e := c.table[d.bits&(1<<c.root-1)]
	if e&linked != 0 {
		e = c.table[e>>symbolShift+uint32(d.bits>>c.root)&(1<<(e&15)-1)]
	}
	n := uint(e & 15)
	d.bits, d.n = d.bits>>n, d.n-n
	return e >> symbolShift
}

// groups reads as many groups as tiles refer to, but keeps only those that are used.
func (d *vp8l) groups(tiles []uint32, cacheBits int) ([]vp8lGroup, error) {
	n := 1
	if len(tiles) > 0 {
		n += int(slices.Max(tiles))
	}
	const groupBytes = groupSize*32 + 1
	if d.tables -= groupBytes * n; d.tables < 0 {
		return nil, d.tooManyCodes()
	}
	used := make([]bool, n)
	used[0] = true
	for _, t := range tiles {
		used[t] = true
	}
	groups := make([]vp8lGroup, n)
	sizes := [groupSize]int{256 + lengths, 256, 256, 256, 40}
	if cacheBits > 0 {
		sizes[green] += 1 << cacheBits
	}
	for i := range groups {
		for j, size := range sizes {
			code, err := d.code(size)
			if err != nil {
				return nil, err
			}
			if !used[i] {
				continue
			}
			if d.tables -= 4 * len(code.table); d.tables < 0 {
				return nil, d.tooManyCodes()
			}
			code.table = slices.Clone(code.table)
			groups[i][j] = code
		}
	}
	return groups, nil
}

func (d *vp8l) tooManyCodes() error {
	return unsupported("lossless WebP whose tables of codes take more memory than its pixels")
}

// code reads the lengths of the codes of size symbols. The table is valid until the next call.
func (d *vp8l) code(size int) (vp8lCode, error) {
	if err := d.touch(vp8lCodeWork); err != nil {
		return vp8lCode{}, err
	}
	clear(d.scratch.lengths[:])
	if simple := d.read(1) == 1; simple {
		two := d.read(1) == 1
		width := uint(1 + 7*d.read(1))
		d.scratch.lengths[d.read(width)] = 1
		if two {
			d.scratch.lengths[d.read(8)] = 1
		}
	} else if err := d.codeLengths(size); err != nil {
		return vp8lCode{}, err
	}
	return d.build(size)
}

// codeLengths reads lengths that have a code of their own.
func (d *vp8l) codeLengths(size int) error {
	const order = "\x11\x12\x00\x01\x02\x03\x04\x05\x10\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
	for i := range 4 + d.read(4) {
		d.scratch.lengths[order[i]] = byte(d.read(3))
	}
	code, err := d.build(len(order))
	if err != nil {
		return err
	}
	clear(d.scratch.lengths[:len(order)])
	left := size // symbols that are read at most
	if d.read(1) == 1 {
		width := uint(2 + 2*d.read(3))
		if left = 2 + d.read(width); left > size {
			return corrupt("WebP: lossless: lengths of %d codes for %d symbols", left, size)
		}
	}
	last := byte(8)
	for i := 0; i < size && left > 0; left-- {
		d.fill()
		length, n := byte(d.symbol(&code)), 1
		switch length {
		case 16:
			length, n = last, 3+d.read(2)
		case 17:
			length, n = 0, 3+d.read(3)
		case 18:
			length, n = 0, 11+d.read(7)
		}
		if n > size-i {
			return corrupt("WebP: lossless: codes for more than %d symbols", size)
		}
		if length != 0 {
			last = length
		}
		for range n {
			d.scratch.lengths[i] = length
			i++
		}
	}
	return nil
}

// build makes the table of the canonical code with the lengths of size symbols: shorter codes come first, those of the
// same length in the order of their symbols. All sequences of bits must have a meaning, but for a single symbol,
// which takes none.
func (d *vp8l) build(size int) (vp8lCode, error) {
	var count [mostBits + 1]int
	last, longest := 0, 0
	for symbol, n := range d.scratch.lengths[:size] {
		if n > 0 {
			count[n]++
			last, longest = symbol, max(longest, int(n))
		}
	}
	open, symbols := 1, 0
	for _, n := range count[1:] {
		open = 2*open - n
		symbols += n
	}
	if symbols == 1 {
		d.scratch.table = append(d.scratch.table[:0], uint32(last)<<symbolShift)
		return vp8lCode{d.scratch.table, 0}, nil
	}
	if open != 0 {
		return vp8lCode{}, corrupt("WebP: lossless: an incomplete prefix code")
	}
	root := min(longest, mostRoot)
	table := append(d.scratch.table[:0], make([]uint32, 1<<root)...)
	code, offset, prefix, second := 0, 0, -1, 0 // of the second table: where it is, what leads to it, its bits
	for n := 1; n <= longest; n++ {
		code <<= 1
		for symbol, m := range d.scratch.lengths[:size] {
			if int(m) != n {
				continue
			}
			reversed := int(bits.Reverse16(uint16(code))) >> (16 - n)
			entry := uint32(symbol)<<symbolShift | uint32(n)
			if n <= root {
				for i := reversed; i < 1<<root; i += 1 << n {
					table[i] = entry
				}
			} else {
				if p := reversed & (1<<root - 1); p != prefix {
					prefix, second = p, n-root
					for space := 1<<second - count[n]; space > 0; {
						second++
						space = 2*space - count[second+root]
					}
					offset = len(table)
					table = append(table, make([]uint32, 1<<second)...)
					table[p] = uint32(offset)<<symbolShift | linked | uint32(second)
				}
				for i := reversed >> root; i < 1<<second; i += 1 << (n - root) {
					table[offset+i] = entry
				}
			}
			count[n]--
			code++
		}
	}
	d.scratch.table = table
	return vp8lCode{table, uint(root)}, nil
}
