package decode

import "math/bits"

// lzwCodes is how many codes of up to 12 bits there are.
const lzwCodes = 1 << 12

// lzw expands the codes of GIF and TIFF. Codes below clear stand for themselves, clear empties the table, the code above it
// is the end. The table is filled until it is full, and stays so until the next clear.
type lzw struct {
	clear int
	early int  // 1: codes grow one code early, as in TIFF
	width int  // of the next code, in bits
	next  int  // the code that is defined next
	last  int  // the code before, -1 after a clear
	first byte // the first byte of what last stands for

	// What a code stands for: what its prefix stands for, and the suffix.
	prefix [lzwCodes]uint16
	suffix [lzwCodes]byte
	out    [lzwCodes]byte // filled from the end
}

func (z *lzw) reset() { z.width, z.next, z.last = bits.Len(uint(z.clear)), z.clear+2, -1 }

// defined tells whether code, which is neither clear nor the end, may come now.
func (z *lzw) defined(code int) bool { return code <= z.next && (z.last >= 0 || code < z.clear) }

// expand returns what a defined code stands for, valid until the next call. It is nil for a code beyond the table, which
// only a clear code of 1<<12 allows.
func (z *lzw) expand(code int) []byte {
	at, c := len(z.out)-1, code
	if c == z.next { // the string that is about to be added: the last one and its own first byte
		z.out[at] = z.first
		at, c = at-1, z.last
	}
	for c >= z.clear {
		if c >= lzwCodes {
			return nil
		}
		z.out[at] = z.suffix[c]
		at, c = at-1, int(z.prefix[c])
	}
	z.first = byte(c)
	z.out[at] = z.first
	if z.last >= 0 && z.next < lzwCodes {
		z.prefix[z.next], z.suffix[z.next] = uint16(z.last), z.first
		if z.next++; z.next+z.early == 1<<z.width && z.width < 12 {
			z.width++
		}
	}
	z.last = code
	return z.out[at:]
}
