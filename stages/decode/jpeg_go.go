package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"sync"
)

// planGoJPEG is the way without libturbojpeg. It is stricter than PIL: every damage is an error, and some kinds of
// file that PIL reads are not supported.
func (d *Decoder) planGoJPEG(b []byte, info jpegInfo) (Plan, error) {
	switch {
	case info.arithmetic():
		return Plan{}, needsTurbo("arithmetic coding")
	case info.longRestarts:
		// Go counts these intervals in groups of blocks where the standard has blocks.
		return Plan{}, needsTurbo("restart markers in scans of one component")
	}
	own := info.padded() // the planes
	if info.progressive() {
		const size = 4 // bytes of a coefficient
		own += size * info.padded()
	}
	ids := ""
	for _, c := range info.components {
		ids += string(rune(c.id))
	}
	if len(info.components) == 4 || info.adobeRGB || ids == "RGB" {
		own += 4 * info.width * info.height // converted into a second image
	}
	own += info.endMemory(b)
	work := len(b) + 2 + 8*info.samples + 2*own + 6*info.width*info.height
	return newPlan(info.width, info.height, own, work, orientation(info.exif), func(t *task) (Image, error) {
		if err := t.spend(8*info.samples + 2*own); err != nil {
			return Image{}, err
		}
		b := info.withEnd(b)
		var r io.Reader = &source{task: t, b: b}
		if !info.progressive() {
			// An image without Huffman tables means the standard ones. Those in the file come later and count.
			r = io.MultiReader(bytes.NewReader(b[:2]), bytes.NewReader(standardTables()), &source{task: t, b: b[2:]})
		}
		m, err := jpeg.Decode(r)
		if err != nil {
			return Image{}, info.goError(err)
		}
		return t.fromJPEG(m)
	}), nil
}

// standardTables returns the Huffman tables of ITU T.81, annex K, as a segment: Go's encoder writes no others.
var standardTables = sync.OnceValue(func() []byte {
	var file bytes.Buffer
	if err := jpeg.Encode(&file, image.NewRGBA(image.Rect(0, 0, 1, 1)), nil); err != nil {
		panic(err) // a buffer takes everything
	}
	b := file.Bytes()[bytes.Index(file.Bytes(), []byte{0xFF, markDHT}):]
	return b[:2+int(binary.BigEndian.Uint16(b[2:]))]
})

// needsTurbo is for files that only libturbojpeg reads.
func needsTurbo(what string) error {
	return unsupported("JPEG: %s (it takes libturbojpeg, which is not installed)", what)
}

func (info *jpegInfo) goError(err error) error {
	feature := jpeg.UnsupportedError("")
	switch {
	case errors.As(err, &feature):
		return needsTurbo(string(feature))
	case info.endless:
		return truncated("JPEG: without its end marker: %v", err)
	}
	return classify(JPEG, err)
}

// fromJPEG packs what image/jpeg returned.
func (t *task) fromJPEG(m image.Image) (Image, error) {
	row := rowPacker(m)
	if row == nil {
		return Image{}, unsupported("JPEG: pixels of type %T", m)
	}
	p := newImage(m.Bounds().Dx(), m.Bounds().Dy())
	return p, t.rows(p, 6*p.Width, row)
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
		return func(out []byte, y int) { unpackInks(out, m.Pix[y*m.Stride:], 4, 0) }
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
