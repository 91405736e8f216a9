package decode

import (
	"encoding/binary"
	"fmt"
	"image"
)

// webpFrame is the first frame of an animation.
type webpFrame struct {
	file   []byte          // the frame as a WebP file of its own
	lossy  bool            // and without alpha
	canvas image.Point     // the size of the animation
	place  image.Rectangle // of the frame on the canvas
}

// animated tells that b, a WebP file, is an animation.
func animated(b []byte) bool {
	const animation = 1 << 1
	return len(b) > 20 && string(b[12:16]) == "VP8X" && b[20]&animation != 0
}

// planAnimation plans the first frame.
func (d *Decoder) planAnimation(b []byte) (Plan, error) {
	f, err := firstFrame(b)
	if err != nil {
		return Plan{}, err
	}
	if err := d.checkSize(f.canvas.X, f.canvas.Y); err != nil {
		return Plan{}, err
	}
	own := (webpSize(f.lossy) + 3) * f.place.Dx() * f.place.Dy() // its pixels may be copied onto the canvas
	return newPlan(f.canvas.X, f.canvas.Y, own, 2*len(b)+2*own, orientation(webpExif(b)), func(t *task) (Picture, error) {
		p, err := t.webpPixels(f.file)
		if err != nil {
			return Picture{}, err
		}
		return f.onCanvas(p), nil
	}), nil
}

// firstFrame finds the first frame of an animation, which the Go decoder does not know: a chunk ANMF, which
// holds the chunks of a picture behind its place on the canvas (WebP container specification).
func firstFrame(b []byte) (f webpFrame, err error) {
	const signature, canvas, head = 12, 24, 16
	if len(b) < canvas+6 {
		return f, fmt.Errorf("%w: WebP: ends within the header", ErrTruncated)
	}
	f.canvas = image.Pt(1+uint24(b[canvas:]), 1+uint24(b[canvas+3:]))
	for name, data := range webpChunks(b[signature:]) {
		if name != "ANMF" {
			continue
		}
		if len(data) < head {
			return f, fmt.Errorf("%w: WebP: a frame of %d bytes", ErrCorrupt, len(data))
		}
		at := image.Pt(2*uint24(data), 2*uint24(data[3:]))
		f.place = image.Rectangle{at, at.Add(image.Pt(1+uint24(data[6:]), 1+uint24(data[9:])))}
		if !f.place.In(image.Rectangle{Max: f.canvas}) {
			return f, fmt.Errorf("%w: WebP: the frame %v is not on the canvas of %v", ErrCorrupt, f.place, f.canvas)
		}
		f.wrap(data[6:12], data[head:])
		return f, nil
	}
	return f, fmt.Errorf("%w: WebP: an animation without a whole frame", ErrTruncated)
}

// wrap makes the file of a frame: size is its width and height as VP8X has them, too.
func (f *webpFrame) wrap(size, chunks []byte) {
	const alphaFlag = 1 << 4
	flags := byte(0)
	for name := range webpChunks(chunks) {
		if name == "ALPH" {
			flags = alphaFlag
		}
		f.lossy = f.lossy || name == "VP8 "
	}
	f.lossy = f.lossy && flags == 0
	f.file = append(f.file, "RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00"...)
	f.file = append(append(f.file, flags, 0, 0, 0), size...)
	f.file = append(f.file, chunks...)
	binary.LittleEndian.PutUint32(f.file[4:], uint32(len(f.file)-8))
}

// onCanvas puts the picture of the frame on its canvas, which is transparent black and so becomes black, as
// libwebp and PIL have it.
func (f *webpFrame) onCanvas(p Picture) Picture {
	if f.place.Size() == f.canvas {
		return p
	}
	defer p.Release()
	whole := newPicture(f.canvas.X, f.canvas.Y)
	clear(whole.Pix)
	for y := range p.Height {
		copy(whole.Pix[3*((f.place.Min.Y+y)*whole.Width+f.place.Min.X):], p.Pix[3*y*p.Width:][:3*p.Width])
	}
	return whole
}

// uint24 reads the first three bytes of b.
func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// webpChunks goes through the chunks in b that are whole.
func webpChunks(b []byte) func(yield func(name string, data []byte) bool) {
	const head = 8
	return func(yield func(string, []byte) bool) {
		for len(b) >= head {
			n := uint64(binary.LittleEndian.Uint32(b[4:]))
			if n+head > uint64(len(b)) || !yield(string(b[:4]), b[head:head+n]) {
				return
			}
			b = b[min(head+n+n&1, uint64(len(b))):]
		}
	}
}
