package resize

import (
	"bytes"
	"testing"
)

// TestNothingOfBefore resizes each image into squares that hold two different things, with working memory that holds
// two different things: every byte must come from the image alone. All ways of fitting, scales up, down and 1, sides
// of one pixel, and images so small that rows are read from the edge memory.
func TestNothingOfBefore(t *testing.T) {
	const size = 24
	sizes := [][2]int{{size, size}, {1, 1}, {1, 50}, {50, 1}, {2, 3}, {23, 25}, {size, 30}, {30, size}, {48, 48}, {300, 17}, {17, 300}, {97, 61}}
	for _, kern := range []kernels{fastest, portable} {
		for _, fit := range []string{FitCrop, FitSquash, FitPad} {
			for _, s := range sizes {
				w, h := s[0], s[1]
				pix := make([]byte, 3*w*h)
				for i := range pix {
					pix[i] = byte(i*i>>2 + i)
				}
				square := func(fill byte) []byte {
					r := New(Config{Fit: fit}, size)
					r.kern = kern
					r.window, r.edge = bytes.Repeat([]byte{fill}, 1<<20), bytes.Repeat([]byte{fill}, 1<<16)
					dst := bytes.Repeat([]byte{fill}, 3*size*size)
					if err := r.Resize(dst, bytes.Clone(pix), w, h); err != nil {
						t.Fatal(err)
					}
					return dst
				}
				zeros, ones := square(0), square(0xFF)
				if !bytes.Equal(zeros, ones) {
					t.Errorf("%s %s %d x %d: what was in memory before shows", kern.name, fit, w, h)
				}
			}
		}
	}
}
