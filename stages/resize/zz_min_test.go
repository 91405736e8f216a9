package resize

import (
	"fmt"
	"testing"
	"time"
)

func TestZZMin(t *testing.T) {
	for _, kern := range all() {
		for _, s := range [][2]int{{640, 480}, {1280, 720}, {1920, 1080}, {4000, 3000}} {
			r := newWith(kern, FitCrop, 224)
			dst, pix := make([]byte, 3*224*224), noise(s[0], s[1])
			best := time.Hour
			for range 150 {
				t0 := time.Now()
				r.Resize(dst, pix, s[0], s[1])
				best = min(best, time.Since(t0))
			}
			fmt.Println(kern.name, s, best)
		}
	}
}
