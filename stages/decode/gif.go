package decode

import (
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"io"
)

// planGIF plans the first frame. Where the frame does not fill the logical screen, the rest has the
// colour that PIL gives it: that of the transparent index, else of index 0.
func (d *Decoder) planGIF(b []byte) (Plan, error) {
	config, err := gif.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return Plan{}, classify(GIF, err)
	}
	if err := d.checkSize(config.Width, config.Height); err != nil {
		return Plan{}, err
	}
	own := 2 * config.Width * config.Height // an interlaced one is sorted into a copy
	return newPlan(config.Width, config.Height, own, len(b)+2*own, 1, func(t *task) (Picture, error) {
		return t.gifFrame(b, image.Rect(0, 0, config.Width, config.Height))
	}), nil
}

func (t *task) gifFrame(b []byte, screen image.Rectangle) (Picture, error) {
	// The Go decoder forgets the colour of the transparent index, so it is not told of the transparency:
	// its flag, the lowest bit of one byte, is cleared on the way.
	r := t.reader(b)
	background := 0
	if at := gifControl(b); at >= 0 && b[at]&1 != 0 {
		background = int(b[at+3])
		r = io.MultiReader(t.reader(b[:at]), bytes.NewReader([]byte{b[at] &^ 1}), t.reader(b[at+1:]))
	}
	m, err := gif.Decode(r)
	if err != nil {
		return Picture{}, t.classify(GIF, err)
	}
	frame, ok := m.(*image.Paletted)
	if !ok {
		return Picture{}, fmt.Errorf("%w: GIF: decoded to %T", ErrCorrupt, m)
	}
	if frame.Rect == screen {
		return t.fromImage(frame)
	}
	p := newPicture(screen.Dx(), screen.Dy())
	colors := paletteRGB(frame.Palette)
	for i := 0; i < len(p.Pix); i += 3 {
		copy(p.Pix[i:i+3], colors[background][:])
	}
	inside := frame.Rect.Intersect(screen)
	for y := inside.Min.Y; y < inside.Max.Y; y++ {
		row := frame.Pix[frame.PixOffset(inside.Min.X, y):][:inside.Dx()]
		out := p.Pix[3*(y*p.Width+inside.Min.X):]
		for x, index := range row {
			copy(out[3*x:3*x+3], colors[index][:])
		}
	}
	return p, nil
}

// gifControl returns the offset of the flags in the last graphic control extension before the first frame
// (GIF89a, sections 18 to 23), or -1. The flags are followed by a delay of two bytes and the transparent index.
func gifControl(b []byte) int {
	const header, extension, control = 13, 0x21, 0xF9
	found := -1
	if len(b) < header {
		return found
	}
	i := header
	if flags := b[10]; flags&0x80 != 0 {
		i += 3 << (flags&7 + 1)
	}
	for i+2 < len(b) && b[i] == extension {
		if b[i+1] == control && b[i+2] == 4 && i+7 < len(b) {
			found = i + 3
		}
		for i += 2; i < len(b) && b[i] != 0; {
			i += 1 + int(b[i])
		}
		i++
	}
	return found
}
