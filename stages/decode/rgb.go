package decode

import (
	"fmt"
	"image"
	"image/color"
)

// fromImage packs what a Go decoder returned into a picture. Alpha is dropped, not blended; 16-bit samples
// are cut to their high byte.
func fromImage(m image.Image) (Picture, error) {
	r := m.Bounds()
	if r.Min != (image.Point{}) || r.Empty() {
		return Picture{}, fmt.Errorf("%w: decoded to the rectangle %v", ErrCorrupt, r)
	}
	row := rowPacker(m)
	if row == nil {
		return Picture{}, unsupported(fmt.Sprintf("pixels of type %T", m))
	}
	p := newPicture(r.Dx(), r.Dy())
	for y := range p.Height {
		row(p.Pix[3*y*p.Width:][:3*p.Width], y)
	}
	return p, nil
}

// rowPacker returns the function that writes row y of m as packed RGB, or nil for an unknown type.
func rowPacker(m image.Image) func(out []byte, y int) {
	switch m := m.(type) {
	case *image.Gray:
		return grays(m.Pix, m.Stride, 1)
	case *image.Gray16:
		return grays(m.Pix, m.Stride, 2)
	case *image.NRGBA:
		return samples(m.Pix, m.Stride, 1)
	case *image.NRGBA64:
		return samples(m.Pix, m.Stride, 2)
	case *image.RGBA: // opaque in every decoder used here
		return samples(m.Pix, m.Stride, 1)
	case *image.RGBA64:
		return samples(m.Pix, m.Stride, 2)
	case *image.CMYK:
		return func(out []byte, y int) {
			in := m.Pix[y*m.Stride:]
			for i, o := 0, 0; o < len(out); i, o = i+4, o+3 {
				out[o], out[o+1], out[o+2] = fromInks(in[i], in[i+1], in[i+2], in[i+3])
			}
		}
	case *image.Paletted:
		colors := paletteRGB(m.Palette)
		return func(out []byte, y int) {
			for x, index := range m.Pix[y*m.Stride:][:len(out)/3] {
				c := &colors[index]
				out[3*x], out[3*x+1], out[3*x+2] = c[0], c[1], c[2]
			}
		}
	case *image.YCbCr:
		shift := map[image.YCbCrSubsampleRatio]int{image.YCbCrSubsampleRatio422: 1, image.YCbCrSubsampleRatio420: 1,
			image.YCbCrSubsampleRatio411: 2, image.YCbCrSubsampleRatio410: 2}[m.SubsampleRatio]
		return func(out []byte, y int) {
			luma, c := m.Y[y*m.YStride:], m.COffset(0, y)
			for x := range len(out) / 3 {
				i := c + x>>shift
				out[3*x], out[3*x+1], out[3*x+2] = color.YCbCrToRGB(luma[x], m.Cb[i], m.Cr[i])
			}
		}
	}
	return nil
}

// grays packs one sample of size bytes a pixel.
func grays(pix []byte, stride, size int) func(out []byte, y int) {
	return func(out []byte, y int) {
		in := pix[y*stride:]
		for i, o := 0, 0; o < len(out); i, o = i+size, o+3 {
			out[o], out[o+1], out[o+2] = in[i], in[i], in[i]
		}
	}
}

// samples packs four samples of size bytes a pixel, of which the fourth is dropped.
func samples(pix []byte, stride, size int) func(out []byte, y int) {
	return func(out []byte, y int) {
		in := pix[y*stride:]
		for i, o := 0, 0; o < len(out); i, o = i+4*size, o+3 {
			out[o], out[o+1], out[o+2] = in[i], in[i+size], in[i+2*size]
		}
	}
}

// fromInks converts CMYK, 255 being full ink, as PIL does: what black leaves, less the share of each ink.
func fromInks(c, m, y, k byte) (r, g, b byte) {
	left := 255 - int(k)
	return byte(left - share(c, left)), byte(left - share(m, left)), byte(left - share(y, left))
}

// share returns a*b/255, rounded.
func share(a byte, b int) int {
	t := int(a)*b + 128
	return (t>>8 + t) >> 8
}

// paletteRGB returns the colours of a palette without alpha; entries that it lacks are black.
func paletteRGB(palette color.Palette) (colors [256][3]byte) {
	for i, c := range palette[:min(len(palette), 256)] {
		switch c := c.(type) {
		case color.RGBA: // opaque in every decoder used here
			colors[i] = [3]byte{c.R, c.G, c.B}
		case color.NRGBA:
			colors[i] = [3]byte{c.R, c.G, c.B}
		case color.RGBA64:
			colors[i] = [3]byte{byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)}
		}
	}
	return colors
}
