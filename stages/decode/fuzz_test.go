package decode

import (
	"bytes"
	"image"
	"os"
	"path/filepath"
	"testing"
)

// FuzzDecode gives the same bytes to both decoders: no panic, one sentinel for each error, a whole picture
// otherwise; and nothing of it left when the next picture is decoded.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/pil/*.*")
	if err != nil || len(files) < 50 {
		f.Fatal(len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1miaf"))
	f.Add(pngHeader(3, 5))
	f.Add(tiffHeader(3, 5))
	if still, err := os.ReadFile("testdata/pil/lossy_2x17.webp"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(animation(image.Pt(6, 21), image.Pt(2, 4), image.Pt(2, 17), still))
	}

	ds := decoders(f, Config{MaxPixels: 200_000, JPEGScale: ScaleExact})
	small, err := os.ReadFile("testdata/pil/rgb_422.jpg")
	if err != nil {
		f.Fatal(err)
	}
	want := map[string][]byte{}
	for name, d := range ds {
		p, err := d.DecodeBytes(small)
		if err != nil {
			f.Fatal(err)
		}
		want[name] = p.Pix
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, d := range ds {
			p, err := d.DecodeBytes(b)
			switch {
			case err != nil && !oneSentinel(err):
				t.Errorf("%s: %v", name, err)
			case err == nil && (p.Width < 1 || p.Height < 1 || p.Width*p.Height > 200_000 ||
				len(p.Pix) != 3*p.Width*p.Height || p.Format == "" || p.Orientation < 1 || p.Orientation > 8):
				t.Errorf("%s: %d x %d, %d bytes, %q, %d", name, p.Width, p.Height, len(p.Pix), p.Format, p.Orientation)
			}
			p.Release()
			if bytes.HasPrefix(b, small[:3]) {
				p, err := d.DecodeBytes(small)
				if err != nil || !bytes.Equal(p.Pix, want[name]) {
					t.Errorf("%s: the next picture: %v", name, err)
				}
				p.Release()
			}
		}
	})
}
