package decode

import (
	"bytes"
	"encoding/binary"
	"image"
	"slices"
	"testing"
)

// bmpOf makes a BMP whose pixels follow what is before them: rest is the masks, the palette and the pixels.
func bmpOf(size uint32, w, h int32, bits uint16, compression uint32, rest ...[]byte) []byte {
	le := binary.LittleEndian
	b := append([]byte("BM"), make([]byte, 12)...)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, size), uint32(w)), uint32(h))
	b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, 1), bits), compression)
	return append(append(b, make([]byte, 20)...), slices.Concat(rest...)...)
}

// gifOf makes a GIF without a palette: before is what stands between the head and the frame, data what follows the
// code size.
func gifOf(screen image.Point, frame image.Rectangle, before []byte, codeSize byte, data []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(le.AppendUint16([]byte("GIF89a"), uint16(screen.X)), uint16(screen.Y))
	b = append(append(b, 0, 0, 0), before...)
	b = append(b, ',')
	for _, v := range []int{frame.Min.X, frame.Min.Y, frame.Dx(), frame.Dy()} {
		b = le.AppendUint16(b, uint16(v))
	}
	return append(append(b, 0, codeSize), data...)
}

// gifBlocks cuts b into data blocks of at most size bytes, without an end.
func gifBlocks(b []byte, size int) (out []byte) {
	for piece := range slices.Chunk(b, size) {
		out = append(append(out, byte(len(piece))), piece...)
	}
	return out
}

func bmpMasks(m ...uint32) (b []byte) {
	for _, v := range m {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// TestIndexedRefused has BMPs and GIFs that are not read, each with its reason.
func TestIndexedRefused(t *testing.T) {
	one := image.Rect(0, 0, 1, 1)
	core := append([]byte("BM\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 12, 0, 0, 0, 1, 0, 1, 0, 1, 0, 24, 0)
	gray8, gray4 := make([]byte, 4*256), make([]byte, 4*16)
	checkRefused(t, goDecoder, "", []refusal{
		{"BMP of OS/2, short", bmpOf(16, 1, 1, 24, 0, gray8), ErrUnsupportedFormat, "header of 16 bytes"},
		{"BMP of 3 bits", bmpOf(40, 1, 1, 3, 0, gray8), ErrUnsupportedFormat, "BMP of 3 bits"},
		{"BMP of 64 bits", bmpOf(40, 1, 1, 64, 0, gray8), ErrUnsupportedFormat, "BMP of 64 bits"},
		{"BMP with a JPEG", bmpOf(40, 1, 1, 0, 4, gray8), ErrUnsupportedFormat, "holds a JPEG"},
		{"BMP with a PNG", bmpOf(40, 1, 1, 0, 5, gray8), ErrUnsupportedFormat, "holds a PNG"},
		{"BMP of runs, wrong bits", bmpOf(40, 1, 1, 8, 2, gray8), ErrUnsupportedFormat, "8 bits with compression 2"},
		{"BMP of fax", bmpOf(64, 1, 1, 1, 3, gray8), ErrUnsupportedFormat, "1 bits with compression 3"},
		{"BMP of 4-4-4", bmpOf(40, 1, 1, 16, 3, bmpMasks(0xF00, 0xF0, 0xF), gray8), ErrUnsupportedFormat, "masks f00, f0, f"},
		{"BMP of 10-10-10", bmpOf(40, 1, 1, 32, 3, bmpMasks(0x3FF00000, 0xFFC00, 0x3FF), gray8), ErrUnsupportedFormat, "masks 3ff00000"},
		{"BMP of the same masks", bmpOf(40, 1, 1, 32, 3, bmpMasks(0xFF00, 0xFF00, 0xFF), gray8), ErrUnsupportedFormat, "masks"},
		{"BMP of a mask beyond", bmpOf(40, 1, 1, 24, 3, bmpMasks(0xFF000000, 0xFF00, 0xFF), gray8), ErrUnsupportedFormat, "masks"},
		{"BMP without masks", bmpOf(40, 1, 1, 16, 3, bmpMasks(0, 0, 0), gray8), ErrUnsupportedFormat, "masks"},
		{"BMP with a delta", bmpOf(40, 4, 2, 8, 1, gray8, []byte{0, 2, 1, 1, 0, 1}), ErrUnsupportedFormat, "leave pixels out"},
		{"BMP with an empty row", bmpOf(40, 4, 2, 8, 1, gray8, []byte{0, 0, 4, 7, 0, 1}), ErrUnsupportedFormat, "empty row"},
		{"BMP with an early end", bmpOf(40, 4, 2, 8, 1, gray8, []byte{4, 7, 0, 1}), ErrUnsupportedFormat, "end before its last row"},
		{"BMP with odd pixels", bmpOf(40, 3, 2, 4, 2, gray4, []byte{0, 3, 0x12, 0x30}), ErrUnsupportedFormat, "odd number"},
		{"BMP of runs, cut", bmpOf(40, 4, 2, 8, 1, gray8, []byte{4, 7, 0, 5, 1}), ErrTruncated, "run lengths"},
		{"BMP of pixels, cut", bmpOf(40, 2, 2, 24, 0, make([]byte, 13)), ErrTruncated, "2 x 2 pixels end at 68"},
		{"BMP cut in the head", core[:20], ErrTruncated, "header"},
		{"BMP cut in the masks", bmpOf(40, 1, 1, 32, 3, bmpMasks(0xFF0000, 0xFF00)), ErrTruncated, "masks"},
		{"BMP cut behind the head", core, ErrTruncated, "1 x 1"},
		{"BMP without width", bmpOf(40, -1, 1, 24, 0, gray8), ErrCorrupt, "-1 x 1"},
		{"BMP of the least height", bmpOf(40, 1, -1<<31, 24, 0, gray8), ErrTooManyPixels, "2147483648"},

		{"GIF without a frame", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), ErrCorrupt, "no frame"},
		{"GIF of an empty frame", gifOf(image.Pt(3, 3), image.Rect(1, 1, 1, 2), nil, 2, []byte{1, 0x44, 0}), ErrCorrupt, "0 x 1"},
		{"GIF of 13 bits", gifOf(image.Pt(1, 1), one, nil, 13, []byte{1, 0x44, 0}), ErrCorrupt, "13 bits"},
		{"GIF with a bad first code", gifOf(image.Pt(1, 1), one, nil, 2, []byte{1, 0x34, 0}), ErrCorrupt, "code 6"},
		{"GIF with a code too far", gifOf(image.Pt(2, 1), image.Rect(0, 0, 2, 1), nil, 2, []byte{2, 0xC4, 0x01, 0}), ErrCorrupt, "code 7"},
		{"GIF of 12 bits and no string", gifOf(image.Pt(9, 1), image.Rect(0, 0, 9, 1), nil, 12,
			gifBlocks(bytes.Repeat([]byte{0x02, 0x50, 0x00, 0x0A, 0x40, 0x01, 0x28}, 2), 255)), ErrCorrupt, "code 4098"},
		{"GIF of too few pixels", gifOf(image.Pt(2, 1), image.Rect(0, 0, 2, 1), nil, 2, []byte{2, 0x44, 0x01, 0, ';'}), ErrTruncated, "too few"},
		{"GIF cut in a block", gifOf(image.Pt(1, 1), one, nil, 2, []byte{2, 0x44}), ErrTruncated, "within its first frame"},
		{"GIF cut before the frame", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00!\xfe\x09a"), ErrTruncated, "before its first frame"},
		{"GIF of 65535 x 65535 behind the screen", gifOf(image.Pt(1, 1), image.Rect(9, 9, 65544, 65544), nil, 2, nil), ErrTooManyPixels, "65544"},
	})
}

// TestBeyondPIL has valid files that PIL 9.4 refuses or, the last two, takes for others; one row of pixels each.
func TestBeyondPIL(t *testing.T) {
	bw := []byte{0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0}
	const colors = 46 // where their number is
	ramp := make([]byte, 64)
	for i := range ramp {
		ramp[i] = byte(i / 4)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"V2 header", bmpOf(52, 1, 1, 16, 3, bmpMasks(0xF800, 0x7E0, 0x1F), []byte{0x1F, 0xF8, 0, 0}), "\xff\x00\xff"},
		{"V3 header", bmpOf(56, 1, 1, 32, 3, bmpMasks(0xFF, 0xFF00, 0xFF0000, 0), []byte{1, 2, 3, 4}), "\x01\x02\x03"},
		{"masks in any order", bmpOf(40, 1, 1, 32, 3, bmpMasks(0xFF00, 0xFF, 0xFF000000), []byte{1, 2, 3, 4}), "\x02\x01\x04"},
		{"24 bits, red first", bmpOf(40, 1, 1, 24, 3, bmpMasks(0xFF, 0xFF00, 0xFF0000), []byte{1, 2, 3}), "\x01\x02\x03"},
		{"2 bits", bmpOf(40, 4, 1, 2, 0, ramp[:16], []byte{0x1B}), "\x00\x00\x00\x01\x01\x01\x02\x02\x02\x03\x03\x03"},
		{"too many colours", patched(bmpOf(40, 1, 1, 8, 0, make([]byte, 28), []byte("abc"), make([]byte, 4*300-31), []byte{7}),
			colors, 44, 1), "cba"},
		{"empty unknown extension", gifOf(image.Pt(1, 1), image.Rect(0, 0, 1, 1), []byte("!\x2a\x00"), 2, []byte{1, 0x4C, 0}), "\x01\x01\x01"},
		{"black and white in 8 bits", patched(bmpOf(40, 3, 1, 8, 0, bw, []byte{1, 0, 1, 0}), colors, 2), "\xff\xff\xff\x00\x00\x00\xff\xff\xff"},
		{"grays of their index in 4 bits", bmpOf(40, 2, 1, 4, 0, ramp, []byte{0x5F, 0, 0, 0}), "\x05\x05\x05\x0f\x0f\x0f"},
	} {
		p, err := goDecoder.DecodeBytes(c.b)
		if err != nil || string(p.Pix) != c.want {
			t.Errorf("%s: % x, want % x: %v", c.name, p.Pix, c.want, err)
		}
		p.Release()
	}
}

// costlyIndexed has files that make the most of their bytes, each with the error that decoding it ends with.
func costlyIndexed() []costlyFile {
	const n = 1 << 19
	screen, whole := image.Pt(2000, 2000), image.Rect(0, 0, 2000, 2000)
	clears := bytes.Repeat([]byte{0x24, 0x49, 0x92}, n/3) // of 3 bits
	gray8 := make([]byte, 4*256)
	return []costlyFile{
		{"GIF of clear codes", gifOf(screen, whole, nil, 2, gifBlocks(clears, 255)), ErrTruncated},
		{"GIF of short blocks", gifOf(screen, whole, nil, 2, gifBlocks(clears, 1)), ErrTruncated},
		{"GIF of empty blocks", gifOf(screen, whole, nil, 2, make([]byte, n)), ErrTruncated},
		{"GIF of a small frame", gifOf(screen, image.Rect(5, 5, 6, 6), nil, 2, []byte{1, 0x4C, 0}), nil},
		{"GIF of extensions", gifOf(screen, image.Rect(5, 5, 6, 6), bytes.Repeat([]byte("!\xfe\x01a\x00"), n/5), 2, []byte{1, 0x4C, 0}), nil},
		{"GIF of junk", gifOf(screen, image.Rect(5, 5, 6, 6), make([]byte, n), 2, []byte{1, 0x4C, 0}), nil},
		{"GIF of one string", gifOf(screen, whole, nil, 0, gifBlocks(make([]byte, n), 255)), nil},
		{"BMP of one row", bmpOf(40, 8*n, 1, 1, 0, gray8[:8], make([]byte, n)), nil},
		{"BMP of one column", bmpOf(40, 1, n/4, 1, 0, gray8[:8], make([]byte, n)), nil},
		{"BMP of runs that are cut off", bmpOf(40, 1, 2, 8, 1, gray8, bytes.Repeat([]byte{0xFF, 1}, n/2)), ErrTruncated},
		{"BMP of one long run", bmpOf(40, 16*n, 1, 8, 1, gray8, bytes.Repeat([]byte{0xFF, 1}, n/2)), nil},
		{"BMP of a short row", bmpOf(40, 16*n, 1, 8, 1, gray8, []byte{1, 1, 0, 0}), nil},
		{"BMP whose last run is too long", bmpOf(40, 1, 1, 8, 1, gray8, append([]byte{0, 255}, make([]byte, 255)...)), nil},
	}
}
