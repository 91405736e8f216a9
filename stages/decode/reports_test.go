package decode_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

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
	file := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var cases []struct{ File, Expect, After, Golden string }
	if err := json.Unmarshal(file("cases.json"), &cases); err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	d := decode.NewDecoder(decode.Config{MaxPixels: 50e6, JPEGScale: decode.ScaleExact}, 224)
	resizer := resize.New(resize.Config{Fit: resize.FitCrop}, 224)
	square := func(b []byte) ([]byte, error) {
		p, err := d.DecodeBytes(b)
		if err != nil {
			return nil, err
		}
		defer p.Release()
		dst := make([]byte, 224*224*3)
		return dst, resizer.Resize(dst, p.Pix, p.Width, p.Height)
	}
	for _, c := range cases {
		if strings.HasSuffix(c.File, ".http") {
			continue // for the service
		}
		t.Run(c.File, func(t *testing.T) {
			if missing != nil && strings.HasSuffix(c.File, ".jpg") {
				t.Skip(missing)
			}
			if c.After != "" {
				if _, err := square(file(c.After)); err != nil {
					t.Fatal(c.After, err)
				}
			}
			got, err := square(file(c.File))
			switch {
			case err == nil && strings.Contains(c.Expect, "golden"):
				want, err := square(file(c.Golden))
				if err != nil {
					t.Fatal(c.Golden, err)
				}
				if !bytes.Equal(got, want) {
					t.Error("another image than PIL's")
				}
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
