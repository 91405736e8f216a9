package stages

import (
	"bytes"
	"image"
	"image/jpeg"

	"hailoclip/stages/resize"
)

const (
	thumbnailSide    = 96 // pixels, of the longer side
	thumbnailQuality = 85 // about 3 KB
)

// Thumbnail makes a JPEG of an image. Its longer side has 96 pixels, or as many as it has if those are fewer. Equal pixels give
// equal bytes. It takes about two milliseconds and fails as resize does.
func Thumbnail(p Pixels) ([]byte, error) {
	w, h := p.Width, p.Height
	size := min(max(w, h), thumbnailSide)
	square := make([]byte, 3*size*size)
	if err := resize.New(resize.Config{Fit: resize.FitPad}, size).ResizeRows(square, p.Pix, w, h, p.Stride); err != nil {
		return nil, err
	}
	width, height := size, size // without what FitPad has filled up
	if w >= h {
		height = max(size*h/w, 1)
	} else {
		width = max(size*w/h, 1)
	}
	left, top := (size-width)/2, (size-height)/2
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			from, to := 3*((top+y)*size+left+x), m.PixOffset(x, y)
			copy(m.Pix[to:to+3], square[from:])
			m.Pix[to+3] = 0xff
		}
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, m, &jpeg.Options{Quality: thumbnailQuality})
	return b.Bytes(), err
}
