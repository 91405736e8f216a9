package decode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// published are the factors of V in R, of U and V in G, and of U in B, by matrix and range, as tables of video engineering
// have them.
var published = map[string][4]float64{
	"bt601 limited": {1.59602679, -0.39176229, -0.81296765, 2.01723214},
	"bt709 limited": {1.79274107, -0.21324861, -0.53290933, 2.11240179},
	"bt601 full":    {1.402, -0.344136286, -0.714136286, 1.772},
	"bt709 full":    {1.5748, -0.187324273, -0.468124273, 1.8556},
}

// rgbOf converts by the published formula, without rounding.
func rgbOf(matrix, levels string, y, u, v byte) [3]float64 {
	k := published[matrix+" "+levels]
	luma, cb, cr := float64(y), float64(u)-128, float64(v)-128
	if levels == "limited" {
		luma = 1.164383562 * (luma - 16)
	}
	rgb := [3]float64{luma + k[0]*cr, luma + k[1]*cb + k[2]*cr, luma + k[3]*cb}
	for i, c := range rgb {
		rgb[i] = min(max(c, 0), 255)
	}
	return rgb
}

// rounded says that got is what wanting rounds to.
func rounded(got byte, want float64) bool { return math.Abs(float64(got)-want) <= 0.50001 }

// rawPixel is where the samples of a pixel lie, by the definition of each format.
func rawPixel(format, matrix, levels string, b []byte, x, y, h, stride int) [3]float64 {
	plane := b[stride*h:]
	switch format {
	case "rgb24":
		p := b[y*stride+3*x:]
		return [3]float64{float64(p[0]), float64(p[1]), float64(p[2])}
	case "bgr24":
		p := b[y*stride+3*x:]
		return [3]float64{float64(p[2]), float64(p[1]), float64(p[0])}
	case "gray8":
		v := float64(b[y*stride+x])
		return [3]float64{v, v, v}
	case "nv12":
		return rgbOf(matrix, levels, b[y*stride+x], plane[y/2*stride+x/2*2], plane[y/2*stride+x/2*2+1])
	case "i420":
		return rgbOf(matrix, levels, b[y*stride+x], plane[y/2*stride/2+x/2], plane[stride/2*h/2+y/2*stride/2+x/2])
	}
	p := b[y*stride+x/2*4:]
	return rgbOf(matrix, levels, p[x%2*2], p[1], p[3])
}

// randomFrame is random bytes for a frame.
func randomFrame(f Raw, seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, f.Bytes())
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// TestRawFrames converts random frames of each format, with and without padding, and compares each pixel with the formula.
func TestRawFrames(t *testing.T) {
	d := newDecoder(Config{MaxPixels: 1 << 20, JPEGScale: ScaleExact}, 224, nil)
	for _, format := range names() {
		for space := range published {
			matrix, levels, _ := strings.Cut(space, " ")
			for _, c := range []struct{ w, h, padding int }{{2, 2, 0}, {64, 48, 0}, {62, 6, 10}, {2, 50, 2}} {
				text := fmt.Sprintf("%s; %dx%d; matrix=%s; range=%s", format, c.w, c.h, matrix, levels)
				f, err := ParseRaw(text)
				if err == nil {
					text += fmt.Sprint("; stride=", f.stride+c.padding)
					f, err = ParseRaw(text)
				}
				if err != nil {
					t.Fatal(text, err)
				}
				b := randomFrame(f, 1)
				before := bytes.Clone(b)
				plan, err := d.InspectRaw(b, f)
				if err != nil {
					t.Fatal(text, err)
				}
				p := poisoned(t, plan, 0x55)
				if p.Width != c.w || p.Height != c.h || p.Format != format || p.Orientation != 1 || !bytes.Equal(b, before) {
					t.Errorf("%s: %d x %d, %s, %d", text, p.Width, p.Height, p.Format, p.Orientation)
				}
				stride := 3 * c.w
				if format == "rgb24" {
					if stride = p.Stride; &p.Pix[0] != &b[0] {
						t.Error("rgb24 has been copied")
					}
				} else if p.Stride != 0 || len(p.Pix) != stride*c.h {
					t.Errorf("%s: %d bytes with a stride of %d", text, len(p.Pix), p.Stride)
				}
				for i := range c.w * c.h {
					x, y := i%c.w, i/c.w
					for channel, want := range rawPixel(format, matrix, levels, b, x, y, c.h, f.stride) {
						if got := p.Pix[y*stride+3*x+channel]; !rounded(got, want) {
							t.Fatalf("%s: channel %d of pixel %d, %d is %d, want %v", text, channel, x, y, got, want)
						}
					}
				}
				p.Release()
			}
		}
	}
}

// TestYUV compares the integers with the formula, for a part of all samples that has every value of each.
func TestYUV(t *testing.T) {
	for m, matrix := range []string{"bt601", "bt709"} {
		for r, levels := range []string{"limited", "full"} {
			k := &coefficients[m][r]
			for v := range 256 {
				for u := v % 3; u < 256; u += 3 {
					for y := (u + v) % 2; y < 256; y += 2 {
						var pix [6]byte
						k.pixels(&pix, byte(y), byte(255-y), byte(u), byte(v))
						for i, y := range []byte{byte(y), byte(255 - y)} {
							for channel, want := range rgbOf(matrix, levels, y, byte(u), byte(v)) {
								if got := pix[3*i+channel]; !rounded(got, want) {
									t.Fatalf("%s %s: channel %d of %d, %d, %d is %d, want %v", matrix, levels, channel, y, u, v, got, want)
								}
							}
						}
					}
				}
			}
		}
	}
	// Black, white and the primary colours of a test signal, as BT.601 and BT.709 have them in limited range.
	for _, c := range []struct {
		matrix  int
		y, u, v byte
		rgb     [3]byte
	}{{0, 16, 128, 128, [3]byte{0, 0, 0}}, {0, 235, 128, 128, [3]byte{255, 255, 255}}, {0, 81, 90, 240, [3]byte{254, 0, 0}},
		{1, 63, 102, 240, [3]byte{255, 1, 0}}, {1, 32, 240, 118, [3]byte{1, 0, 255}}} {
		var pix [6]byte
		coefficients[c.matrix][0].pixels(&pix, c.y, c.y, c.u, c.v)
		if [3]byte(pix[:3]) != c.rgb {
			t.Errorf("%d, %d, %d is %v, want %v", c.y, c.u, c.v, pix[:3], c.rgb)
		}
	}
}

func TestParseRaw(t *testing.T) {
	for text, want := range map[string]Raw{
		"rgb24;1x1": {rgb24, 1, 1, 3, 0, false},
		"rgb24; 640x480; stride=1920; matrix=bt601; range=limited": {rgb24, 640, 480, 1920, 0, false},
		" bgr24 ;\t3x5 ; range=full;matrix=bt709;stride=16 ":       {bgr24, 3, 5, 16, 1, true},
		"gray8; 2147483647x2147483647":                             {gray8, math.MaxInt32, math.MaxInt32, math.MaxInt32, 0, false},
		"nv12; 2x2; stride=3":                                      {nv12, 2, 2, 3, 0, false},
		"i420; 2x4; stride=4":                                      {i420, 2, 4, 4, 0, false},
		"yuyv; 0640x480":                                           {yuyv, 640, 480, 1280, 0, false},
	} {
		if f, err := ParseRaw(text); err != nil || f != want || f.Compressed() {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
	for text, want := range map[string]string{
		"": "one of rgb24,", "rgb; 1x1": "one of rgb24,", "RGB24; 1x1": "one of rgb24,", "1x1; rgb24": "one of rgb24,", "rgb24, 1x1": "one of rgb24,",
		"rgb24": "width and height are missing", "rgb24;": "not width and height", "rgb24; 1": "not width and height",
		"rgb24; 0x1": "not width and height", "rgb24; -1x1": "not width and height", "rgb24; 1x+1": "not width and height",
		"rgb24; 1x1x1": "not width and height", "rgb24; 2147483648x1": "not width and height", "rgb24; 1X1": "not width and height",
		"rgb24; 1 x 1": "not width and height", "rgb24; stride=3; 1x1": "not width and height",
		"nv12; 1x2": "must be even", "i420; 2x1": "must be even", "yuyv; 3x2": "must be even",
		"rgb24; 2x2; stride=5": "at least 6", "yuyv; 2x2; stride=3": "at least 4", "rgb24; 1x1; stride=": "at least 3", "rgb24; 1x1; stride=-3": "at least 3",
		"rgb24; 1x1; stride=3x": "at least 3", "rgb24; 1x1; stride=99999999999": "at least 3", "rgb24; 2147483647x1; stride=2147483647": "at least 6442450941",
		"i420; 2x2; stride=3": "must be even", "rgb24; 1x1; stride=3; stride=3": "comes twice",
		"rgb24; 1x1; matrix=bt2020": "one of bt601, bt709", "rgb24; 1x1; range=tv": "one of limited, full", "rgb24; 1x1; range": "one of limited, full",
		"rgb24; 1x1;": "none of", "rgb24; 1x1; Stride=3": "none of", "rgb24; 1x1; offset=3": "none of",
	} {
		if f, err := ParseRaw(text); err == nil || !strings.Contains(err.Error(), want) || f != (Raw{}) {
			t.Errorf("%q: %+v, %v, want %s", text, f, err, want)
		}
	}
}

// TestRawString: what is written is read as the same.
func TestRawString(t *testing.T) {
	for _, text := range []string{"rgb24; 640x480", "nv12; 640x480; stride=704; matrix=bt709; range=full", "gray8; 3x5; stride=8", "i420; 2x2; range=full"} {
		f, err := ParseRaw(text)
		if err != nil || f.String() != text {
			t.Errorf("%s is written as %s, %v", text, f, err)
		}
	}
	if (Raw{}).String() != "" {
		t.Error("a compressed image has a format")
	}
}

// TestRawLength: a body has exactly the bytes that the format says, and no more pixels than are allowed.
func TestRawLength(t *testing.T) {
	d := newDecoder(Config{MaxPixels: 64, JPEGScale: ScaleExact}, 224, nil)
	for text, n := range map[string]int{
		"rgb24; 3x3": 27, "rgb24; 3x3; stride=10": 30, "bgr24; 3x3": 27, "gray8; 3x3": 9, "gray8; 3x3; stride=4": 12,
		"nv12; 4x2": 12, "nv12; 4x2; stride=5": 15, "i420; 4x2": 12, "i420; 4x2; stride=6": 18, "yuyv; 4x2": 16, "yuyv; 4x2; stride=9": 18,
	} {
		f, err := ParseRaw(text)
		if err != nil || f.Bytes() != n {
			t.Fatal(text, f.Bytes(), err)
		}
		for length, want := range map[int]error{n - 1: ErrTruncated, n: nil, n + 1: ErrCorrupt, 0: ErrTruncated} {
			if _, err := d.InspectRaw(make([]byte, length), f); !errors.Is(err, want) {
				t.Errorf("%s in %d bytes: %v", text, length, err)
			}
		}
	}
	for _, text := range []string{"rgb24; 65x1", "gray8; 2147483647x2147483647; stride=2147483647", "nv12; 2x2147483646; stride=2147483647"} {
		f, err := ParseRaw(text)
		if err != nil {
			t.Fatal(text, err)
		}
		if _, err := d.InspectRaw(make([]byte, 100), f); !errors.Is(err, ErrTooManyPixels) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRawEnds: a conversion ends soon after its context.
func TestRawEnds(t *testing.T) {
	f, _ := ParseRaw("i420; 1000x1000")
	plan, err := newDecoder(Config{MaxPixels: 1 << 20, JPEGScale: ScaleExact}, 224, nil).InspectRaw(make([]byte, f.Bytes()), f)
	if err != nil || plan.Memory < 3_000_000 {
		t.Fatal(plan.Memory, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	d := Decoder{}
	if _, err := d.Decode(ctx, plan); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

// FuzzRaw reads a description and a frame: no panic, one sentinel for each error, and pixels that depend on nothing but those.
func FuzzRaw(f *testing.F) {
	for _, text := range []string{"rgb24; 4x2; stride=13", "bgr24; 1x1", "gray8; 5x3", "nv12; 4x2; matrix=bt709", "i420; 4x4; range=full", "yuyv; 6x2; stride=15"} {
		raw, err := ParseRaw(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, randomFrame(raw, 2))
	}
	const maxPixels = 100_000
	d := newDecoder(Config{MaxPixels: maxPixels, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		raw, err := ParseRaw(text)
		if err != nil {
			if len(err.Error()) > 4*len(text)+200 {
				t.Errorf("%v", err)
			}
			return
		}
		b = b[:len(b):len(b)]
		plan, err := d.InspectRaw(b, raw)
		if err != nil {
			if !oneSentinel(err) {
				t.Error(err)
			}
			return
		}
		if len(b) != raw.Bytes() || plan.Width*plan.Height > maxPixels || plan.Work > int64(len(b)+3*maxPixels) || plan.Memory > int64(4*maxPixels+64<<10) {
			t.Errorf("%q: %d bytes, %d x %d, work %d, memory %d", text, len(b), plan.Width, plan.Height, plan.Work, plan.Memory)
		}
		one, two := poisoned(t, plan, 0x11), poisoned(t, plan, 0xEE)
		if one.Pix == nil || !bytes.Equal(one.Pix, two.Pix) {
			t.Errorf("%q: what was in the buffers before shows", text)
		}
		one.Release()
		two.Release()
	})
}

func BenchmarkRaw(b *testing.B) {
	d := newDecoder(Config{MaxPixels: 1 << 20, JPEGScale: ScaleExact}, 224, nil)
	for _, format := range names() {
		b.Run(format, func(b *testing.B) {
			f, _ := ParseRaw(format + "; 640x480")
			frame := randomFrame(f, 3)
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				plan, _ := d.InspectRaw(frame, f)
				p, err := d.Decode(b.Context(), plan)
				if err != nil {
					b.Fatal(err)
				}
				p.Release()
			}
		})
	}
}
