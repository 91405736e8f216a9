package decode

// gifPixels decompresses the data blocks of a frame into out until that is full; what follows is surplus. It reads
// every code as PIL does and not as compress/lzw: any code size up to 12 bits, codes that stay at 12 bits until a
// clear code comes however late, no clear code at the start, blocks of no bytes in between.
func gifPixels(b []byte, bits int, out *indexWriter) error {
	const tableSize, maxSize = 4096, 12
	var (
		prefix [tableSize]uint16 // of a string: the code of all but its last index
		suffix [tableSize]byte   // its last index
		buf    [tableSize]byte   // the string of a code, filled from the end

		clear, stop = 1 << bits, 1<<bits + 1
		next        = clear + 2 // the first free code
		size        = bits + 1  // of a code, in bits
		fresh       = true      // no string yet since the table was cleared
		last        int         // the code before, and the first index of its string
		first       byte

		i, end int  // of what is to be read of the current block
		acc    uint // have bits that were read and not used, the lowest first
		have   int
	)
	if more, err := out.write(nil); !more {
		return err
	}
	for {
		for have < size {
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
		code := int(acc & (1<<size - 1))
		acc >>= size
		have -= size

		at := tableSize - 1 // in buf, where the string starts
		switch {
		case code == clear:
			next, size, fresh = clear+2, bits+1, true
			continue
		case code == stop:
			return truncated("GIF: its first frame has too few pixels")
		case fresh && code > clear, code > next:
			return corrupt("GIF: code %d where the next one is %d", code, next)
		case fresh:
			fresh, first = false, byte(code)
		default:
			c := code
			if c == next { // the string that is about to be added: the last one and its own first index
				buf[at] = first
				at, c = at-1, last
			}
			for c >= clear {
				if c >= tableSize { // only a code size of 12 has such
					return corrupt("GIF: code %d has no string", code)
				}
				buf[at] = suffix[c]
				at, c = at-1, int(prefix[c])
			}
			first = byte(c)
			if next < tableSize {
				prefix[next], suffix[next] = uint16(last), first
				if next == 1<<size-1 && size < maxSize {
					size++
				}
				next++
			}
		}
		last, buf[at] = code, first
		if more, err := out.write(buf[at:]); !more {
			return err
		}
	}
}
