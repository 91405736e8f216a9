package stages

import (
	"bytes"
	"image/color"
	"image/jpeg"
	"slices"
	"testing"
)

// TestThumbnail keeps the aspect ratio and the colour, makes nothing larger, and is the same each time.
func TestThumbnail(t *testing.T) {
	for _, c := range []struct{ w, h, width, height int }{
		{640, 480, 96, 72}, {480, 640, 72, 96}, {96, 96, 96, 96}, {97, 1, 96, 1}, {1, 5000, 1, 96}, {20, 10, 20, 10}, {1, 1, 1, 1},
	} {
		pix := slices.Repeat([]byte{200, 30, 60}, c.w*c.h)
		b, err := Thumbnail(Pixels{pix, c.w, c.h, 3 * c.w})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := Thumbnail(Pixels{pix, c.w, c.h, 3 * c.w})
		m, err := jpeg.Decode(bytes.NewReader(b))
		if err != nil || !bytes.Equal(b, again) || m.Bounds().Dx() != c.width || m.Bounds().Dy() != c.height {
			t.Fatalf("%+v: %v, %v, the same again: %v", c, m.Bounds(), err, bytes.Equal(b, again))
		}
		for _, at := range [][2]int{{0, 0}, {c.width - 1, c.height - 1}, {c.width / 2, c.height / 2}} {
			got := color.RGBAModel.Convert(m.At(at[0], at[1])).(color.RGBA)
			for i, want := range pix[:3] {
				if d := int([]byte{got.R, got.G, got.B}[i]) - int(want); d < -4 || d > 4 {
					t.Errorf("%+v: %v at %v, want %v", c, got, at, pix[:3])
				}
			}
		}
	}
	if _, err := Thumbnail(Pixels{make([]byte, 3*5_000_000), 5_000_000, 1, 3 * 5_000_000}); err == nil {
		t.Error("a line of 5 million pixels has a thumbnail")
	}
}
