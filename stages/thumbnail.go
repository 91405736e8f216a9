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

// thumbnail makes a JPEG of an image of w x h pixels, with rows stride bytes apart. Its longer side has thumbnailSide pixels,
// or as many as it has if those are fewer. Equal pixels give equal bytes. It fails as resize does.
func thumbnail(pix []byte, w, h, stride int) ([]byte, error) {
	size := min(max(w, h), thumbnailSide)
	square := make([]byte, 3*size*size)
	if err := resize.New(resize.Config{Fit: resize.FitPad}, size).ResizeRows(square, pix, w, h, stride); err != nil {
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
