package onnx

import (
	"math"
	"testing"
)

// The formula written down plainly, in other words than the table.
func TestPlanes(t *testing.T) {
	mean, std := [3]float32{0.48145466, 0.4578275, 0.40821073}, [3]float32{0.26862954, 0.26130258, 0.27577711}
	table := newNormaliser(mean, std)
	for _, n := range []int{0, 1, 3, 4, 5, 16, 50} { // pixels
		pixels := make([]byte, 3*n)
		for i := range pixels {
			pixels[i] = byte(i * 37)
		}
		out := make([]float32, 3*n)
		table.planes(out, pixels)
		for i, p := range pixels {
			pixel, c := i/3, i%3
			want := (float32(p)/255 - mean[c]) / std[c]
			if got := out[c*n+pixel]; math.Abs(float64(got-want)) > 1e-6 {
				t.Fatalf("%d pixels: pixel %d, colour %d is %v, want %v", n, pixel, c, got, want)
			}
		}
	}
}
