package decode

import (
	"image"
	"image/color"
)

// fromJPEG packs what image/jpeg returned.
func (t *task) fromJPEG(m image.Image) (Image, error) {
	row := rowPacker(m)
	if row == nil {
		return Image{}, unsupported("JPEG: pixels of type %T", m)
	}
	p := newImage(m.Bounds().Dx(), m.Bounds().Dy())
	for y := range p.Height {
		row(p.Pix[3*y*p.Width:][:3*p.Width], y)
		if err := t.spend(6 * p.Width); err != nil {
			return p, err
		}
	}
	return p, nil
}

// rowPacker returns the function that writes row y of m as packed RGB, or nil for an unknown type.
func rowPacker(m image.Image) func(out []byte, y int) {
	switch m := m.(type) {
	case *image.Gray:
		return func(out []byte, y int) {
			for x, v := range m.Pix[y*m.Stride:][:len(out)/3] {
				out[3*x], out[3*x+1], out[3*x+2] = v, v, v
			}
		}
	case *image.RGBA: // opaque
		return func(out []byte, y int) {
			for in := m.Pix[y*m.Stride:]; len(out) > 0; in, out = in[4:], out[3:] {
				copy(out[:3], in)
			}
		}
	case *image.CMYK:
		return func(out []byte, y int) {
			in := m.Pix[y*m.Stride:]
			for i, o := 0, 0; o < len(out); i, o = i+4, o+3 {
				out[o], out[o+1], out[o+2] = fromInks(in[i], in[i+1], in[i+2], in[i+3])
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
