package decode

import (
	"bytes"
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
	huge := newPicture(maxPooled/3+1, 1)
	huge.Release()
	for _, size := range kept() { // small ones may be left from other tests
		if size > maxPooled {
			t.Errorf("a buffer of %d bytes is kept", size)
		}
	}
	found := false
	for range 20 { // the race detector makes pools forget
		largest := newPicture(maxPooled/3, 1)
		largest.Release()
		found = found || slices.Contains(kept(), maxPooled)
	}
	if !found {
		t.Errorf("no buffer of %d bytes is ever kept", maxPooled)
	}
}

// TestEstimates compares what the header promises with what is allocated, at least and not several times over.
func TestEstimates(t *testing.T) {
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
	for _, c := range []struct {
		name, format string
		b            []byte
	}{
		{"16-bit RGBA", PNG, encoded(t, png.Encode, image.NewNRGBA64(image.Rect(0, 0, 1000, 1000)))},
		{"8-bit RGBA", PNG, encoded(t, png.Encode, image.NewNRGBA(r))},
		{"RGB", PNG, encoded(t, png.Encode, opaque)},
		{"palette", PNG, encoded(t, png.Encode, image.NewPaletted(r, palette.WebSafe))},
		{"one row", PNG, encoded(t, png.Encode, image.NewNRGBA64(image.Rect(0, 0, 1<<20, 1)))},
		{"palette", GIF, encoded(t, toGIF, image.NewPaletted(r, palette.WebSafe))},
		{"RGBA", BMP, encoded(t, bmp.Encode, image.NewNRGBA(r))},
		{"RGB", JPEG, encoded(t, toJPEG, opaque)},
		{"gray", JPEG, encoded(t, toJPEG, image.NewGray(r))},
		{"progressive", JPEG, read(t, "pixels", "hd_progressive.jpg")},
		{"CMYK", JPEG, read(t, "pixels", "cmyk.jpg")},
		{"deflate", TIFF, encoded(t, inflate, image.NewNRGBA(r))},
		{"16-bit deflate", TIFF, encoded(t, inflate, image.NewNRGBA64(image.Rect(0, 0, 1000, 1000)))},
		{"raw", TIFF, encoded(t, raw, image.NewNRGBA(r))},
	} {
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
			// A quarter of the packed pixels may be wasted, and decoders have tables. A buffer that grows
			// allocates twice as much under the race detector.
			const tables = 1 << 20
			took, most := int64(after.TotalAlloc-before.TotalAlloc), held+held/4+tables
			if c.format == TIFF {
				most = 2 * held
			}
			if took > most || held > 3*took+tables {
				t.Errorf("%d bytes were allocated, %d reserved", took, held)
			}
			t.Logf("%d of %d", took, held)
		})
	}
}
