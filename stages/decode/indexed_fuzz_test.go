package decode

import (
	"bytes"
	"image"
	"image/gif"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
)

func FuzzBMP(f *testing.F) {
	seedIndexed(f, "*.bmp")
	d := newDecoder(Config{MaxPixels: 100_000, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := planned(t, b, d.planBMP)
		defer p.Release()
		if !ok {
			return // the size is not to be trusted
		}
		m, err := bmp.Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		if m, ok := m.(*image.Paletted); ok && int(slices.Max(m.Pix)) >= len(m.Palette) {
			return // it has no colour for these
		}
		if !bytes.Equal(p.Pix, goPixels(t, m)) {
			t.Error("other pixels than golang.org/x/image/bmp")
		}
	})
}

func FuzzGIF(f *testing.F) {
	seedIndexed(f, "*.gif")
	d := newDecoder(Config{MaxPixels: 100_000, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := planned(t, b, d.planGIF)
		defer p.Release()
		if !ok || bytes.Contains(b, []byte("!\x01")) { // a text is read by another rule there
			return
		}
		decoded, err := gif.Decode(bytes.NewReader(b))
		m, ok := decoded.(*image.Paletted)
		if err != nil || !ok {
			return
		}
		colors, ramp := make([][3]byte, len(m.Palette)), grayTable()
		for i, c := range m.Palette {
			colors[i] = goColor(t, c)
		}
		if slices.Equal(colors, ramp[:len(colors)]) {
			return // a global palette counts more
		}
		for y := m.Rect.Min.Y; y < m.Rect.Max.Y; y++ {
			for x := m.Rect.Min.X; x < m.Rect.Max.X; x++ {
				index := m.ColorIndexAt(x, y)
				if _, _, _, a := m.Palette[index].RGBA(); a == 0 {
					continue // its colour is forgotten there
				}
				if got := [3]byte(p.Pix[3*(y*p.Width+x):]); got != colors[index] {
					t.Fatalf("%v at %d, %d, image/gif has %v", got, x, y, colors[index])
				}
			}
		}
	})
}

func seedIndexed(f *testing.F, pattern string) {
	files, err := filepath.Glob("testdata/pil/" + pattern)
	if err != nil || len(files) < 10 {
		f.Fatal(len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// planned carries out the plan of b, and checks that it costs what the plan says and that the plan is honest.
func planned(t *testing.T, b []byte, planOf func([]byte) (Plan, error)) (Picture, bool) {
	plan, err := planOf(b)
	if err != nil {
		if !oneSentinel(err) {
			t.Error(err)
		}
		return Picture{}, false
	}
	pixels := int64(plan.Width) * int64(plan.Height)
	if plan.Work > 64*int64(len(b))+64*pixels || plan.Memory > 4*pixels+128<<10 {
		t.Errorf("%d bytes, %d pixels: work %d, memory %d", len(b), pixels, plan.Work, plan.Memory)
	}
	task := &task{ctx: t.Context(), work: plan.Work}
	p, err := plan.decode(task)
	switch {
	case task.spent > plan.Work:
		t.Errorf("spent %d of %d: %v", task.spent, plan.Work, err)
	case err != nil && (!oneSentinel(err) || strings.Contains(err.Error(), "takes more than")):
		t.Error(err)
	case err == nil && (int64(len(p.Pix)) != 3*pixels || p.Width != plan.Width || p.Height != plan.Height):
		t.Errorf("%d bytes for %d x %d of %d x %d", len(p.Pix), p.Width, p.Height, plan.Width, plan.Height)
	}
	return p, err == nil
}
