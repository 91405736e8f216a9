package decode

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

func encoded(t testing.TB, encode func(io.Writer, image.Image) error, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPoolKeepsNothingHuge looks for released buffers in the pools.
func TestPoolKeepsNothingHuge(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	kept := func() (sizes []int) {
		for i := range pools {
			for b, _ := pools[i].Get().(*buffer); b != nil; b, _ = pools[i].Get().(*buffer) {
				sizes = append(sizes, cap(b.bytes))
			}
		}
		return sizes
	}
	huge := newImage(maxPooled/3+1, 1)
	huge.Release()
	for _, size := range kept() { // small ones may be left from other tests
		if size > maxPooled {
			t.Errorf("a buffer of %d bytes is kept", size)
		}
	}
	found := false
	for range 20 { // the race detector makes pools forget
		largest := newImage(maxPooled/3, 1)
		largest.Release()
		found = found || slices.Contains(kept(), maxPooled)
	}
	if !found {
		t.Errorf("no buffer of %d bytes is ever kept", maxPooled)
	}
}

type largeFile struct {
	name, format string
	b            []byte
}

// largeFiles are a million pixels or two of every format and of kinds that cost differently.
func largeFiles(t testing.TB) []largeFile {
	r := image.Rect(0, 0, 1500, 1500)
	inflate := func(w io.Writer, m image.Image) error {
		return tiff.Encode(w, m, &tiff.Options{Compression: tiff.Deflate})
	}
	raw := func(w io.Writer, m image.Image) error { return tiff.Encode(w, m, nil) }
	toGIF := func(w io.Writer, m image.Image) error { return gif.Encode(w, m, nil) }
	toJPEG := func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) }
	opaque := image.NewRGBA(r)
	for i := range opaque.Pix {
		opaque.Pix[i] = 0xFF
	}
	return []largeFile{
		{"16-bit RGBA", PNG, encoded(t, png.Encode, image.NewNRGBA64(image.Rect(0, 0, 1000, 1000)))},
		{"8-bit RGBA", PNG, encoded(t, png.Encode, image.NewNRGBA(r))},
		{"RGB", PNG, encoded(t, png.Encode, opaque)},
		{"palette", PNG, encoded(t, png.Encode, image.NewPaletted(r, palette.WebSafe))},
		{"one row", PNG, encoded(t, png.Encode, image.NewNRGBA64(image.Rect(0, 0, 1<<20, 1)))},
		{"interlaced 16-bit RGBA", PNG, pngOf("IHDR\x00\x00\x03\xe8\x00\x00\x03\xe8\x10\x06\x00\x00\x01", "IDAT"+string(deflated(make([]byte, 8_100_000))))},
		{"1-bit gray", PNG, pngOf("IHDR\x00\x00\x07\xd0\x00\x00\x07\xd0\x01\x00\x00\x00\x00", "IDAT"+string(deflated(make([]byte, 251*2000))))},
		{"turned", PNG, pngOf("IHDR\x00\x00\x07\xd0\x00\x00\x07\xd0\x01\x00\x00\x00\x00", "eXIf"+string(block(binary.LittleEndian, tagOrientation, shortType, 1, 6)), "IDAT"+string(deflated(make([]byte, 251*2000))))},
		{"lossless", WebP, webpOf(solidVP8L(1500, 1500))},
		{"lossless with all transforms", WebP, webpOf(solidVP8L(1500, 1500, predictor, crossColor, subtractGreen, colorIndexing))},
		{"VP8X around lossless", WebP, webpOf(vp8x(0, 1500, 1500), solidVP8L(1500, 1500))},
		{"lossy", WebP, read(t, "pil", "webp_lossy_large.webp")},
		{"animated", WebP, animation(image.Pt(1600, 1600), image.Pt(2, 2), image.Pt(1500, 1499), read(t, "pil", "webp_lossy_large.webp"))},
		{"palette", GIF, encoded(t, toGIF, image.NewPaletted(r, palette.WebSafe))},
		{"small frame", GIF, gifOf(image.Pt(1500, 1500), image.Rect(3, 3, 4, 4), nil, 2, []byte{1, 0x4C, 0})},
		{"RGBA", BMP, encoded(t, bmp.Encode, image.NewNRGBA(r))},
		{"palette", BMP, encoded(t, bmp.Encode, image.NewPaletted(r, palette.WebSafe))},
		{"16 bits", BMP, bmpOf(40, 1500, 1500, 16, 0, make([]byte, 2*1500*1500))},
		{"run lengths", BMP, bmpOf(40, 1500, 1500, 8, 1, make([]byte, 4*256), bytes.Repeat([]byte{250, 1, 250, 1, 250, 1, 250, 1, 250, 1, 250, 1, 0, 0}, 1500))},
		{"RGB", JPEG, encoded(t, toJPEG, opaque)},
		{"gray", JPEG, encoded(t, toJPEG, image.NewGray(r))},
		{"progressive", JPEG, read(t, "pixels", "hd_progressive.jpg")},
		{"CMYK", JPEG, read(t, "pixels", "cmyk.jpg")},
		{"deflate", TIFF, encoded(t, inflate, image.NewNRGBA(r))},
		{"16-bit deflate", TIFF, encoded(t, inflate, image.NewNRGBA64(image.Rect(0, 0, 1000, 1000)))},
		{"raw", TIFF, encoded(t, raw, image.NewNRGBA(r))},
		{"LZW, strips of a row", TIFF, makeTIFF(1500, 1500, slices.Repeat([][]byte{lzwed(make([]byte, 3*1500), 0)}, 1500),
			madeTags{tagPhotometric: {2}, tagSamples: {3}, tagCompression: {tiffLZW}, tagRowsPerStrip: {1}})},
		{"deflate, tiles", TIFF, makeTIFF(1500, 1500, slices.Repeat([][]byte{deflated(make([]byte, 64*64))}, 24*24),
			madeTags{tagCompression: {tiffDeflate}, tagTileWidth: {64}, tagTileLength: {64}})},
		{"PackBits, planes, one row", TIFF, makeTIFF(1<<20, 1, slices.Repeat([][]byte{packed(make([]byte, 2<<20), 0)}, 3),
			madeTags{tagPhotometric: {2}, tagSamples: {3}, tagBits: {16}, tagCompression: {tiffPackBits}, tagPlanar: {2}})},
		{"fax", TIFF, makeTIFF(1500, 1500, [][]byte{bytes.Repeat([]byte{0xFF}, 200)}, madeTags{tagBits: {1}, tagCompression: {tiffGroup4}})},
		{"fax, one row", TIFF, makeTIFF(1<<20, 1, [][]byte{{0xFF}}, madeTags{tagBits: {1}, tagCompression: {tiffGroup4}})},
	}
}

// TestEstimates compares what the header promises with what is allocated, at least and not several times over.
func TestEstimates(t *testing.T) {
	for _, c := range largeFiles(t) {
		t.Run(c.format+" "+c.name, func(t *testing.T) {
			d := newDecoder(exact, 224, nil)
			var before, after runtime.MemStats
			runtime.GC() // pools empty
			runtime.GC()
			runtime.ReadMemStats(&before)
			plan, err := d.Inspect(c.b)
			if err != nil {
				t.Fatal(err)
			}
			p, err := d.Decode(t.Context(), plan)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			p.Release()
			held := plan.Memory
			// A quarter of the packed pixels may be wasted, and decoders have tables.
			const tables = 1 << 20
			took, most := int64(after.TotalAlloc-before.TotalAlloc), held+held/4+tables
			least := (held - tables) / 3
			if c.format == PNG || c.format == WebP {
				least = held*10/16 - tables
			}
			if took > most || took < least {
				t.Errorf("%d bytes were allocated, %d reserved", took, held)
			}
			t.Logf("%d of %d", took, held)
		})
	}
}

// TestNative demands that plans tell of what the C library allocates: the limit of the Go runtime is lowered by it.
func TestNative(t *testing.T) {
	for name, d := range decoders(t, exact) {
		for _, c := range largeFiles(t) {
			plan, err := d.Inspect(c.b)
			if err != nil {
				t.Fatal(c.name, err)
			}
			least := int64(0)
			if name == "turbo" && c.format == JPEG {
				if least = 64 << 10; c.name == "progressive" {
					least = 2 * 3 * int64(plan.Width*plan.Height) / 2 // coefficients of two bytes, of which 4:2:0 has half as many
				}
			}
			packed := int64(3 * plan.Width * plan.Height)
			if plan.Native < least || plan.Native > 0 && least == 0 || plan.Native > plan.Memory-packed {
				t.Errorf("%s: %s %s: %d bytes of %d are a library's, want %d or more", name, c.format, c.name, plan.Native, plan.Memory, least)
			}
		}
	}
}
