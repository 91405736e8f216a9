package decode

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// TestLong plans images whose bytes take much longer than those of others: each takes half a second or more, and few
// pixels or little memory. Two of them would hold both decode workers if they did not count as long.
func TestLong(t *testing.T) {
	comments := bytes.Repeat(append([]byte{0xFF, markCOM, 0xFF, 0xFF}, make([]byte, 0xFFFD)...), 32)
	size := func(w, h uint32, rest string) string {
		return "IHDR" + string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)) + rest
	}
	lossy := func(n int) []byte {
		b := append([]byte("\x10\x00\x00\x9d\x01\x2a\x40\x00\x40\x00"), make([]byte, n)...)
		b = append(binary.LittleEndian.AppendUint32([]byte("VP8 "), uint32(len(b))), b...)
		return slices.Concat(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(b))), []byte("WEBP"), b)
	}
	d := newDecoder(exact, 224, &turboLib{})
	for _, c := range []struct {
		name string
		b    []byte
		long bool
	}{
		{"arithmetic-coded JPEG", slices.Insert(read(t, "pil", "arithmetic.jpg"), 2, comments...), true},
		{"JPEG", slices.Insert(read(t, "pil", "progressive_gray.jpg"), 2, comments...), false},
		{"lossy WebP", lossy(4 << 20), true},
		{"small lossy WebP", lossy(1 << 20), false},
		{"PNG of short rows", pngOf(size(1, 8<<20, "\x01\x00\x00\x00\x00"), "IDAT"+strings.Repeat("x", 20<<10)), true},
		{"PNG of long rows", pngOf(size(8<<20, 1, "\x01\x00\x00\x00\x00"), "IDAT"+strings.Repeat("x", 20<<10)), false},
		{"PNG of many compressed bytes", pngOf(smallIHDR, "IDAT"+strings.Repeat("x", 6<<20)), true},
		{"TIFF by deflate", makeTIFF(8, 8, [][]byte{make([]byte, 6<<20)}, madeTags{tagCompression: {8}}), true},
		{"TIFF by fax", makeTIFF(8, 8, [][]byte{make([]byte, 4<<20)}, madeTags{tagCompression: {4}, tagBits: {1}}), true},
		{"TIFF by PackBits", makeTIFF(8, 8, [][]byte{make([]byte, 6<<20)}, madeTags{tagCompression: {32773}}), false},
	} {
		plan, err := d.Inspect(c.b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if plan.long() != c.long {
			t.Errorf("%s: work %d and %d, long: %v", c.name, plan.Work, plan.Extra, plan.long())
		}
	}
}
