package decode

import (
	"bytes"
	"image"
	"image/gif"
	"slices"
	"testing"

	"golang.org/x/image/bmp"
)

func FuzzBMP(f *testing.F) {
	addFiles(f, "testdata/pil/*.bmp", 10)
	d := newDecoder(Config{MaxPixels: 100_000, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := fuzzCost(t, b, d.planBMP, indexedMemory)
		defer p.Release()
		if !ok {
			return // the size is not to be trusted
		}
		m, err := bmp.Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		if m, ok := m.(*image.Paletted); ok && int(slices.Max(m.Pix)) >= len(m.Palette) {
			return // it has no colour for these
		}
		if !bytes.Equal(p.Pix, goPixels(t, m)) {
			t.Error("other pixels than golang.org/x/image/bmp")
		}
	})
}

func FuzzGIF(f *testing.F) {
	addFiles(f, "testdata/pil/*.gif", 10)
	d := newDecoder(Config{MaxPixels: 100_000, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := fuzzCost(t, b, d.planGIF, indexedMemory)
		defer p.Release()
		if !ok || bytes.Contains(b, []byte("!\x01")) { // a text is read by another rule there
			return
		}
		decoded, err := gif.Decode(bytes.NewReader(b))
		m, ok := decoded.(*image.Paletted)
		if err != nil || !ok {
			return
		}
		colors, ramp := make([][3]byte, len(m.Palette)), grayTable(8)
		for i, c := range m.Palette {
			colors[i] = goColor(t, c)
		}
		if slices.Equal(colors, ramp[:len(colors)]) {
			return // a global palette counts more
		}
		for y := m.Rect.Min.Y; y < m.Rect.Max.Y; y++ {
			for x := m.Rect.Min.X; x < m.Rect.Max.X; x++ {
				index := m.ColorIndexAt(x, y)
				if _, _, _, a := m.Palette[index].RGBA(); a == 0 {
					continue // its colour is forgotten there
				}
				if got := [3]byte(p.Pix[3*(y*p.Width+x):]); got != colors[index] {
					t.Fatalf("%v at %d, %d, image/gif has %v", got, x, y, colors[index])
				}
			}
		}
	})
}

// indexedMemory is what a BMP or GIF of so many pixels may take.
func indexedMemory(pixels int) int64 { return int64(4*pixels + 128<<10) }
