package stages

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"hailoclip/stages/decode"
)

// turned has the JPEG say that it is to be turned by 90 degrees to the right.
func turned(b []byte) []byte {
	exif := append([]byte("\xff\xe1\x00\x22Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"), 0, 0, 0, 0)
	return slices.Concat(b[:2], exif, b[2:])
}

func madeJPEG(t testing.TB, w, h, quality int, at func(x, y int) color.RGBA) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, at(x, y))
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func newTestShrinker(side int) *Shrinker {
	return NewShrinker(decode.Config{MaxPixels: 4 << 20, JPEGScale: decode.ScaleFast}, side, 2, decode.NewBudget(256<<20, math.MaxInt64, 2, 2))
}

// TestShrinker: what is larger becomes a smaller upright copy, the same each time; what is not, or would not save anything, stays as it is.
func TestShrinker(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(int, int) color.RGBA {
		return color.RGBA{uint8(random.Int()), uint8(random.Int()), uint8(random.Int()), 255}
	}
	halves := func(w int) func(x, y int) color.RGBA { // left red, right blue, with noise so that the file is large
		return func(x, y int) color.RGBA {
			c := noise(x, y)
			c.R, c.G, c.B = c.R/8, c.G/8, c.B/8
			if x < w/2 {
				c.R += 200
			} else {
				c.B += 200
			}
			return c
		}
	}
	s := newTestShrinker(64)
	wide, tall := madeJPEG(t, 400, 200, 100, halves(400)), madeJPEG(t, 200, 400, 100, noise)
	for _, c := range []struct {
		name          string
		image         []byte
		width, height int
	}{
		{"wide", wide, 128, 64}, {"tall", tall, 64, 128}, {"turned", turned(wide), 64, 128}, {"an odd one", madeJPEG(t, 333, 200, 100, noise), 106, 64},
	} {
		small, err := s.Shrink(t.Context(), c.image)
		if err != nil || len(small) >= len(c.image) || len(small) >= 3*c.width*c.height {
			t.Fatalf("%s: %d bytes of %d, %v", c.name, len(small), len(c.image), err)
		}
		again, _ := s.Shrink(t.Context(), c.image)
		m, err := jpeg.Decode(bytes.NewReader(small))
		if err != nil || m.Bounds().Dx() != c.width || m.Bounds().Dy() != c.height || !bytes.Equal(small, again) {
			t.Fatalf("%s: %v, %v, the same again: %v", c.name, m.Bounds(), err, bytes.Equal(small, again))
		}
		if c.name == "wide" || c.name == "turned" { // red at the left, or turned at the top
			first, last := color.RGBAModel.Convert(m.At(5, 5)).(color.RGBA), color.RGBAModel.Convert(m.At(c.width-5, c.height-5)).(color.RGBA)
			if first.R < 150 || first.B > 100 || last.B < 150 || last.R > 100 {
				t.Errorf("%s: %v and %v", c.name, first, last)
			}
		}
	}
	plain := image.NewPaletted(image.Rect(0, 0, 300, 300), color.Palette{color.Black})
	var flat bytes.Buffer
	if err := png.Encode(&flat, plain); err != nil {
		t.Fatal(err)
	}
	for name, same := range map[string][]byte{
		"as large": madeJPEG(t, 64, 300, 90, noise), "smaller": madeJPEG(t, 30, 40, 90, noise), "flat": flat.Bytes(), "a line": madeJPEG(t, 9000, 65, 90, noise),
	} {
		if got, err := s.Shrink(t.Context(), same); err != nil || !bytes.Equal(got, same) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(same), err)
		}
	}
	for name, c := range map[string]struct {
		image []byte
		want  error
	}{
		"none": {[]byte("no image"), decode.ErrNotImage}, "cut": {wide[:300], decode.ErrTruncated}, "too many pixels": {madeJPEG(t, 4097, 1025, 1, func(int, int) color.RGBA { return color.RGBA{} }), decode.ErrTooManyPixels},
	} {
		if _, err := s.Shrink(t.Context(), c.image); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	ended, end := context.WithCancelCause(t.Context())
	end(errors.New("enough"))
	if _, err := s.Shrink(ended, wide); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
	little := NewShrinker(decode.Config{MaxPixels: 64 << 20}, 64, 1, decode.NewBudget(16<<20, math.MaxInt64, 1, 1))
	if _, err := little.Shrink(t.Context(), madeJPEG(t, 3000, 3000, 1, func(int, int) color.RGBA { return color.RGBA{} })); !errors.Is(err, decode.ErrTooMuchMemory) {
		t.Errorf("beyond the budget: %v", err)
	}
}

// BenchmarkShrink makes a copy of 256 pixels of what a telephone takes: 12 million pixels, 3 MB.
func BenchmarkShrink(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	photo := madeJPEG(b, 4000, 3000, 90, func(x, y int) color.RGBA {
		n := random.IntN(24)
		return color.RGBA{uint8(x/20 + n), uint8(y/15 + n), uint8((x+y)/32 + n), 255}
	})
	s := newTestShrinker(256)
	s.decoder = decode.NewDecoder(decode.Config{MaxPixels: 16 << 20, JPEGScale: decode.ScaleExact}, 256)
	var small []byte
	for b.Loop() {
		var err error
		if small, err = s.Shrink(b.Context(), photo); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(photo)), "bytes")
	b.ReportMetric(float64(len(small)), "bytes_sent")
}
