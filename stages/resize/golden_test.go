package resize_test

import (
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

const pixels = "../decode/testdata/pixels"

// TestGolden decodes and resizes each image and compares it with what PIL made of it. All must be equal in
// every byte, also those for which cases.json would allow a difference (CMYK and lossy WebP).
func TestGolden(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(pixels, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ Input, Golden string }
	if err := json.Unmarshal(b, &cases); err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	decoder := decode.NewDecoder(decode.Config{MaxPixels: 50e6, JPEGScale: decode.ScaleExact}, 224)
	resizer := resize.New(resize.Config{Fit: resize.FitCrop}, 224)
	_, missing := decode.FindLibrary()
	for _, c := range cases {
		t.Run(c.Input, func(t *testing.T) {
			if missing != nil && strings.HasSuffix(c.Input, ".jpg") {
				skipNative(t, missing)
			}
			got := square(t, decoder, resizer, filepath.Join(pixels, c.Input))
			want := goldenRGB(t, filepath.Join(pixels, c.Golden))
			differing := 0
			for i := range got {
				if got[i] != want[i] {
					differing++
				}
			}
			if differing > 0 {
				t.Errorf("%d of %d bytes differ", differing, len(got))
			}
		})
	}
}

// skipNative skips a test that needs a native library, or fails it where there must be one.
func skipNative(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("HAILO_TEST_REQUIRE_NATIVE") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func square(t *testing.T, decoder *decode.Decoder, resizer *resize.Resizer, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := decoder.DecodeBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	dst := make([]byte, 224*224*3)
	if err := resizer.Resize(dst, p.Pix, p.Width, p.Height); err != nil {
		t.Fatal(err)
	}
	return dst
}

func goldenRGB(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bounds() != image.Rect(0, 0, 224, 224) {
		t.Fatal(path, m.Bounds())
	}
	var rgb []byte
	for y := range 224 {
		for x := range 224 {
			c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
			rgb = append(rgb, c.R, c.G, c.B)
		}
	}
	return rgb
}
