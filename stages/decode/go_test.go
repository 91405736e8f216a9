package decode

import (
	"image"
	"image/color"
	"testing"
)

// goPixels packs what a decoder of Go returned: without its alpha, samples of 16 bits cut to their high byte, and black
// where a palette lacks an index.
func goPixels(t testing.TB, m image.Image) (pix []byte) {
	r := m.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			var c color.Color = color.RGBA{}
			if p, ok := m.(*image.Paletted); !ok || int(p.ColorIndexAt(x, y)) < len(p.Palette) {
				c = m.At(x, y)
			}
			rgb := goColor(t, c)
			pix = append(pix, rgb[:]...)
		}
	}
	return pix
}

func goColor(t testing.TB, c color.Color) [3]byte {
	switch c := c.(type) {
	case color.Gray:
		return [3]byte{c.Y, c.Y, c.Y}
	case color.Gray16:
		return [3]byte{byte(c.Y >> 8), byte(c.Y >> 8), byte(c.Y >> 8)}
	case color.RGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.NRGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.RGBA64:
		return [3]byte{byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)}
	case color.NRGBA64:
		return [3]byte{byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)}
	case color.CMYK:
		r, g, b := fromInks(c.C, c.M, c.Y, c.K)
		return [3]byte{r, g, b}
	}
	t.Fatalf("a color of type %T", c)
	return [3]byte{}
}
