package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"runtime"
	"slices"
	"strings"
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

// watched is a context that ends when it has been looked at so many times, and notes how much work was done then.
type watched struct {
	context.Context
	run     *task
	looks   int
	at      int64 // spent at the last look
	ended   bool
	longest int64 // work between two looks
}

func (c *watched) Err() error {
	if c.ended {
		return context.DeadlineExceeded
	}
	c.longest = max(c.longest, c.run.spent-c.at)
	c.at = c.run.spent
	if c.looks--; c.looks < 0 {
		c.ended = true
		return context.DeadlineExceeded
	}
	return nil
}

// costlyFile is an image and the error that decoding it ends with, nil for none.
type costlyFile struct {
	name string
	b    []byte
	err  error
}

// costlyFiles are those of largeFiles and others that make the most of their bytes.
func costlyFiles(t testing.TB) []costlyFile {
	files := costlyIndexed()
	for _, f := range largeFiles(t) {
		files = append(files, costlyFile{f.format + " " + f.name, f.b, nil})
	}
	for _, kinds := range [][]int{nil, {predictor}, {crossColor}, {subtractGreen}, {colorIndexing}} {
		files = append(files, costlyFile{fmt.Sprint("VP8L, transforms ", kinds), webpOf(solidVP8L(800, 600, kinds...)), nil})
	}
	return append(files,
		costlyFile{"PNG of 1 bit", pngOf("IHDR\x00\x00\x03\xe8\x00\x00\x03\xe8\x01\x03\x00\x00\x00", "IDAT"+string(deflated(make([]byte, 1000*(1+125))))), nil},
		costlyFile{"PNG of empty chunks", pngOf(slices.Concat([]string{smallIHDR}, slices.Repeat([]string{"IDAT"}, 100_000), []string{smallRows})...), nil},
		costlyFile{"PNG of empty blocks", pngOf(smallIHDR, smallRows[:6]+strings.Repeat("\x00\x00\x00\xff\xff", 100_000)+smallRows[6:]), nil})
}

// TestEnds ends the context of every kind of image at the beginning, in the middle and near the end: what is still done
// then is bounded, and so is what is done between two looks at it. What is done in one go is spent before it begins: by
// libraries, and when an image is turned. The plan covers the work, and GIF and BMP cost no more than their bytes and pixels.
func TestEnds(t *testing.T) {
	const (
		most  = 256 << 10 // bytes
		never = 1 << 40
	)
	for name, d := range decoders(t, exact) {
		for _, c := range costlyFiles(t) {
			plan, err := d.Inspect(c.b)
			if err != nil {
				t.Fatal(c.name, err)
			}
			if name == "go" && plan.Format != JPEG {
				continue
			}
			t.Run(name+"/"+c.name, func(t *testing.T) {
				pixels := plan.Width * plan.Height
				if honest := int64(2*len(c.b) + 7*pixels); (plan.Format == GIF || plan.Format == BMP) && plan.Work > honest {
					t.Errorf("work %d, at most %d is honest", plan.Work, honest)
				}
				decode := func(looks int) (*watched, error) {
					ctx := &watched{Context: t.Context(), looks: looks}
					ctx.run = &task{ctx: ctx, work: plan.Work}
					p, err := plan.run(ctx.run)
					p.Release()
					return ctx, err
				}
				whole, err := decode(never)
				if !errors.Is(err, c.err) {
					t.Fatalf("%v, want %v", err, c.err)
				}
				looks := never - whole.looks
				if plan.Format != JPEG && whole.longest > most+int64(plan.turning()) {
					t.Errorf("%d bytes of work between two looks", whole.longest)
				}
				least := 3 * pixels
				if plan.Orientation > 1 {
					least *= 3 // read and written once more
				}
				if err == nil && whole.run.spent < int64(least) {
					t.Errorf("%d bytes of work for %d x %d pixels", whole.run.spent, plan.Width, plan.Height)
				}
				for _, n := range []int{0, looks / 2, looks - 1} {
					ctx, err := decode(n)
					if !errors.Is(err, context.DeadlineExceeded) || ctx.run.spent > ctx.at+most {
						t.Errorf("ended after %d looks of %d, %d bytes later: %v", n, looks, ctx.run.spent-ctx.at, err)
					}
				}
			})
		}
	}
}

// TestLong plans images whose bytes take much longer than those of others: each takes half a second or more, and few
// pixels or little memory. Two of them would hold both decode workers if they did not count as long.
func TestLong(t *testing.T) {
	comments := strings.Repeat("\xff\xfe\xff\xff"+string(make([]byte, 0xFFFD)), 32)
	lossy := func(n int) []byte {
		return webpOf("VP8 \x10\x00\x00\x9d\x01\x2a\x40\x00\x40\x00" + string(make([]byte, n)))
	}
	d := newDecoder(exact, 224, &turboLib{})
	for _, c := range []struct {
		name string
		b    []byte
		long bool
	}{
		{"arithmetic-coded JPEG", jpegWith(read(t, "pil", "arithmetic.jpg"), comments), true},
		{"JPEG", jpegWith(read(t, "pil", "progressive_gray.jpg"), comments), false},
		{"lossy WebP", lossy(4 << 20), true},
		{"small lossy WebP", lossy(1 << 20), false},
		{"PNG of short rows", pngOf(ihdr(1, 8<<20, "\x01\x00\x00\x00\x00"), "IDAT"+strings.Repeat("x", 20<<10)), true},
		{"PNG of long rows", pngOf(ihdr(8<<20, 1, "\x01\x00\x00\x00\x00"), "IDAT"+strings.Repeat("x", 20<<10)), false},
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
