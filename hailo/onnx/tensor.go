package onnx

import (
	"errors"
	"math"
)

// normaliser turns 8-bit RGB pixels into the model's floats: (p/255 - mean) / std.
type normaliser [3][256]float32

func newNormaliser(mean, std [3]float32) *normaliser {
	var t normaliser
	for c := range t {
		for p := range t[c] {
			t[c][p] = float32((float64(p)/255 - float64(mean[c])) / float64(std[c]))
		}
	}
	return &t
}

// planes writes interleaved pixels (RGB RGB ...) as three planes, one for each colour.
// out is as long as pixels.
func (t *normaliser) planes(out []float32, pixels []byte) {
	n := len(pixels) / 3
	pixels = pixels[:3*n]
	r, g, b := out[:n], out[n:2*n], out[2*n:3*n]
	for i := range r {
		p := (*[3]byte)(pixels[3*i:])
		r[i], g[i], b[i] = t[0][p[0]], t[1][p[1]], t[2][p[2]]
	}
}

var errNotUnit = errors.New("the model gave a vector of length 0, infinity or NaN")

// normalise writes v scaled to unit length into out, which may be v.
func normalise(out, v []float32) error {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if !(sum > 0) || math.IsInf(sum, 0) { // NaN is not > 0
		return errNotUnit
	}
	scale := 1 / math.Sqrt(sum)
	for i, x := range v {
		out[i] = float32(float64(x) * scale)
	}
	return nil
}
