package decode

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// poison is what released buffers hold in tests.
var poison byte = 0xA5

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		released = func(b []byte) {
			b = b[:cap(b)]
			b[0] = poison
			for n := 1; n < len(b); n *= 2 { // faster than byte by byte, under the race detector too
				copy(b[n:], b[:n])
			}
		}
	}
	os.Exit(m.Run())
}

var exact = Config{MaxPixels: 50e6, JPEGScale: ScaleExact}

// decoders are the two ways a JPEG can go.
func decoders(t testing.TB, cfg Config) map[string]*Decoder {
	ds := map[string]*Decoder{"go": newDecoder(cfg, 224, nil)}
	if lib, err := loadTurbo(); err == nil {
		ds["turbo"] = newDecoder(cfg, 224, lib)
	} else if os.Getenv("HAILO_TEST_REQUIRE_NATIVE") == "1" {
		t.Fatal(err)
	} else {
		t.Log("without libturbojpeg:", err)
	}
	return ds
}

// goDecoder decodes JPEGs with the standard library; other formats have one decoder only.
var goDecoder = newDecoder(exact, 224, nil)

// turboDecoder is the one with libturbojpeg; without it the test is skipped.
func turboDecoder(t testing.TB, cfg Config) *Decoder {
	d := decoders(t, cfg)["turbo"]
	if d == nil {
		t.Skip("without libturbojpeg")
	}
	return d
}

// decoded decodes what must be an image. It is released at the end of the test, or before.
func decoded(t testing.TB, d *Decoder, b []byte) *Image {
	t.Helper()
	p, err := d.DecodeBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	return &p
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// patched is b with other bytes at a place.
func patched(b []byte, at int, other ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[at:], other)
	return b
}

// TestLikePIL compares images of every kind with the pixels that PIL decodes.
func TestLikePIL(t *testing.T) {
	var cases []struct {
		Input, Mode   string
		Width, Height int
		SHA256        string `json:"rgb_sha256"`
	}
	if err := json.Unmarshal(read(t, "pil", "cases.json"), &cases); err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for name, d := range decoders(t, exact) {
		for _, c := range cases {
			t.Run(name+"/"+c.Input, func(t *testing.T) {
				p, err := d.DecodeBytes(read(t, "pil", c.Input))
				if name == "go" && (strings.HasPrefix(c.Input, "arithmetic") || strings.HasPrefix(c.Input, "sampling") || strings.HasSuffix(c.Input, "_restarts.jpg")) && err != nil {
					if !errors.Is(err, ErrUnsupportedFormat) || !strings.Contains(err.Error(), "libturbojpeg") {
						t.Fatal(err)
					}
					return // beyond the standard library
				}
				if err != nil {
					t.Fatal(err)
				}
				defer p.Release()
				if p.Width != c.Width || p.Height != c.Height {
					t.Fatalf("%d x %d, want %d x %d", p.Width, p.Height, c.Width, c.Height)
				}
				if name == "go" && strings.HasSuffix(c.Input, ".jpg") {
					return // close, not equal: the chroma is not interpolated
				}
				if sum := sha256.Sum256(p.Pix); hex.EncodeToString(sum[:]) != c.SHA256 {
					t.Errorf("%s (%s): other pixels than PIL", c.Input, c.Mode)
				}
			})
		}
	}
}

// TestCutShort cuts one image of each format at many places: each part is an error of this package, and
// one that says truncated where the decoder can know it.
func TestCutShort(t *testing.T) {
	for name, d := range decoders(t, exact) {
		for _, file := range []string{"rgb_420_optimized.jpg", "progressive_gray.jpg", "cmyk.jpg", "rgba.png",
			"lossy.webp", "lossless_alpha.webp", "palette.gif", "rgb.bmp", "rgb_lzw.tiff", "rgb_raw.tiff"} {
			t.Run(name+"/"+file, func(t *testing.T) {
				whole := read(t, "pil", file)
				for n := 0; n < len(whole); n += 1 + n/37 {
					p, err := d.DecodeBytes(whole[:n:n])
					switch {
					case err == nil && (strings.HasSuffix(file, ".tiff") || strings.HasSuffix(file, ".gif")):
						p.Release() // what follows the pixels may be missing
					case err == nil:
						t.Errorf("%d of %d bytes were decoded", n, len(whole))
					case n < 12 && errors.Is(err, ErrNotImage):
					case (strings.HasSuffix(file, ".jpg") || strings.HasSuffix(file, ".gif")) && !errors.Is(err, ErrTruncated):
						t.Errorf("%d of %d bytes: %v", n, len(whole), err)
					case !oneSentinel(err):
						t.Errorf("%d of %d bytes: %v", n, len(whole), err)
					}
				}
			})
		}
	}
}

var sentinels = []error{ErrNotImage, ErrTruncated, ErrCorrupt, ErrTooManyPixels, ErrUnsupportedFormat}

func oneSentinel(err error) bool {
	n := 0
	for _, s := range sentinels {
		if errors.Is(err, s) {
			n++
		}
	}
	return n == 1
}

func TestRefused(t *testing.T) {
	huge := func(file string, at int, size ...byte) []byte { return patched(read(t, "pil", file), at, size...) }
	jpg := read(t, "pil", "rgb_444.jpg")
	sof := bytes.Index(jpg, []byte{0xFF, 0xC0})
	for name, d := range decoders(t, Config{MaxPixels: 10000, JPEGScale: ScaleExact}) {
		checkRefused(t, d, name+"/", []refusal{
			{"nothing", nil, ErrNotImage, "no bytes"},
			{"text", []byte("hello, world"), ErrNotImage, "68 65 6c 6c 6f"},
			{"BM and text", []byte("BMW is a maker of cars and more"), ErrNotImage, ""},
			{"AVIF", []byte("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1miaf"), ErrUnsupportedFormat, "AVIF (accepted: JPEG, PNG"},
			{"AVIF by its second brand", []byte("\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00avifmiaf"), ErrUnsupportedFormat, "AVIF"},
			{"HEIC", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"), ErrUnsupportedFormat, "HEIC"},
			{"video", []byte("\x00\x00\x00\x18ftypisom\x00\x00\x00\x00"), ErrUnsupportedFormat, "video"},
			{"PDF", []byte("%PDF-1.7\n"), ErrUnsupportedFormat, "PDF"},
			{"SVG", []byte("\xef\xbb\xbf<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>"), ErrUnsupportedFormat, "SVG"},
			{"JPEG XL", []byte("\xff\x0a\x00\x00"), ErrUnsupportedFormat, "JPEG XL"},
			{"JPEG XL in a box", []byte("\x00\x00\x00\x0cJXL \r\n\x87\n"), ErrUnsupportedFormat, "JPEG XL"},
			{"JPEG 2000", []byte("\x00\x00\x00\x0cjP  \r\n\x87\n"), ErrUnsupportedFormat, "JPEG 2000"},
			{"animated WebP without frames", []byte("RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00"), ErrTruncated, "without a whole frame"},
			{"animated WebP within its header", []byte("RIFF\x0d\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02"), ErrTruncated, "within the header"},
			{"huge animated WebP", []byte("RIFF\x2e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\xff\xff\x00\xff\xff\x00" +
				"ANMF\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), ErrTooManyPixels, "65536"},
			{"lossless JPEG", huge("rgb_444.jpg", sof+1, 0xC3), ErrUnsupportedFormat, "SOF3"},
			{"12-bit JPEG", huge("rgb_444.jpg", sof+4, 12), ErrUnsupportedFormat, "12 bits"},
			{"BMP of 48 bits", huge("rgb.bmp", 28, 48), ErrUnsupportedFormat, "BMP of 48 bits"},
			{"BMP of JPEG", huge("rgb.bmp", 30, 4), ErrUnsupportedFormat, "BMP that holds a JPEG"},
			{"CMYK TIFF of one sample", makeTIFF(1, 1, nil, madeTags{tagPhotometric: {5}}), ErrUnsupportedFormat, "this kind of TIFF"},
			{"huge JPEG", huge("rgb_444.jpg", sof+5, 0xFF, 0xDC, 0xFF, 0xDC), ErrTooManyPixels, "65500 x 65500 is more than 10000"},
			{"huge CMYK JPEG", huge("cmyk.jpg", bytes.Index(read(t, "pil", "cmyk.jpg"), []byte{0xFF, 0xC0})+5, 0xFF, 0xDC, 0xFF, 0xDC), ErrTooManyPixels, ""},
			{"huge PNG", pngOf(ihdr(1<<30, 1<<30, "\x08\x02\x00\x00\x00")), ErrTooManyPixels, "1073741824"},
			{"huge GIF", huge("palette.gif", 6, 0xFF, 0xFF, 0xFF, 0xFF), ErrTooManyPixels, "65535"},
			{"huge BMP", huge("rgb.bmp", 18, 0, 0, 1, 0, 0, 0, 1, 0), ErrTooManyPixels, "65536"},
			{"huge lossless WebP", huge("lossless_alpha.webp", 21, 0xFF, 0xFF, 0xFF, 0x1F), ErrTooManyPixels, "16384"},
			{"huge TIFF", tiffHeader(1<<16, 1<<16), ErrTooManyPixels, ""},
			{"JPEG without size", huge("rgb_444.jpg", sof+5, 0, 0, 0, 0), ErrCorrupt, ""},
			{"JPEG without an image", []byte("\xff\xd8\xff\xd9"), ErrCorrupt, ""},
			{"BMP shorter than it says", huge("rgb.bmp", 22, 100), ErrTruncated, ""},
		})
	}
}

// refusal is a file that is not decoded: its error is of the kind want and names text.
type refusal struct {
	name string
	b    []byte
	want error
	text string
}

// checkRefused demands of each file its one sentinel, a text that helps, and no pixels.
func checkRefused(t *testing.T, d *Decoder, prefix string, files []refusal) {
	for _, c := range files {
		t.Run(prefix+cmp.Or(c.name, c.text), func(t *testing.T) {
			p, err := d.DecodeBytes(c.b)
			if !errors.Is(err, c.want) || !oneSentinel(err) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.text)
			}
			if _, foreign := Format(c.b); foreign == nil && strings.Contains(err.Error(), "accepted") {
				t.Errorf("names its own format among the accepted ones: %v", err)
			}
			if p.Pix != nil {
				t.Error("an error came with pixels")
			}
		})
	}
}

// TestDamaged has JPEGs that libjpeg only warns about: PIL shows them, and so do we.
func TestDamaged(t *testing.T) {
	d := turboDecoder(t, exact)
	whole := read(t, "pil", "rgb_444.jpg")
	half := append(bytes.Clone(whole[:len(whole)/2]), 0xFF, 0xD9) // the end marker comes too early
	decoded(t, d, half)
	if _, err := d.DecodeBytes(half[:len(half)-1]); !errors.Is(err, ErrTruncated) {
		t.Error(err)
	}
	decoded(t, d, append(bytes.Clone(whole), "and more"...))
}

// TestNextAfterError decodes a good image after each of many bad ones: none leaves a trace.
func TestNextAfterError(t *testing.T) {
	good := read(t, "pil", "rgb_444.jpg")
	for name, d := range decoders(t, exact) {
		want := decoded(t, d, good)
		header := bytes.Index(good, []byte{0xFF, 0xDA}) + 20
		for i := 4; i < header; i++ {
			bad := bytes.Clone(good)
			bad[i] ^= 0xFF
			outcome(d, bad)
			p := decoded(t, d, good)
			if !bytes.Equal(p.Pix, want.Pix) {
				t.Fatalf("%s: another image after a fault at byte %d", name, i)
			}
			p.Release()
		}
	}
}

func TestFast(t *testing.T) {
	d := turboDecoder(t, Config{MaxPixels: 50e6, JPEGScale: ScaleFast})
	for _, c := range []struct {
		file string
		w, h int
	}{
		{"vga_420.jpg", 640, 480},
		{"hd_progressive.jpg", 1280, 720}, // 5/8 would do, but is slower than the whole image
		{"exif_6.jpg", 240, 320},
	} {
		p, err := d.DecodeBytes(read(t, "pixels", c.file))
		if err != nil || p.Width != c.w || p.Height != c.h {
			t.Errorf("%s: %d x %d, want %d x %d: %v", c.file, p.Width, p.Height, c.w, c.h, err)
		}
		p.Release()
	}
}

func TestDCTScale(t *testing.T) {
	for size, want := range map[[2]int][2]int{
		{640, 480}: {640, 480}, {1433, 1075}: {717, 538}, {1432, 1074}: {1432, 1074}, {1195, 896}: {1195, 896}, {2389, 1792}: {1195, 896}, {1920, 1080}: {960, 540},
		{2560, 1440}: {1280, 720}, {4032, 3024}: {1008, 756}, {8001, 6001}: {1001, 751},
	} {
		if w, h := dctScale(size[0], size[1], 1, 1, 224); w != want[0] || h != want[1] {
			t.Errorf("%v becomes %d x %d, want %v", size, w, h, want)
		}
	}
}

// TestSteadyHeap decodes the same image again and again: its pixels come from the pool.
func TestSteadyHeap(t *testing.T) {
	d := turboDecoder(t, exact)
	b := read(t, "pixels", "vga_420.jpg")
	const times = 50
	var before, after runtime.MemStats
	for i := range times + 1 {
		p := decoded(t, d, b)
		p.Release()
		p.Release() // a second time does nothing
		if i == 0 {
			runtime.ReadMemStats(&before)
		}
	}
	runtime.ReadMemStats(&after)
	// The race detector makes pools forget, and the collector may run: half is far from both.
	if got, one := after.TotalAlloc-before.TotalAlloc, uint64(640*480*3); got > times/2*one {
		t.Errorf("%d decodes allocated %d bytes, an image has %d", times, got, one)
	}
}

// TestNoLibrary opens names that are not there.
func TestNoLibrary(t *testing.T) {
	_, err := openTurbo([]string{"libnothing.so.0", "/nowhere/libnothing.so.0"})
	if err == nil || !strings.Contains(err.Error(), "libnothing.so.0") || !strings.Contains(err.Error(), "apt-get install libturbojpeg0") {
		t.Error(err)
	}
}

func TestLibrary(t *testing.T) {
	decoders(t, exact) // fails where the library is required
	lib, err := FindLibrary()
	if err != nil {
		t.Skip(err)
	}
	if !strings.Contains(lib, "libturbojpeg") {
		t.Errorf("%+v", lib)
	}
	t.Logf("%+v", lib)
}

// tiffHeader makes an 8-bit gray TIFF of one row to a strip, without pixels.
func tiffHeader(w, h uint32) []byte { return makeTIFF(w, h, nil, madeTags{tagRowsPerStrip: {1}}) }
