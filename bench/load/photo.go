package load

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
)

// Photo is a JPEG (quality 85, 4:2:0) of width x height pixels that costs about what a
// photograph costs: always the same for the same arguments. It is a "dead leaves" image, discs
// that hide each other with radii that follow r^-3, which has the power spectrum and the edges
// of natural images (Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001),
// with shading and a sensor's noise.
func Photo(width, height int, seed uint64) ([]byte, error) {
	const side = 8192
	if width < 16 || height < 16 || width > side || height > side {
		return nil, fmt.Errorf("size %dx%d is out of bounds: 16 to %d on each side", width, height, side)
	}
	r := rand.New(rand.NewPCG(seed, 0x68616c6f))
	m := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	for _, plane := range [][]byte{m.Y, m.Cb, m.Cr} {
		for i := range plane {
			plane[i] = 128
		}
	}
	const smallest = 6.0 // with this the bytes are 1.9 bits a pixel, between a calm photograph and a busy one
	largest := float64(max(width, height)) / 4
	for painted := 0.0; painted < 5*float64(width*height); {
		u := r.Float64()
		radius := 1 / math.Sqrt(u/(smallest*smallest)+(1-u)/(largest*largest))
		paintDisc(m, r, radius)
		painted += math.Pi * radius * radius
	}
	soften(m)
	for i, y := range m.Y {
		m.Y[i] = clamp(float64(y) + 1.2*r.NormFloat64())
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, m, &jpeg.Options{Quality: 85}); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// paintDisc paints one leaf: a colour, muted as in nature, with a gradient over it.
func paintDisc(m *image.YCbCr, r *rand.Rand, radius float64) {
	x, y := r.Float64()*float64(m.Rect.Dx()), r.Float64()*float64(m.Rect.Dy())
	light := 20 + 200*r.Float64()
	cb, cr := clamp(128+14*r.NormFloat64()), clamp(128+14*r.NormFloat64())
	slopeX, slopeY := 30*r.NormFloat64()/radius, 30*r.NormFloat64()/radius
	for py := max(0, int(y-radius)); py < min(m.Rect.Dy(), int(y+radius)+1); py++ {
		dy := float64(py) - y
		half := math.Sqrt(max(0, radius*radius-dy*dy))
		for px := max(0, int(x-half)); px < min(m.Rect.Dx(), int(x+half)+1); px++ {
			m.Y[m.YOffset(px, py)] = clamp(light + slopeX*(float64(px)-x) + slopeY*dy)
			if px&1 == 0 && py&1 == 0 {
				at := m.COffset(px, py)
				m.Cb[at], m.Cr[at] = cb, cr
			}
		}
	}
}

// soften is the lens: the mean of each pixel and its neighbours to the right and below.
func soften(m *image.YCbCr) {
	for y := range m.Rect.Dy() - 1 {
		row, below := m.Y[y*m.YStride:], m.Y[(y+1)*m.YStride:]
		for x := range m.Rect.Dx() - 1 {
			row[x] = uint8((int(row[x]) + int(row[x+1]) + int(below[x]) + int(below[x+1]) + 2) / 4)
		}
	}
}

func clamp(v float64) uint8 { return uint8(min(max(v+0.5, 0), 255)) }
