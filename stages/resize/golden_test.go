package resize_test

import (
	"bytes"
	"encoding/json"
	"errors"
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

var (
	decoder = decode.NewDecoder(decode.Config{MaxPixels: 50e6, JPEGScale: decode.ScaleExact}, 224)
	resizer = resize.New(resize.Config{Fit: resize.FitCrop}, 224)
)

// square decodes and resizes a file.
func square(b []byte) ([]byte, error) {
	p, err := decoder.DecodeBytes(b)
	if err != nil {
		return nil, err
	}
	defer p.Release()
	dst := make([]byte, 224*224*3)
	return dst, resizer.Resize(dst, p.Pix, p.Width, p.Height)
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenCase is a file and what is right for it: a golden square, or the start of the service's answer.
type goldenCase struct{ File, Input, Expect, After, Golden string }

func goldenCases(t *testing.T, dir string) (cases []goldenCase) {
	if err := json.Unmarshal(read(t, dir, "cases.json"), &cases); err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	return cases
}

// checkGolden demands that got is equal in every byte to what PIL made of the same file.
func checkGolden(t *testing.T, got, file []byte) {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(file))
	if err != nil || m.Bounds() != image.Rect(0, 0, 224, 224) {
		t.Fatal(m, err)
	}
	differing := 0
	for i := range 224 * 224 {
		c := color.NRGBAModel.Convert(m.At(i%224, i/224)).(color.NRGBA)
		if [3]byte(got[3*i:]) != [3]byte{c.R, c.G, c.B} {
			differing++
		}
	}
	if differing > 0 {
		t.Errorf("%d pixels differ from PIL's", differing)
	}
}

// TestGolden decodes and resizes each image and compares it with what PIL made of it. All must be equal in
// every byte, also those for which cases.json would allow a difference (CMYK and lossy WebP).
func TestGolden(t *testing.T) {
	const dir = "../decode/testdata/pixels"
	_, missing := decode.FindLibrary()
	for _, c := range goldenCases(t, dir) {
		t.Run(c.Input, func(t *testing.T) {
			if missing != nil && strings.HasSuffix(c.Input, ".jpg") {
				if os.Getenv("HAILO_TEST_REQUIRE_NATIVE") == "1" {
					t.Fatal(missing)
				}
				t.Skip(missing)
			}
			got, err := square(read(t, dir, c.Input))
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, got, read(t, dir, c.Golden))
		})
	}
}

// reportsFolder is where files that users of other projects reported are, with what is right for each. Tests skip
// without it, unless HAILO_TEST_REQUIRE_SHARED says that it must be there (CI).
func reportsFolder(t *testing.T) string {
	dir := os.Getenv("HAILO_TEST_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "data", "reports")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("HAILO_TEST_REQUIRE_SHARED") != "" {
			t.Fatal(err)
		}
		t.Skipf("no reported files here (%v); set HAILO_TEST_SHARED", err)
	}
	return dir
}

// TestReports decodes every reported file and compares the square that becomes of it with PIL's, byte for byte.
func TestReports(t *testing.T) {
	_, missing := decode.FindLibrary()
	dir := reportsFolder(t)
	for _, c := range goldenCases(t, dir) {
		if strings.HasSuffix(c.File, ".http") {
			continue // for the service
		}
		t.Run(c.File, func(t *testing.T) {
			if missing != nil && strings.HasSuffix(c.File, ".jpg") {
				t.Skip(missing)
			}
			if c.After != "" {
				if _, err := square(read(t, dir, c.After)); err != nil {
					t.Fatal(c.After, err)
				}
			}
			got, err := square(read(t, dir, c.File))
			switch {
			case err == nil && strings.Contains(c.Expect, "golden"):
				checkGolden(t, got, read(t, dir, c.Golden))
			case err == nil:
				t.Errorf("decoded, want %s", c.Expect)
			case !strings.Contains(c.Expect, statusOf(err)):
				t.Errorf("want %s, got %v", c.Expect, err)
			}
		})
	}
}

// statusOf is what the service answers to an error.
func statusOf(err error) string {
	switch {
	case errors.Is(err, decode.ErrUnsupportedFormat):
		return "415"
	case errors.Is(err, decode.ErrTooManyPixels):
		return "413"
	}
	return "400"
}
