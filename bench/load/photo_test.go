package load

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"strings"
	"testing"
	"time"

	"hailoclip/bench/report"
)

func TestPhoto(t *testing.T) {
	for _, c := range [][2]int{{640, 480}, {1280, 720}, {17, 33}} {
		a, err := Photo(c[0], c[1], 1)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := Photo(c[0], c[1], 1)
		if other, _ := Photo(c[0], c[1], 2); !bytes.Equal(a, b) || bytes.Equal(a, other) {
			t.Errorf("%v: not the same for the same seed, or for another", c)
		}
		m, err := jpeg.Decode(bytes.NewReader(a))
		if err != nil {
			t.Fatal(err)
		}
		y, ok := m.(*image.YCbCr)
		if !ok || y.SubsampleRatio != image.YCbCrSubsampleRatio420 || m.Bounds().Dx() != c[0] || m.Bounds().Dy() != c[1] {
			t.Errorf("%v: %T of %v", c, m, m.Bounds())
		}
		// Photographs of this quality have 1 to 2.5 bits a pixel.
		if bits := float64(8*len(a)) / float64(c[0]*c[1]); c[0] > 600 && (bits < 1.2 || bits > 2.4) {
			t.Errorf("%v: %.2f bits a pixel", c, bits)
		}
	}
	for _, c := range [][2]int{{0, 10}, {15, 100}, {100, 8193}, {-1, -1}} {
		if _, err := Photo(c[0], c[1], 0); err == nil {
			t.Errorf("%v is accepted", c)
		}
	}
}

func TestProfile(t *testing.T) {
	images := []Image{{Name: "one", Data: []byte("1")}, {Name: "two", Data: []byte("22")}, {Name: "bad"}}
	do := func(image []byte, stage func(string, time.Duration)) error {
		if len(image) == 0 {
			return errors.New("no image")
		}
		stage("decode", time.Millisecond)
		return nil
	}
	paths, err := Profile(images[:2], 10*time.Millisecond, do)
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v, %d paths", err, len(paths))
	}
	for i, p := range paths {
		if p.Name != images[i].Name || p.Images < 1 || len(p.Stages) != 1 || p.Stages[0].Stage != "decode" || p.Stages[0].Mean != 1 || p.Latency.Max <= 0 {
			t.Errorf("%+v", p)
		}
	}
	var out strings.Builder
	report.WritePaths(&out, paths)
	if !strings.Contains(out.String(), "whole way") {
		t.Error(out.String())
	}
	if _, err := Profile(images, time.Millisecond, do); err == nil || !strings.HasPrefix(err.Error(), "bad: ") {
		t.Errorf("error %v", err)
	}
}
