package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"

	"golang.org/x/image/webp"
)

func (d *Decoder) planWebP(b []byte) (Plan, error) {
	if n := uint64(binary.LittleEndian.Uint32(b[4:])); n+8 > uint64(len(b)) {
		return Plan{}, fmt.Errorf("%w: WebP: %d of %d bytes", ErrTruncated, len(b), n+8)
	}
	if animated(b) {
		return d.planAnimation(b)
	}
	config, err := webp.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return Plan{}, classify(WebP, err)
	}
	if err := d.checkSize(config.Width, config.Height); err != nil {
		return Plan{}, err
	}
	own := webpSize(config.ColorModel == color.YCbCrModel) * config.Width * config.Height
	return newPlan(config.Width, config.Height, own, len(b)+2*own, orientation(webpExif(b)), func(t *task) (Picture, error) {
		return t.webpPixels(b)
	}), nil
}

// webpSize returns how many bytes a pixel the decoder takes.
func webpSize(lossy bool) int {
	if lossy {
		return 2 // 4:2:0 in whole blocks
	}
	return 8 // lossless, or with a lossless picture for the alpha; its palette is expanded into a copy
}

// webpPixels decodes a file whose size has been judged.
func (t *task) webpPixels(b []byte) (Picture, error) {
	m, err := webp.Decode(t.reader(b))
	if err != nil {
		return Picture{}, t.classify(WebP, err)
	}
	switch m := m.(type) {
	case *image.YCbCr:
		return fromVP8(m), nil
	case *image.NYCbCrA:
		return fromVP8(&m.YCbCr), nil
	}
	return t.fromImage(m)
}

// fromVP8 converts the 4:2:0 samples of lossy WebP. They are of limited range (16 to 235), unlike what Go's
// own conversion of image.YCbCr assumes, and libwebp interpolates chroma: each pixel takes 9/16 of the
// nearest sample, 3/16 of the next one in its row and in its column, 1/16 of the one across.
func fromVP8(m *image.YCbCr) Picture {
	p := newPicture(m.Rect.Dx(), m.Rect.Dy())
	columns, rows := (p.Width+1)/2, (p.Height+1)/2
	for y := range p.Height {
		// The rows of chroma: the nearer one, and the one on the other side of the pixel.
		near := y / 2
		far := min(max(near-1+y%2*2, 0), rows-1)
		cb, cb2 := m.Cb[near*m.CStride:][:columns], m.Cb[far*m.CStride:][:columns]
		cr, cr2 := m.Cr[near*m.CStride:][:columns], m.Cr[far*m.CStride:][:columns]
		luma := m.Y[y*m.YStride:][:p.Width]
		out := p.Pix[3*y*p.Width:][:3*p.Width]
		for x, l := range luma {
			i := x / 2
			j := min(max(i-1+x%2*2, 0), columns-1)
			u := (9*int(cb[i]) + 3*int(cb[j]) + 3*int(cb2[i]) + int(cb2[j]) + 8) >> 4
			v := (9*int(cr[i]) + 3*int(cr[j]) + 3*int(cr2[i]) + int(cr2[j]) + 8) >> 4
			out[3*x], out[3*x+1], out[3*x+2] = fromYUV(int(l), u, v)
		}
	}
	return p
}

// fromYUV converts one pixel of limited range (ITU-R BT.601) in the fixed-point arithmetic of libwebp:
// factors in 1/2^14 of 255/219 for luma and of the chroma terms, products cut to 1/2^6.
func fromYUV(y, u, v int) (r, g, b byte) {
	l := y * 19077 >> 8
	return clip6(l + v*26149>>8 - 14234), clip6(l - u*6419>>8 - v*13320>>8 + 8708), clip6(l + u*33050>>8 - 17685)
}

// clip6 drops six fractional bits and limits to a byte.
func clip6(v int) byte { return byte(min(max(v>>6, 0), 255)) }
