package decode

import "image"

// webpFrame is the first frame of an animation.
type webpFrame struct {
	webpImage
	canvas image.Point     // the size of the animation
	place  image.Rectangle // of the frame on the canvas
}

// planAnimation plans the first frame.
func (d *Decoder) planAnimation(chunks []byte, canvas image.Point, orientation int) (Plan, error) {
	if err := d.checkSize(canvas.X, canvas.Y); err != nil {
		return Plan{}, err
	}
	f, err := d.firstFrame(chunks, canvas)
	if err != nil {
		return Plan{}, err
	}
	own, work := f.cost()
	if f.size != canvas {
		pixels := 3 * f.size.X * f.size.Y // they are copied onto the canvas
		own, work = own+pixels, work+3*pixels
	}
	return f.timed(newPlan(canvas.X, canvas.Y, own, work, orientation, f.decode)), nil
}

// firstFrame finds the first frame of an animation: a chunk ANMF, which holds the chunks of an image behind its place
// on the canvas (WebP container specification).
func (d *Decoder) firstFrame(chunks []byte, canvas image.Point) (f webpFrame, err error) {
	const head = 16
	for name, data := range webpChunks(chunks) {
		if name != "ANMF" {
			continue
		}
		if len(data) < head {
			return f, corrupt("WebP: a frame of %d bytes", len(data))
		}
		at, size := image.Pt(2*uint24(data), 2*uint24(data[3:])), image.Pt(1+uint24(data[6:]), 1+uint24(data[9:]))
		f.canvas, f.place = canvas, image.Rectangle{at, at.Add(size)}
		if !f.place.In(image.Rectangle{Max: canvas}) {
			return f, corrupt("WebP: the frame %v is not on the canvas of %v", f.place, canvas)
		}
		if f.webpImage, err = d.webpImage(data[head:]); err == nil && f.size != size {
			err = corrupt("WebP: an image of %v pixels in a frame of %v", f.size, size)
		}
		return f, err
	}
	return f, truncated("WebP: an animation without a whole frame")
}

// decode puts the image of the frame on its canvas, which is transparent black and so becomes black, as
// libwebp and PIL have it.
func (f webpFrame) decode(t *task) (Image, error) {
	p, err := f.webpImage.decode(t)
	if err != nil || f.size == f.canvas {
		return p, err
	}
	defer p.Release()
	whole := newImage(f.canvas.X, f.canvas.Y)
	clear(whole.Pix)
	for y := range p.Height {
		copy(whole.Pix[3*((f.place.Min.Y+y)*whole.Width+f.place.Min.X):], p.Pix[3*y*p.Width:][:3*p.Width])
		if err := t.spend(6 * p.Width); err != nil {
			return whole, err
		}
	}
	return whole, nil
}
