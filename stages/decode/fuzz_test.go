package decode

import (
	"bytes"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzDecode gives the same bytes to both decoders: no panic, one sentinel for each error, a whole image otherwise, the
// same one whatever was in its buffers before; no more work than the plan said, and no plan beyond what the file can
// honestly need; and nothing of it left when the next image is decoded.
func FuzzDecode(f *testing.F) {
	addFiles(f, "testdata/pil/*.*", 50)
	f.Add([]byte("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1miaf"))
	f.Add(pngHeader(3, 5))
	f.Add(tiffHeader(3, 5))
	if still, err := os.ReadFile("testdata/pil/lossy_2x17.webp"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(animation(image.Pt(6, 21), image.Pt(2, 4), image.Pt(2, 17), still))
	}

	const maxPixels = 200_000
	ds := decoders(f, Config{MaxPixels: maxPixels, JPEGScale: ScaleExact})
	small, err := os.ReadFile("testdata/pil/rgb_422.jpg")
	if err != nil {
		f.Fatal(err)
	}
	want := map[string]string{}
	for name, d := range ds {
		want[name] = outcome(d, small)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, d := range ds {
			plan, err := d.Inspect(b)
			if err != nil {
				if !oneSentinel(err) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if most := honestWork(plan, len(b)); plan.Work > most || plan.Memory < int64(3*plan.Width*plan.Height) || plan.Memory < 0 {
				t.Errorf("%s: %s of %d x %d in %d bytes takes %d bytes of work, %d at most; and %d of memory",
					name, plan.Format, plan.Width, plan.Height, len(b), plan.Work, most, plan.Memory)
			}
			one, two := poisoned(t, plan, 0x11), poisoned(t, plan, 0xEE)
			if !bytes.Equal(one.Pix, two.Pix) || (one.Pix == nil) != (two.Pix == nil) {
				t.Errorf("%s: what was in the buffers before shows", name)
			}
			if p := one; p.Pix != nil && (p.Width < 1 || p.Height < 1 || p.Width*p.Height > maxPixels ||
				len(p.Pix) != 3*p.Width*p.Height || p.Format == "" || p.Orientation < 1 || p.Orientation > 8) {
				t.Errorf("%s: %d x %d, %d bytes, %q, %d", name, p.Width, p.Height, len(p.Pix), p.Format, p.Orientation)
			}
			one.Release()
			two.Release()
			if bytes.HasPrefix(b, small[:3]) && outcome(d, small) != want[name] {
				t.Errorf("%s: the next image is another", name)
			}
		}
	})
}

// honestWork is a bound of what decoding a file may take, from its length and its pixels alone.
func honestWork(plan Plan, length int) int64 {
	const factor = 64
	n := int64(factor)*int64(length) + factor*int64(plan.Width)*int64(plan.Height)
	if plan.Format == JPEG { // groups of up to 32 x 32 pixels, of four components
		n += 2*smallJPEG + (2*maxPasses+16)*4*int64(plan.Width+31)*int64(plan.Height+31)
	}
	return n
}

// poisoned carries out a plan with buffers that hold fill.
func poisoned(t *testing.T, plan Plan, fill byte) Image {
	defer func(before byte) { poison = before }(poison)
	poison = fill
	for range 2 { // pixels, and what is turned
		p, q := newImage(plan.Width, plan.Height), newImage(plan.Width, plan.Height)
		p.Release()
		q.Release()
	}
	run := &task{ctx: t.Context(), work: plan.Work}
	p, err := plan.run(run)
	if run.spent > plan.Work {
		t.Errorf("%s of %d x %d: %d bytes of work done, %d planned", plan.Format, plan.Width, plan.Height, run.spent, plan.Work)
	}
	if err != nil && !oneSentinel(err) {
		t.Error(err)
	}
	return p
}

// addFiles adds files to the corpus of f, of which there must be at least so many.
func addFiles(f *testing.F, pattern string, least int) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		f.Fatal(pattern, len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// fuzzCost carries out the plan of b and demands that the cost is within the plan, and the plan within what b can honestly
// need: memory bounds the bytes that so many pixels may take, where it is not nil. The caller releases the image.
func fuzzCost(t *testing.T, b []byte, planOf func([]byte) (Plan, error), memory func(pixels int) int64) (p Image, ok bool) {
	plan, err := planOf(b)
	if err != nil {
		if !oneSentinel(err) {
			t.Error(err)
		}
		return p, false
	}
	pixels := plan.Width * plan.Height
	if plan.Work > 64*int64(len(b)+pixels) || memory != nil && plan.Memory > memory(pixels) {
		t.Errorf("work %d, memory %d for %d x %d pixels in %d bytes", plan.Work, plan.Memory, plan.Width, plan.Height, len(b))
	}
	task := &task{ctx: t.Context(), work: plan.Work}
	func() {
		defer contain(plan.Format, &err)
		p, err = plan.decode(task)
	}()
	switch {
	case task.spent > plan.Work:
		t.Errorf("%d bytes of work were planned, %d done: %v", plan.Work, task.spent, err)
	case err != nil && (!oneSentinel(err) || strings.Contains(err.Error(), "decoder failed") || strings.Contains(err.Error(), "takes more than")):
		t.Error(err)
	case err == nil && (p.Width != plan.Width || p.Height != plan.Height || len(p.Pix) != 3*pixels):
		t.Errorf("%d x %d in %d bytes, planned were %d x %d", p.Width, p.Height, len(p.Pix), plan.Width, plan.Height)
	}
	if err != nil {
		p.Release()
	}
	return p, err == nil
}
