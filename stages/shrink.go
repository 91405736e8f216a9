package stages

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"

	"hailoclip/pipeline/fair"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

const (
	shrinkQuality = 90
	longestShrunk = 8192 // pixels of the longer side, beyond which an image stays as it is
)

// Shrinker makes images smaller that are to travel. Safe for concurrent use.
type Shrinker struct {
	side    int
	decoder *decode.Decoder
	budget  *decode.Budget
	workers chan struct{} // holds a value for each image in work
}

// NewShrinker returns one that brings the shorter side of images to so many pixels. At most so many workers are busy at a time,
// and budget bounds the memory of what they decode. cfg bounds the pixels of an image; JPEGs are always decoded at their full size.
func NewShrinker(cfg decode.Config, side, workers int, budget *decode.Budget) *Shrinker {
	cfg.JPEGScale = decode.ScaleExact
	return &Shrinker{side: side, decoder: decode.NewDecoder(cfg, side), budget: budget, workers: make(chan struct{}, workers)}
}

// Shrink returns a JPEG of an upright copy of the image, whose shorter side has the pixels of the Shrinker, scaled as for the encoder.
// Where the image's is not longer, or where that takes fewer bytes than the copy, it is the image itself. Equal images give equal bytes, with
// one kind of decoder. It blocks for as long as that takes, tens of milliseconds for a photograph, and while others are being shrunk, but not
// much beyond the end of ctx. Errors: those of packages decode and resize, or the cause of ctx.
func (s *Shrinker) Shrink(ctx context.Context, image []byte) ([]byte, error) {
	plan, err := s.decoder.Inspect(image)
	if err != nil {
		return nil, err
	}
	short, long := min(plan.Width, plan.Height), max(plan.Width, plan.Height)
	if short <= s.side || long*s.side/short > longestShrunk {
		return image, nil
	}
	select {
	case s.workers <- struct{}{}:
		defer func() { <-s.workers }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	plan.Memory += 7 * int64(s.side) * int64(long*s.side/short) // the copy, and what the encoder takes of it
	memory, err := s.budget.ReserveBulk(ctx, fair.Caller{}, plan)
	if err != nil {
		return nil, err
	}
	defer memory.Release()
	decoded, err := s.decoder.Decode(ctx, plan)
	if err != nil {
		return nil, err
	}
	defer decoded.Release()
	small, err := s.jpeg(&decoded)
	if err == nil && len(small) >= len(image) {
		small = image
	}
	return small, err
}

// jpeg is never larger than its pixels would be, from some 32 pixels a side on.
func (s *Shrinker) jpeg(p *decode.Image) ([]byte, error) {
	width, height := s.side, s.side
	if p.Width < p.Height {
		height = p.Height * s.side / p.Width
	} else {
		width = p.Width * s.side / p.Height
	}
	pix := make([]byte, 3*width*height)
	if err := resize.Scale(pix, width, height, p.Pix, p.Width, p.Height, 3*p.Width); err != nil {
		return nil, err
	}
	return encodeJPEG(pix, width, height, 3*width, shrinkQuality)
}

// encodeJPEG makes a JPEG of pixels of 3 bytes, whose rows begin stride bytes apart.
func encodeJPEG(pix []byte, width, height, stride, quality int) ([]byte, error) {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			to := m.PixOffset(x, y)
			copy(m.Pix[to:to+3], pix[y*stride+3*x:])
			m.Pix[to+3] = 0xff
		}
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality})
	return b.Bytes(), err
}
