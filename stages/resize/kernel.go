package resize

import "encoding/binary"

// kernels are the two inner loops. Every implementation computes the same integers.
type kernels struct {
	name string
	// horizontal filters two rows at once: for each output of t it writes an RGB pixel to dst0 from src0 and
	// one to dst1 from src1. The rows start at sample t.base, are readable for 3*t.need+slack bytes, and one
	// byte after the last pixel of dst0 and dst1 may be overwritten.
	horizontal func(dst0, dst1, src0, src1 []byte, t *table)
	// vertical writes output row y of t to dst; src starts at the row of its first tap, the next rows are
	// stride bytes apart.
	vertical func(dst, src []byte, stride int, t *table, y int)
}

// slack is how far beyond the last tap of a row kernels may read.
const slack = 16

// portable is the implementation in Go. One 64-bit multiplication serves two bytes: they are taken 32 bits
// apart, so that each half of the sum, modulo 2^64, determines the exact signed sum of one byte.
var portable = kernels{"go", horizontalGo, verticalGo}

const (
	twoBytes = 0x000000FF_000000FF
	twoHalfs = half<<32 | half
)

func horizontalGo(dst0, dst1, src0, src1 []byte, t *table) {
	weights := t.weights
	for i, first := range t.first {
		w := weights[i*t.taps:][:t.taps]
		n := 3*len(w) + 1
		p0, p1 := src0[3*int(first):][:n], src1[3*int(first):][:n]
		var r, g, b uint64 = twoHalfs, twoHalfs, twoHalfs
		for _, k := range w {
			if len(p0) < 4 || len(p1) < 4 {
				break // never; spares the bounds checks below
			}
			v := uint64(binary.LittleEndian.Uint32(p0)) | uint64(binary.LittleEndian.Uint32(p1))<<32
			k := uint64(k)
			r += (v & twoBytes) * k
			g += (v >> 8 & twoBytes) * k
			b += (v >> 16 & twoBytes) * k
			p0, p1 = p0[3:], p1[3:]
		}
		o0, o1 := dst0[3*i:][:3], dst1[3*i:][:3]
		o0[0], o1[0] = unpack(r)
		o0[1], o1[1] = unpack(g)
		o0[2], o1[2] = unpack(b)
	}
}

func verticalGo(dst, src []byte, stride int, t *table, y int) {
	w := t.weights[y*t.taps:][:t.taps]
	x := 0
	for ; x+8 <= len(dst); x += 8 {
		var a, b, c, d uint64 = twoHalfs, twoHalfs, twoHalfs, twoHalfs
		at := x
		for _, k := range w {
			v := binary.LittleEndian.Uint64(src[at:])
			k := uint64(k)
			a += (v & twoBytes) * k
			b += (v >> 8 & twoBytes) * k
			c += (v >> 16 & twoBytes) * k
			d += (v >> 24 & twoBytes) * k
			at += stride
		}
		o := dst[x:][:8]
		o[0], o[4] = unpack(a)
		o[1], o[5] = unpack(b)
		o[2], o[6] = unpack(c)
		o[3], o[7] = unpack(d)
	}
	for ; x < len(dst); x++ {
		sum := int32(half)
		for i, k := range w {
			sum += int32(src[x+i*stride]) * k
		}
		dst[x] = clip(sum)
	}
}

// unpack returns the two pixels of a sum of two.
func unpack(sum uint64) (low, high byte) {
	first := int32(sum)
	return clip(first), clip(int32((sum - uint64(first)) >> 32))
}

// clip drops the fractional bits and limits to a byte.
func clip(sum int32) byte { return byte(min(max(sum>>precision, 0), 255)) }
