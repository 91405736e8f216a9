package decode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// tags of a TIFF to be made: a single value is written as LONG, several as SHORT where all of them fit.
type madeTags map[uint16][]uint32

// makeTIFF writes the blocks as strips, or tiles where there is a TileWidth. What over says replaces what would be written.
func makeTIFF(w, h uint32, blocks [][]byte, over madeTags) []byte {
	offsets, counts := uint16(tagStripOffsets), uint16(tagStripByteCounts)
	if over[tagTileWidth] != nil {
		offsets, counts = tagTileOffsets, tagTileByteCounts
	}
	tags := madeTags{tagWidth: {w}, tagHeight: {h}, tagBits: {8}, tagPhotometric: {1}}
	b := []byte("II*\x00\x00\x00\x00\x00")
	for _, block := range blocks {
		tags[offsets], tags[counts] = append(tags[offsets], uint32(len(b))), append(tags[counts], uint32(len(block)))
		b = append(b, block...)
	}
	maps.Copy(tags, over)
	maps.DeleteFunc(tags, func(_ uint16, values []uint32) bool { return values == nil })
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(tags)))
	at := len(b) + 12*len(tags) + 4
	var long []byte
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		values := tags[tag]
		kind, raw := uint16(longType), []byte(nil)
		if len(values) > 1 && slices.Max(values) <= math.MaxUint16 {
			kind = shortType
		}
		for _, v := range values {
			if kind == shortType {
				raw = binary.LittleEndian.AppendUint16(raw, uint16(v))
			} else {
				raw = binary.LittleEndian.AppendUint32(raw, v)
			}
		}
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, tag), kind)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(values)))
		if len(raw) <= 4 {
			b = append(b, append(raw, 0, 0, 0, 0)[:4]...)
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(at+len(long)))
			long = append(long, raw...)
		}
	}
	return append(append(b, 0, 0, 0, 0), long...)
}

// emptyBlocks compresses b after n blocks without content, ten bits each.
func emptyBlocks(b []byte, empty int) []byte {
	z := deflated(b)
	four := []byte{0x02, 0x08, 0x20, 0x80, 0x00} // of these blocks
	return slices.Concat(z[:2], bytes.Repeat(four, empty/4), z[2:])
}

// lzwed is b in literals of nine bits, after some clear codes.
func lzwed(b []byte, clears int) (out []byte) {
	var v, have uint32
	put := func(code uint32) {
		for v, have = v<<9|code, have+9; have >= 8; have -= 8 {
			out = append(out, byte(v>>(have-8)))
		}
	}
	for range clears {
		put(256) // clear
	}
	for i, c := range b {
		if i%200 == 0 {
			put(256) // clear
		}
		put(uint32(c))
	}
	put(257)
	return append(out, byte(v<<(8-have)))
}

// packed is b in literals, after some bytes that do nothing.
func packed(b []byte, nothing int) []byte {
	out := bytes.Repeat([]byte{0x80}, nothing)
	for part := range slices.Chunk(b, 128) {
		out = append(append(out, byte(len(part)-1)), part...)
	}
	return out
}

// compressors by the value of Compression, each with so many bytes (or a little more) in front that make no pixel.
var compressors = map[uint32]func(b []byte, idle int) []byte{
	tiffAdobeDeflate: func(b []byte, idle int) []byte { return emptyBlocks(b, idle*4/5) },
	tiffLZW:          func(b []byte, idle int) []byte { return lzwed(b, idle*8/9) },
	tiffPackBits:     packed,
}

// TestTIFFLikePIL has a file of every kind that is read, with the pixels that PIL decodes.
func TestTIFFLikePIL(t *testing.T) {
	var cases []struct{ File, Size, RGB string }
	if err := json.Unmarshal(read(t, "tiff", "cases.json"), &cases); err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, c := range cases {
		b := read(t, "tiff", c.File)
		p := decoded(t, goDecoder, b)
		if sum := sha256.Sum256(p.Pix); hex.EncodeToString(sum[:]) != c.RGB {
			t.Errorf("%s: other pixels than PIL", c.File)
		}
		// Cut anywhere it is an error or, where only what is not needed is missing, the same image.
		for n := range b {
			part, err := goDecoder.DecodeBytes(b[:n:n])
			if err == nil && !bytes.Equal(part.Pix, p.Pix) || err != nil && !oneSentinel(err) {
				t.Errorf("%s: %d of %d bytes: %v", c.File, n, len(b), err)
			}
			part.Release()
		}
	}
}

func TestTIFFRefused(t *testing.T) {
	gray := make([]byte, 64)
	half := [][]byte{gray[:32], gray[:32]}
	one := [][]byte{gray}
	twice := makeTIFF(8, 8, one, nil)
	copy(twice[8+64+2+12:], twice[8+64+2:][:12])
	long := makeTIFF(8, 8, one, madeTags{tagBits: {8, 8, 8}})
	double := makeTIFF(8, 8, one, nil)
	double[8+64+2+2] = 12
	million := func(kind byte) []byte { // strips of a row, their number written in one type or another
		b := tiffHeader(1, 1_000_000)
		b[len(b)-4-12+2] = kind // of the last entry, the rows per strip
		return b
	}
	checkRefused(t, goDecoder, "", []refusal{
		{"a million strips, by bytes", million(byteType), ErrUnsupportedFormat, "1000000 strips"},
		{"a million strips, by shorts", million(shortType), ErrUnsupportedFormat, "1000000 strips"},
		{"a million strips, by longs", million(longType), ErrUnsupportedFormat, "1000000 strips"},
		{"no pixels", makeTIFF(0, 8, one, nil), ErrCorrupt, "0 x 8"},
		{"negative width", makeTIFF(math.MaxUint32, 8, one, nil), ErrTooManyPixels, ""},
		{"no directory", []byte("II*\x00\xff\xff\xff\xff"), ErrTruncated, "directory"},
		{"cut directory", twice[:8+64+2+30], ErrTruncated, "directory"},
		{"tag twice", twice, ErrUnsupportedFormat, "ImageWidth twice"},
		{"type of a tag", double, ErrUnsupportedFormat, "ImageWidth has 1 values of type 12"},
		{"values of a tag", makeTIFF(8, 8, one, madeTags{tagPredictor: {1, 2}}), ErrUnsupportedFormat, "Predictor has 2 values"},
		{"values beyond the end", long[:len(long)-1], ErrTruncated, "BitsPerSample"},
		{"no strips", makeTIFF(8, 8, nil, nil), ErrTruncated, "0 strips or tiles of 1"},
		{"too few strips", makeTIFF(8, 8, one, madeTags{tagRowsPerStrip: {4}}), ErrTruncated, "1 strips or tiles of 2"},
		{"too many strips", makeTIFF(8, 8, half, nil), ErrUnsupportedFormat, "2 strips or tiles, 1 are enough"},
		{"no rows in a strip", makeTIFF(8, 8, one, madeTags{tagRowsPerStrip: {0}}), ErrCorrupt, "8 x 0"},
		{"strip at 0", makeTIFF(8, 8, one, madeTags{tagStripOffsets: {0}}), ErrCorrupt, "at 0"},
		{"strip beyond the end", makeTIFF(8, 8, one, madeTags{tagStripOffsets: {math.MaxUint32}}), ErrTruncated, ""},
		{"short strip", makeTIFF(8, 800, one, nil), ErrTruncated, ""},
		{"short packed strip", makeTIFF(8, 9, [][]byte{packed(gray, 0)}, madeTags{tagCompression: {tiffPackBits}}), ErrTruncated, ""},
		{"short deflated strip", makeTIFF(8, 9, [][]byte{deflated(gray)}, madeTags{tagCompression: {tiffDeflate}}), ErrTruncated, ""},
		{"short LZW strip", makeTIFF(8, 9, [][]byte{lzwed(gray, 0)}, madeTags{tagCompression: {tiffLZW}}), ErrTruncated, ""},
		{"count beyond the end", makeTIFF(8, 8, [][]byte{lzwed(gray, 0)}, madeTags{tagCompression: {tiffLZW}, tagStripByteCounts: {5000}}), ErrTruncated, ""},
		{"two strips without counts", makeTIFF(8, 8, [][]byte{lzwed(gray, 0), lzwed(gray, 0)}, madeTags{tagCompression: {tiffLZW}, tagStripByteCounts: nil, tagRowsPerStrip: {4}}), ErrCorrupt, "0 bytes"},
		{"undefined LZW code", makeTIFF(8, 8, [][]byte{{0x80, 0x7F, 0xFF, 0xFF}}, madeTags{tagCompression: {tiffLZW}}), ErrCorrupt, "LZW"},
		{"no zlib", makeTIFF(8, 8, one, madeTags{tagCompression: {tiffDeflate}}), ErrCorrupt, "zlib"},
		{"old LZW", makeTIFF(8, 8, [][]byte{{0, 1, 2, 3}}, madeTags{tagCompression: {tiffLZW}}), ErrUnsupportedFormat, "old-style LZW"},
		{"JPEG", makeTIFF(8, 8, one, madeTags{tagCompression: {7}}), ErrUnsupportedFormat, "JPEG"},
		{"old JPEG", makeTIFF(8, 8, one, madeTags{tagCompression: {6}}), ErrUnsupportedFormat, "old-style JPEG"},
		{"modified Huffman", makeTIFF(8, 8, one, madeTags{tagCompression: {2}}), ErrUnsupportedFormat, "modified Huffman"},
		{"Zstandard", makeTIFF(8, 8, one, madeTags{tagCompression: {50000}}), ErrUnsupportedFormat, "Zstandard"},
		{"compression nobody knows", makeTIFF(8, 8, one, madeTags{tagCompression: {99}}), ErrUnsupportedFormat, "compression 99"},
		{"fax of bytes", makeTIFF(8, 8, one, madeTags{tagCompression: {4}}), ErrUnsupportedFormat, "fax of 1 samples of 8 bits"},
		{"fax in two dimensions", makeTIFF(8, 8, one, madeTags{tagCompression: {3}, tagBits: {1}, tagT4Options: {1}}), ErrUnsupportedFormat, "two-dimensional"},
		{"fax with fill bits", makeTIFF(8, 8, one, madeTags{tagCompression: {3}, tagBits: {1}, tagT4Options: {4}}), ErrUnsupportedFormat, "options 4"},
		{"fax that is none", makeTIFF(8, 8, one, madeTags{tagCompression: {4}, tagBits: {1}}), ErrUnsupportedFormat, "fax"},
		{"YCbCr", makeTIFF(8, 8, one, madeTags{tagPhotometric: {6}}), ErrUnsupportedFormat, "YCbCr"},
		{"Lab", makeTIFF(8, 8, one, madeTags{tagPhotometric: {8}}), ErrUnsupportedFormat, "Lab"},
		{"12 bits", makeTIFF(8, 8, one, madeTags{tagBits: {12}}), ErrUnsupportedFormat, "12 bits"},
		{"32 bits", makeTIFF(8, 8, one, madeTags{tagBits: {32}}), ErrUnsupportedFormat, "32 bits"},
		{"floating point", makeTIFF(8, 8, one, madeTags{tagBits: {32}, tagSampleFormat: {3}}), ErrUnsupportedFormat, "floating-point"},
		{"16 bits, white is zero", makeTIFF(8, 4, one, madeTags{tagBits: {16}, tagPhotometric: {0}}), ErrUnsupportedFormat, "16 bits"},
		{"no bits", makeTIFF(8, 8, one, madeTags{tagBits: {0}}), ErrUnsupportedFormat, "0 bits"},
		{"no samples", makeTIFF(8, 8, one, madeTags{tagSamples: {0}}), ErrUnsupportedFormat, "0 samples"},
		{"many samples", makeTIFF(8, 8, one, madeTags{tagSamples: {7}}), ErrUnsupportedFormat, "7 samples"},
		{"mixed samples", makeTIFF(8, 2, one, madeTags{tagPhotometric: {2}, tagSamples: {3}, tagBits: {5, 6, 5}}), ErrUnsupportedFormat, "different lengths"},
		{"16-bit CMYK", makeTIFF(8, 1, one, madeTags{tagPhotometric: {5}, tagSamples: {4}, tagBits: {16}}), ErrUnsupportedFormat, "16 bits"},
		{"no palette", makeTIFF(8, 8, one, madeTags{tagPhotometric: {3}}), ErrUnsupportedFormat, "photometric interpretation 3"},
		{"predictor 3", makeTIFF(8, 8, one, madeTags{tagCompression: {5}, tagPredictor: {3}}), ErrUnsupportedFormat, "predictor 3"},
		{"predictor of 4 bits", makeTIFF(8, 8, one, madeTags{tagBits: {4}, tagCompression: {5}, tagPredictor: {2}}), ErrUnsupportedFormat, "of 4 bits"},
		{"fill order 3", makeTIFF(8, 8, one, madeTags{tagFillOrder: {3}}), ErrUnsupportedFormat, "fill order 3"},
		{"planar configuration 3", makeTIFF(8, 8, one, madeTags{tagPlanar: {3}}), ErrUnsupportedFormat, "planar configuration 3"},
		{"planes of CMYK", makeTIFF(8, 4, half, madeTags{tagPlanar: {2}, tagPhotometric: {5}, tagSamples: {4}}), ErrUnsupportedFormat, "CMYK"},
		{"planes with associated alpha", makeTIFF(8, 4, half, madeTags{tagPlanar: {2}, tagPhotometric: {2}, tagSamples: {4}, tagExtraSamples: {1}}), ErrUnsupportedFormat, "associated"},
		{"raw planes of 16 bits", makeTIFF(8, 4, half, madeTags{tagPlanar: {2}, tagPhotometric: {2}, tagSamples: {3}, tagBits: {16}}), ErrUnsupportedFormat, "planes"},
		{"strips and tiles", makeTIFF(8, 8, one, madeTags{tagTileWidth: {16}, tagTileLength: {16}, tagStripOffsets: {8}}), ErrUnsupportedFormat, "strips and tiles"},
		{"tile of no size", makeTIFF(8, 8, one, madeTags{tagTileWidth: {0}, tagTileLength: {16}}), ErrCorrupt, "0 x 16"},
		{"tile of any size", makeTIFF(8, 8, one, madeTags{tagTileWidth: {1 << 31}, tagTileLength: {1 << 31}}), ErrUnsupportedFormat, "tiles of"},
		{"tile of half a screen", makeTIFF(1, 64, [][]byte{deflated(make([]byte, 8000*64))},
			madeTags{tagCompression: {8}, tagTileWidth: {60000}, tagTileLength: {64}}), ErrUnsupportedFormat, "tiles of 60000 x 64"},
	})
}

// decodeSpent decodes b and tells what was spent.
func decodeSpent(t testing.TB, ctx context.Context, b []byte) (p Image, plan Plan, spent int64, err error) {
	t.Helper()
	if plan, err = goDecoder.Inspect(b); err != nil {
		return Image{}, plan, 0, err
	}
	run := &task{ctx: ctx, work: plan.Work}
	p, err = plan.decode(run)
	if run.spent > plan.Work || plan.Work > int64(64*len(b)+64*plan.Width*plan.Height) {
		t.Errorf("spent %d of %d, for %d bytes and %d x %d pixels", run.spent, plan.Work, len(b), plan.Width, plan.Height)
	}
	return p, plan, run.spent, err
}

// TestTIFFSharedStrips has strips that all are the same bytes. They are read again and again where they are not
// compressed, since they have no more than their pixels need; else nothing of them is touched.
func TestTIFFSharedStrips(t *testing.T) {
	const strips = 1000
	at := slices.Repeat([]uint32{8}, strips)
	for compression, compress := range compressors {
		block := compress(make([]byte, 8), 10_000)
		b := makeTIFF(8, strips, [][]byte{block}, madeTags{tagCompression: {compression}, tagRowsPerStrip: {1},
			tagStripOffsets: at, tagStripByteCounts: slices.Repeat([]uint32{uint32(len(block))}, strips)})
		_, _, spent, err := decodeSpent(t, t.Context(), b)
		if !errors.Is(err, ErrUnsupportedFormat) || !strings.Contains(err.Error(), "share") || spent != 0 {
			t.Errorf("compression %d: %d bytes spent: %v", compression, spent, err)
		}
	}
	p, _, _, err := decodeSpent(t, t.Context(), makeTIFF(8, strips, [][]byte{make([]byte, 8)}, madeTags{tagRowsPerStrip: {1},
		tagStripOffsets: at, tagStripByteCounts: slices.Repeat([]uint32{math.MaxUint32}, strips)}))
	if err != nil {
		t.Error(err)
	}
	p.Release()
}

// TestTIFFIdle has a strip that is long and makes no pixels for most of it: it is read once, and no further than
// the end of ctx.
func TestTIFFIdle(t *testing.T) {
	const idle = 1_000_000
	gray := []byte("\x00\x01\x02\x03\x04\x05\x06\x07")
	for compression, compress := range compressors {
		b := makeTIFF(4, 2, [][]byte{compress(gray, idle)}, madeTags{tagCompression: {compression}})
		p, _, spent, err := decodeSpent(t, t.Context(), b)
		if err != nil || spent > int64(len(b)+1000) || spent < idle || p.Pix[3*7] != 7 {
			t.Errorf("compression %d: %d bytes spent: %v", compression, spent, err)
		}
		p.Release()
		gone, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("gone")
		cancel(cause)
		p, _, spent, err = decodeSpent(t, gone, b)
		if !errors.Is(err, cause) || spent > 80<<10 {
			t.Errorf("compression %d, after the end of its context: %d bytes spent: %v", compression, spent, err)
		}
		p.Release()
	}
}
