package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

// block makes an EXIF block of one entry.
func block(order binary.AppendByteOrder, tag, kind uint16, count, value uint32) []byte {
	b := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 1)
	b = order.AppendUint16(b, tag)
	b = order.AppendUint16(b, kind)
	b = order.AppendUint32(b, count)
	switch {
	case kind == 6 && count == 1:
		return append(b, byte(value), 0, 0, 0)
	case (kind == 3 || kind == 8) && count <= 2:
		return order.AppendUint16(order.AppendUint16(b, uint16(value)), 0)
	}
	return order.AppendUint32(b, value)
}

// two makes a block of the entries of two blocks.
func two(a, b []byte) []byte {
	a = append(bytes.Clone(a), b[10:]...)
	a[8] = 2 // entries
	return a
}

func TestOrientation(t *testing.T) {
	little, big := binary.LittleEndian, binary.BigEndian
	for _, c := range []struct {
		name string
		exif []byte
		want int
	}{
		{"none", nil, 1},
		{"little endian", block(little, 0x112, 3, 1, 6), 6},
		{"big endian", block(big, 0x112, 3, 1, 8), 8},
		{"with its name", append([]byte("Exif\x00\x00"), block(big, 0x112, 3, 1, 3)...), 3},
		{"as a long", block(little, 0x112, 4, 1, 5), 5},
		{"elsewhere in the block", append(block(little, 0x112, 3, 3, 22), 7, 0, 0, 0, 0, 0), 7},
		{"as a signed short", block(little, 0x112, 8, 1, 6), 6},
		{"as a signed long", block(big, 0x112, 9, 1, 6), 6},
		{"as a signed byte", block(little, 0x112, 6, 1, 6), 6},
		{"as a ratio", append(block(big, 0x112, 5, 1, 22), 0, 0, 0, 12, 0, 0, 0, 2), 6},
		{"as a signed ratio", append(block(little, 0x112, 10, 1, 22), 0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF), 6},
		{"as a ratio of nothing", append(block(big, 0x112, 5, 1, 22), 0, 0, 0, 6, 0, 0, 0, 0), 1},
		{"as a float", block(little, 0x112, 11, 1, math.Float32bits(6)), 6},
		{"as a float with a fraction", block(little, 0x112, 11, 1, math.Float32bits(6.5)), 1},
		{"as a double", append(block(big, 0x112, 12, 1, 22), 0x40, 0x18, 0, 0, 0, 0, 0, 0), 6},
		{"as 64 bits", append(block(little, 0x112, 16, 1, 22), 6, 0, 0, 0, 0, 0, 0, 0), 6},
		{"some values beyond the block", append(block(little, 0x112, 3, 3, 22), 7, 0, 0, 0), 1},
		{"the last of two", two(block(little, 0x112, 3, 1, 6), block(little, 0x112, 3, 1, 8)), 8},
		{"the last of two that has a value", two(block(little, 0x112, 3, 1, 6), block(little, 0x112, 3, 0, 8)), 6},
		{"after an entry beyond the block", two(block(little, 0x10F, 2, 9, 9999), block(little, 0x112, 3, 1, 8)), 1},
		{"after a type that is not known", two(block(little, 0x10F, 99, 9, 9999), block(little, 0x112, 3, 1, 8)), 8},
		{"mixed first bytes", append([]byte("II\x00*"), block(little, 0x112, 3, 1, 8)[4:]...), 8},
		{"beyond the block", block(little, 0x112, 3, 3, 0xFFFFFFFF), 1},
		{"0", block(little, 0x112, 3, 1, 0), 1},
		{"9", block(little, 0x112, 3, 1, 9), 1},
		{"as a text", block(little, 0x112, 2, 1, 6), 1},
		{"as a byte", block(little, 0x112, 1, 1, 6), 1},
		{"no value", block(little, 0x112, 3, 0, 6), 1},
		{"another tag", block(little, 0x110, 3, 1, 6), 1},
		{"directory beyond the block", []byte("II*\x00\xff\xff\xff\xff\x00\x00"), 1},
		{"more entries than bytes", []byte("II*\x00\x08\x00\x00\x00\xff\xff\x12\x01"), 1},
		{"other bytes", []byte("hello, world, how are you"), 1},
	} {
		if got := orientation(c.exif); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestUpright turns the image
//
//	1 2 3
//	4 5 6
//
// by each orientation.
func TestUpright(t *testing.T) {
	for orientation, want := range map[int][]string{
		0: {"123", "456"}, 1: {"123", "456"}, 2: {"321", "654"}, 3: {"654", "321"}, 4: {"456", "123"},
		5: {"14", "25", "36"}, 6: {"41", "52", "63"}, 7: {"63", "52", "41"}, 8: {"36", "25", "14"}, 9: {"123", "456"},
	} {
		p := newImage(3, 2)
		for i := range 6 {
			copy(p.Pix[3*i:], bytes.Repeat([]byte{byte('1' + i)}, 3))
		}
		upright(&p, orientation)
		var got []string
		for y := range p.Height {
			row := ""
			for x := range p.Width {
				row += string(p.Pix[3*(y*p.Width+x)])
			}
			got = append(got, row)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d: %v, want %v", orientation, got, want)
		}
		p.Release()
	}
}

// TestUprightTwice turns an image larger than a tile there and back.
func TestUprightTwice(t *testing.T) {
	for there, back := range map[int]int{2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6} {
		p := newImage(131, 67)
		for i := range p.Pix {
			p.Pix[i] = byte(i * i >> 3)
		}
		want := bytes.Clone(p.Pix)
		upright(&p, there)
		upright(&p, back)
		if p.Width != 131 || p.Height != 67 || !bytes.Equal(p.Pix, want) {
			t.Errorf("%d and %d do not cancel out", there, back)
		}
		p.Release()
	}
}

func TestSizeClass(t *testing.T) {
	last := -1
	for n := 1; n <= maxPooled; n += 1 + n/97 {
		class, size := sizeClass(n)
		if size < n || n > 64<<10 && size-n > n/4 || class >= len(pools) || class < last {
			t.Fatalf("%d: class %d of %d bytes", n, class, size)
		}
		if c, s := sizeClass(size); c != class || s != size {
			t.Fatalf("%d: size %d is not its own class", n, size)
		}
		last = class
	}
}
