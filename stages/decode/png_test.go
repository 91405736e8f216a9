package decode

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image/png"
	"strings"
	"testing"
)

// pngOf makes a PNG of chunks, each its name and its data.
func pngOf(chunks ...string) []byte {
	b := []byte("\x89PNG\r\n\x1a\n")
	for _, c := range chunks {
		b = binary.BigEndian.AppendUint32(b, uint32(len(c)-4))
		b = append(b, c...)
		b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(c)))
	}
	return b
}

// ihdr makes the header of w x h pixels: rest is the depth, the colour type and the methods.
func ihdr(w, h uint32, rest string) string {
	return "IHDR" + string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)) + rest
}

// Chunks of an image of 2 x 2 pixels, 8-bit RGB: the header, the rows in a stored block.
const (
	smallIHDR = "IHDR\x00\x00\x00\x02\x00\x00\x00\x02\x08\x02\x00\x00\x00"
	smallRows = "IDAT\x78\x01\x01\x0e\x00\xf1\xff\x00abcdef\x00ghijkl"
)

// TestPNGSurroundings has files that PIL refuses and others show, or that PIL reads by another reader than the golden
// ones: what is around sound pixels does not fail them.
func TestPNGSurroundings(t *testing.T) {
	broken := func(b []byte, from int) []byte { b[from] ^= 0xFF; return b }
	for name, b := range map[string][]byte{
		"no checksum, no IEND":       pngOf(smallIHDR, smallRows),
		"wrong checksum of IDAT":     broken(pngOf(smallIHDR, smallRows, "IEND"), 8+25+12+len(smallRows)-4-1),
		"an end within the checksum": pngOf(smallIHDR, smallRows)[:8+25+12+len(smallRows)-4-2],
		"a broken chunk behind them": append(pngOf(smallIHDR, smallRows), "\xff\xff\xff\xfftEXtabc"...),
		"no chunk behind them":       append(pngOf(smallIHDR, smallRows), "0123456789 and so on"...),
		"broken colour chunks":       pngOf(smallIHDR, "iCCPx\x00\x00junk", "gAMA\x00", "cHRM\x00", "sRGB", "pHYs", "tRNS", "bKGD\x00", smallRows),
		"a broken profile":           pngOf(smallIHDR, "tEXtRaw profile type exif\x00\nexif\n 5\nzz", smallRows),
		"a broken EXIF block":        pngOf(smallIHDR, "eXIfhello", smallRows),
		"broken texts": pngOf(smallIHDR, "tEXt", "zTXt", "iTXt", "tEXtXML:com.adobe.xmp", "zTXtXML:com.adobe.xmp\x00",
			"iTXtXML:com.adobe.xmp\x00\x00", "iTXtXML:com.adobe.xmp\x00\x01\x00\x00\x00junk", smallRows),
		"an animation out of order": pngOf(smallIHDR, "acTL", "fcTL", smallRows, "fdAT"),
	} {
		p, err := goDecoder.DecodeBytes(b)
		if err != nil || string(p.Pix) != "abcdefghijkl" || p.Orientation != 1 {
			t.Errorf("%s: %q, %d, %v", name, p.Pix, p.Orientation, err)
		}
		p.Release()
	}
}

func TestPNGRefused(t *testing.T) {
	ihdr := func(at int, v string) string { return smallIHDR[:at+4] + v + smallIHDR[at+4+len(v):] }
	wrong := pngOf(smallIHDR, "abCDx", smallRows)
	wrong[8+25+8] ^= 1
	checkRefused(t, goDecoder, "", []refusal{
		{"", pngOf("CgBI\x50\x00\x20\x02", smallIHDR, smallRows), ErrUnsupportedFormat, "CgBI"},
		{"", pngOf("tEXta\x00b", smallIHDR, smallRows), ErrCorrupt, `the chunk "tEXt" instead of IHDR`},
		{"", pngOf(smallIHDR[:16], smallRows), ErrCorrupt, "12 bytes instead of 13"},
		{"", pngOf(smallIHDR+"\x00", smallRows), ErrCorrupt, "14 bytes instead of 13"},
		{"", pngOf(ihdr(0, "\x00\x00\x00\x00"), smallRows), ErrCorrupt, "0 x 2"},
		{"", pngOf(ihdr(0, "\xff\xff\xff\xff\xff\xff\xff\xff"), smallRows), ErrTooManyPixels, "4294967295 x 4294967295"},
		{"", pngOf(ihdr(8, "\x03"), smallRows), ErrCorrupt, "no colour type 2 of 3 bits"},
		{"", pngOf(ihdr(8, "\x10\x03"), smallRows), ErrCorrupt, "no colour type 3 of 16 bits"},
		{"", pngOf(ihdr(9, "\x07"), smallRows), ErrCorrupt, "no colour type 7"},
		{"", pngOf(ihdr(10, "\x01"), smallRows), ErrCorrupt, "compression method 1"},
		{"", pngOf(ihdr(11, "\x40"), smallRows), ErrCorrupt, "filter method 64"},
		{"", pngOf(ihdr(12, "\x02"), smallRows), ErrCorrupt, "interlace method 2"},
		{"", pngOf(smallIHDR)[:30], ErrTruncated, "within the header"},
		{"", pngOf(smallIHDR), ErrTruncated, "before its pixels"},
		{"", pngOf(smallIHDR, "tEXtabc")[:42], ErrTruncated, "within the chunk tEXt"},
		{"", pngOf(smallIHDR, smallIHDR, smallRows), ErrCorrupt, "a chunk IHDR between"},
		{"", pngOf(smallIHDR, "IEND"), ErrCorrupt, "a chunk IEND between"},
		{"", pngOf(smallIHDR, "a!cd", smallRows), ErrCorrupt, `"a!cd"`},
		{"", wrong, ErrCorrupt, "checksum of the chunk abCD"},
		{"", pngOf(ihdr(9, "\x03"), "PLTE"+strings.Repeat("rgb", 257), smallRows), ErrCorrupt, "palette of 771 bytes"},
		{"", pngOf(smallIHDR, "IDATzz"), ErrCorrupt, "invalid header"},
		{"", pngOf(smallIHDR, smallRows+"\x00\x00\x00\x00", "IEND"), ErrCorrupt, "invalid checksum"},
		{"", pngOf(smallIHDR, smallRows+"\x00\x00", "IDAT\x00\x00", "IEND"), ErrCorrupt, "invalid checksum"},
		{"", pngOf(smallIHDR, "IDATx"), ErrTruncated, ""},
		{"", pngOf(smallIHDR, strings.Replace(smallRows, "\x00ghi", "\x05ghi", 1)), ErrCorrupt, "no filter 5"},
		{"", pngOf(smallIHDR, smallRows[:len(smallRows)-1]), ErrTruncated, "row 1 of 2"},
		{"", pngOf(smallIHDR, smallRows[:12], "tEXta\x00b", "IDAT"+smallRows[12:]), ErrTruncated, ""},
		{"", pngOf(ihdr(0, "\x00\x00\x10\x00\x00\x00\x10\x00"), smallRows), ErrTruncated, "21 bytes of compressed pixels for 4096 x 4096"},
	})
}

// deflated compresses b.
func deflated(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// TestPNGWide compares rows that are unfiltered in several pieces with what the standard library makes of them.
func TestPNGWide(t *testing.T) {
	const w, h = 20_011, 7
	for _, kind := range []struct{ depth, color byte }{{1, pngGray}, {4, pngGray}, {8, pngGray}, {8, pngRGB}, {16, pngRGBA}} {
		for _, interlaced := range []string{"\x00", "\x01"} {
			ihdr := "IHDR\x00\x00\x4e\x2b\x00\x00\x00\x07" + string([]byte{kind.depth, kind.color, 0, 0}) + interlaced
			f, err := readPNGHeader(pngOf(ihdr))
			if err != nil || f.width != w || f.height != h {
				t.Fatal(f, err)
			}
			var rows []byte
			filter := byte(0)
			for _, pass := range f.passes() {
				for range pass.h {
					rows = append(rows, filter%5)
					filter++
					for i := range f.rowBytes(pass.w) {
						rows = append(rows, byte(i*i>>3)^filter)
					}
				}
			}
			b := pngOf(ihdr, "IDAT"+string(deflated(rows)), "IEND")
			p := decoded(t, goDecoder, b)
			m, err := png.Decode(bytes.NewReader(b))
			if err != nil {
				t.Fatal(kind, err)
			}
			if !bytes.Equal(p.Pix, goPixels(t, m)) {
				t.Errorf("%v, interlaced %q: other pixels", kind, interlaced)
			}
		}
	}
}
