package stages

import "hailoclip/stages/resize"

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
	return encodeJPEG(square[3*(top*size+left):], width, height, 3*size, thumbnailQuality)
}
