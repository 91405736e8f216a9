package onnx

import (
	"math"
	"slices"
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

func TestNormalise(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, tt := range []struct {
		name string
		v    []float32
		want []float32 // within 1e-7; nil: an error
	}{
		{"3 4 5", []float32{3, -4}, []float32{0.6, -0.8}},
		{"unit", []float32{0, 1}, []float32{0, 1}},
		{"huge, beyond float32 when squared", []float32{3e30, 4e30}, []float32{0.6, 0.8}},
		{"tiny, 0 in float32 when squared", []float32{3e-30, 4e-30}, []float32{0.6, 0.8}},
		{"zero", []float32{0, 0}, nil},
		{"NaN", []float32{1, nan}, nil},
		{"infinity", []float32{1, inf}, nil},
		{"minus infinity", []float32{-inf, 1}, nil},
		{"empty", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make([]float32, len(tt.v))
			err := normalise(got, tt.v)
			near := func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-7 }
			if (err == nil) != (tt.want != nil) || err == nil && !slices.EqualFunc(got, tt.want, near) {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
}
