package resize

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

// noise makes w x h pixels with many extremes, so that sums are clipped at both ends. The program that
// computed the digests below made the same.
func noise(w, h int) []byte {
	pix := make([]byte, 3*w*h)
	x := uint32(12345)
	for i := range pix {
		x = x*1664525 + 1013904223
		switch v := byte(x >> 24); {
		case v&0x40 != 0:
			pix[i] = v
		case v&1 != 0:
			pix[i] = 255
		}
	}
	return pix
}

var fits = []string{FitCrop, FitSquash, FitPad}

// all are the kernels of this machine.
func all() []kernels {
	if fastest.name == portable.name {
		return []kernels{portable}
	}
	return []kernels{portable, fastest}
}

func newWith(kern kernels, fit string, size int) *Resizer {
	r := New(Config{Fit: fit}, size)
	r.kern = kern
	return r
}

// TestLikePIL compares with the first half of the SHA-256 of what Pillow 9.4 makes of the same pixels:
// resize with BICUBIC, then the crop, or paste onto the padding colour.
func TestLikePIL(t *testing.T) {
	for _, c := range []struct {
		w, h, size        int
		crop, squash, pad string
	}{
		{1, 1, 224, "4c8c68caf83f8bf128ec5c140e2794df", "4c8c68caf83f8bf128ec5c140e2794df", "4c8c68caf83f8bf128ec5c140e2794df"},
		{2, 1, 224, "6d6486dd45a16c0b9ec301944f6805dc", "d31caa78f38252873aee25d1ed702617", "70cdbc040bd002d93faa5381e4cdfd8b"},
		{1, 7, 224, "ce51800ac4cab788bfd3095d1adc6316", "b5392c160a805b9ec1c73ddc924b7135", "02ba31b625d526a8636ccf348dd2f129"},
		{3, 2, 224, "c4a9448f7a2c3b2724d2adfbe1a7b60d", "07dbe7eff7964aff812459de79d2f5fe", "521cc12cf0d85f99a639a5b3f481c6ba"},
		{5, 301, 224, "f3ff18432ab80d4a5fddaf667c5617ae", "f7b6d4693efe33e6aca531748a9aee4d", "9e0285210d9c45d53f5c795998ea726c"},
		{224, 224, 224, "c497b72d1797cea11bc8a750b45209ed", "c497b72d1797cea11bc8a750b45209ed", "c497b72d1797cea11bc8a750b45209ed"},
		{224, 225, 224, "c497b72d1797cea11bc8a750b45209ed", "2ae7ab947bad9d613f0f831830f15811", "963685d65ff615f17d4e857b686117d1"},
		{223, 224, 224, "4cf1f3826cb316dd13c3d6e8d3821fe8", "ba6fbf7d2ccbc3136106d5c6d946344d", "65d25856de90976290b03b446e929193"},
		{225, 224, 224, "fc8db21911ef946ce33d835f6e3a8f3a", "434e0ea7ee9cb93a55ad0ac8e8908389", "42246faad814511c938474bce070336b"},
		{224, 500, 224, "afde1598c4059c87ddbbe6e48dd8725f", "ff76a3cf16436b6c2515f6575922691b", "30a4521271df1a420b62f556dfa27859"},
		{400, 224, 224, "903d69285b5c9d4dd689f31998c07398", "d0bfd3bddbac5fb628cac50b5d06fcb9", "f10e075a3fbf9bb1746256f5a15d6fd7"},
		{640, 480, 224, "89e35a29c55f65e7a92c44e9f835a800", "ef0fe66da13fe39a3b05a432e852fd8a", "1566c93c67ae0be26b992e268e310831"},
		{481, 639, 224, "230d70cf19791043b9b5e87ae3ff9fa9", "8bcec835a14d22610362537127ef5c86", "17b166911a3277f3494eb282fbbe340d"},
		{1000, 7, 224, "48774a4f717e12ac2d121c701039cf15", "5c8704cc30930050cc1d6ec7e2d25e44", "0ed51689e6f0b325a52f41ec7147423a"},
		{7, 1000, 224, "011558e0601863721b353d5c9f08168a", "0e5096da87b79c14b3eef5bc9c7189cc", "3c057693f11287047dcb90a3c0d2927b"},
		{449, 448, 224, "394fce81165f68eb227d4f4ee64912ef", "394fce81165f68eb227d4f4ee64912ef", "79a13b3aa28f7583f5d326fce29fded5"},
		{1203, 901, 224, "52584ee2e07200bb20c40d149b25cf59", "18821173348ce604fc8ab69cb2b64ab5", "76fef3096592a93931706e0b74cdc186"},
		{90, 70, 32, "fb2863c55bbb5acfe4f76a19d2101ef6", "0620824a65d581b1cb2eb7b06bcf402f", "d63d98d4f89b1aaa5dd59b8899ba7202"},
		{33, 57, 5, "031c0c8788ed014c61d971cd1e210e14", "76e36d934238eae54d91e14d1b8d75d5", "a52474e078c698fb453fbd7d20597524"},
		{10, 10, 1, "981763dde4c416561844836083b204c7", "981763dde4c416561844836083b204c7", "981763dde4c416561844836083b204c7"},
		{64, 64, 3, "1a573370dbed37030319f4f4cb5d8055", "1a573370dbed37030319f4f4cb5d8055", "1a573370dbed37030319f4f4cb5d8055"},
		{300, 200, 336, "5bee1ba4e8fb859276942442add99f87", "88906fb8f913fb22dad09fafc65614af", "c3d2bca42208685d5d113abdcf4aaea5"},
	} {
		for fit, want := range map[string]string{FitCrop: c.crop, FitSquash: c.squash, FitPad: c.pad} {
			for _, kern := range all() {
				dst := make([]byte, 3*c.size*c.size)
				if err := newWith(kern, fit, c.size).Resize(dst, noise(c.w, c.h), c.w, c.h); err != nil {
					t.Fatal(err)
				}
				if sum := sha256.Sum256(dst); hex.EncodeToString(sum[:16]) != want {
					t.Errorf("%s: %s of %d x %d to %d: other pixels than PIL", kern.name, fit, c.w, c.h, c.size)
				}
			}
		}
	}
}

// plain computes one pixel of the square from the tables alone, as Resample.c reads: whole rows first,
// rounded to bytes, then columns.
func plain(t *testing.T, fit string, pix []byte, w, h, size int) []byte {
	g := fitted(fit, w, h, size)
	across, err := newTable(span{w, g.width, g.left, g.columns})
	if err != nil {
		t.Fatal(err)
	}
	down, err := newTable(span{h, g.height, g.top, g.rows})
	if err != nil {
		t.Fatal(err)
	}
	at := func(y, x, c int) int32 {
		sum := int32(half)
		for i := range across.taps {
			if k := across.weights[x*across.taps+i]; k != 0 {
				sum += k * int32(pix[3*(y*w+across.base+int(across.first[x])+i)+c])
			}
		}
		return int32(clip(sum))
	}
	dst := bytes.Repeat(padding[:], size*size)
	for y := range g.rows {
		for x := range g.columns {
			for c := range 3 {
				sum := int32(half)
				for i := range down.taps {
					if k := down.weights[y*down.taps+i]; k != 0 {
						sum += k * at(down.base+int(down.first[y])+i, x, c)
					}
				}
				dst[3*((g.y+y)*size+g.x+x)+c] = clip(sum)
			}
		}
	}
	return dst
}

// FuzzResize compares all kernels with the plain sums, on images of every small shape.
func FuzzResize(f *testing.F) {
	f.Add(uint16(40), uint16(30), uint8(20), uint8(0), []byte{0, 255, 255, 3})
	f.Add(uint16(1), uint16(200), uint8(7), uint8(1), []byte{255})
	f.Add(uint16(300), uint16(2), uint8(33), uint8(2), []byte{1, 2, 3, 4, 5, 250})
	f.Add(uint16(6), uint16(5), uint8(64), uint8(0), []byte{0, 0, 0, 255, 255, 255})
	f.Fuzz(func(t *testing.T, w16, h16 uint16, size8, fit8 uint8, pattern []byte) {
		w, h, size := int(w16)%400+1, int(h16)%400+1, int(size8)%80+1
		fit := fits[fit8%3]
		pix := noise(w, h)
		for i := range pattern {
			pix[i*7919%len(pix)] = pattern[i]
		}
		want := plain(t, fit, pix, w, h, size)
		for _, kern := range all() {
			dst := make([]byte, 3*size*size)
			if err := newWith(kern, fit, size).Resize(dst, pix[:len(pix):len(pix)], w, h); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dst, want) {
				t.Errorf("%s: %s of %d x %d to %d differs from the plain sums", kern.name, fit, w, h, size)
			}
		}
	})
}

// TestReuse takes one resizer through images of many shapes: nothing of one shows in the next, and
// nothing is written outside the square.
func TestReuse(t *testing.T) {
	for _, kern := range all() {
		r := newWith(kern, FitCrop, 224)
		memory := make([]byte, 64+3*224*224+64)
		dst := memory[64 : len(memory)-64 : len(memory)-64]
		for _, s := range [][2]int{{640, 480}, {3, 900}, {1920, 1080}, {1, 1}, {224, 224}, {900, 3}, {640, 480}} {
			pix := noise(s[0], s[1])
			copy(memory, bytes.Repeat([]byte{0xA5}, len(memory)))
			if err := r.Resize(dst, pix, s[0], s[1]); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, len(dst))
			if err := newWith(portable, FitCrop, 224).Resize(want, pix, s[0], s[1]); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dst, want) {
				t.Errorf("%s: %v differs after other images", kern.name, s)
			}
			edge := bytes.Repeat([]byte{0xA5}, 64)
			if !bytes.Equal(memory[:64], edge) || !bytes.Equal(memory[len(memory)-64:], edge) {
				t.Errorf("%s: %v was written beyond the square", kern.name, s)
			}
		}
	}
}

// TestNothingOfBefore resizes each image into squares that hold two different things, with working memory that holds
// two different things: every byte must come from the image alone. All ways of fitting, scales up, down and 1, sides
// of one pixel, and images so small that rows are read from the edge memory.
func TestNothingOfBefore(t *testing.T) {
	const size = 24
	sizes := [][2]int{{size, size}, {1, 1}, {1, 50}, {50, 1}, {2, 3}, {23, 25}, {size, 30}, {30, size}, {48, 48},
		{300, 17}, {17, 300}, {97, 61}}
	for _, kern := range all() {
		for _, fit := range fits {
			for _, s := range sizes {
				w, h := s[0], s[1]
				pix := noise(w, h)
				square := func(fill byte) []byte {
					r := newWith(kern, fit, size)
					r.window, r.edge = bytes.Repeat([]byte{fill}, 1<<20), bytes.Repeat([]byte{fill}, 1<<16)
					dst := bytes.Repeat([]byte{fill}, 3*size*size)
					if err := r.Resize(dst, bytes.Clone(pix), w, h); err != nil {
						t.Fatal(err)
					}
					return dst
				}
				zeros, ones := square(0), square(0xFF)
				if !bytes.Equal(zeros, ones) {
					t.Errorf("%s %s %d x %d: what was in memory before shows", kern.name, fit, w, h)
				}
			}
		}
	}
}

// TestRowsApart: bytes between the rows of an image do not show.
func TestRowsApart(t *testing.T) {
	const size = 24
	for _, kern := range all() {
		for _, fit := range fits {
			for _, s := range [][2]int{{size, size}, {size - 1, size}, {size, size - 7}, {1, 1}, {1, 50}, {50, 1}, {23, 25}, {size, 30}, {48, 48}, {300, 17}, {97, 61}} {
				w, h := s[0], s[1]
				pix, want := noise(w, h), make([]byte, 3*size*size)
				if err := newWith(kern, fit, size).Resize(want, pix, w, h); err != nil {
					t.Fatal(err)
				}
				for _, gap := range []int{1, 2, 3, 7, 64} { // with 3, rows of size-1 pixels begin as far apart as those of the square
					stride := 3*w + gap
					apart := bytes.Repeat([]byte{0xA5}, stride*h)
					for y := range h {
						copy(apart[y*stride:], pix[3*w*y:][:3*w])
					}
					dst := make([]byte, 3*size*size)
					if err := newWith(kern, fit, size).ResizeRows(dst, apart, w, h, stride); err != nil || !bytes.Equal(dst, want) {
						t.Errorf("%s %s %d x %d, %d bytes between the rows: the square is another, %v", kern.name, fit, w, h, gap, err)
					}
				}
			}
		}
	}
}

// TestExtreme has sides that would take absurd memory if the scaled image, or a table for a whole side, existed.
func TestExtreme(t *testing.T) {
	const long = 50_000_000
	pix := bytes.Repeat([]byte{77}, 3*long)
	dst := make([]byte, 3*224*224)
	r := New(Config{Fit: FitCrop}, 224)
	for _, s := range [][2]int{{1, long}, {long, 1}, {2, long / 2}, {long / 2, 2}, {5000, 10000}} {
		if err := r.Resize(dst, pix, s[0], s[1]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst, bytes.Repeat([]byte{77}, len(dst))) {
			t.Errorf("%v: not the one colour that it has", s)
		}
		if n := cap(r.window) + cap(r.edge); n > 1<<20 {
			t.Errorf("%v: %d bytes of working memory", s, n)
		}
	}
	for _, fit := range []string{FitSquash, FitPad} {
		err := New(Config{Fit: fit}, 224).Resize(dst, pix, long, 1)
		if !errors.Is(err, ErrTooExtreme) || !strings.Contains(err.Error(), "50000000") {
			t.Errorf("%s: %v", fit, err)
		}
	}
}

// TestScale: of a whole image that is scaled the middle is what "crop" shows of it, and what is wrong is said.
func TestScale(t *testing.T) {
	for _, c := range [][3]int{{640, 480, 256}, {480, 640, 256}, {301, 300, 64}, {100, 100, 100}, {40, 50, 80}, {2000, 65, 64}} {
		w, h, size := c[0], c[1], c[2]
		g := fitted(FitCrop, w, h, size)
		pix, square, whole := noise(w, h), make([]byte, 3*size*size), make([]byte, 3*g.width*g.height)
		if err := errors.Join(New(Config{Fit: FitCrop}, size).Resize(square, pix, w, h), Scale(whole, g.width, g.height, pix, w, h, 3*w)); err != nil {
			t.Fatal(err)
		}
		for y := range size {
			if !bytes.Equal(square[3*y*size:][:3*size], whole[3*((g.top+y)*g.width+g.left):][:3*size]) {
				t.Fatalf("%v: row %d is another one", c, y)
			}
		}
	}
	for _, c := range [][3]int{{12, 0, 4}, {12, 4, 0}, {11, 2, 2}, {13, 2, 2}, {12, -2, -2}} {
		if err := Scale(make([]byte, c[0]), c[1], c[2], noise(4, 4), 4, 4, 12); err == nil {
			t.Errorf("%v is taken", c)
		}
	}
	if err := Scale(make([]byte, 12), 2, 2, noise(4, 4), 4, 5, 12); err == nil {
		t.Error("a row that is not there is taken")
	}
}

func TestArguments(t *testing.T) {
	r := New(Config{Fit: FitCrop}, 4)
	dst := make([]byte, 48)
	for _, c := range []struct {
		name   string
		dst, n int
		w, h   int
	}{
		{"no width", 48, 12, 0, 4}, {"no height", 48, 12, 4, 0}, {"negative", 48, 12, -2, -2},
		{"too few bytes", 48, 11, 2, 2}, {"too many bytes", 48, 13, 2, 2}, {"overflow", 48, 12, math.MaxInt / 2, 8},
		{"small square", 47, 12, 2, 2},
	} {
		if err := r.Resize(dst[:c.dst], make([]byte, c.n), c.w, c.h); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
	for _, n := range []int{7 + 5, 14 + 1, 14 + 6, 21} { // 2 x 2 pixels are 7 + 6 to 14
		if err := r.ResizeRows(dst, make([]byte, n), 2, 2, 7); err == nil {
			t.Errorf("%d bytes in rows of 7: no error", n)
		}
	}
	for _, stride := range []int{0, -6, 5, 7, math.MaxInt, math.MinInt} {
		if err := r.ResizeRows(dst, make([]byte, 12), 2, 2, stride); err == nil {
			t.Errorf("stride %d: no error", stride)
		}
	}
	if !bytes.Equal(dst, make([]byte, 48)) {
		t.Error("written to in spite of an error")
	}
}

// TestTables fills a cache with more than it holds, from several goroutines.
func TestTables(t *testing.T) {
	c := tableCache{known: map[span]*table{}}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 300 {
				s := span{in: 5000 + (i*7+worker)%500, out: 224, count: 224}
				if got, err := c.get(s); err != nil || len(got.first) != 224 {
					t.Error(s, err)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, o := range c.known {
		sum += len(o.weights)
	}
	if sum != c.weights || sum > maxCached || len(c.known) < 10 {
		t.Errorf("%d tables of %d weights, counted %d, at most %d", len(c.known), sum, c.weights, maxCached)
	}
}

func TestSteady(t *testing.T) {
	r := New(Config{Fit: FitCrop}, 224)
	dst, pix := make([]byte, 3*224*224), noise(640, 480)
	if n := testing.AllocsPerRun(10, func() {
		if err := r.Resize(dst, pix, 640, 480); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each image", n)
	}
}

func BenchmarkResize(b *testing.B) {
	for _, kern := range all() {
		for _, s := range [][2]int{{640, 480}, {1280, 720}, {1920, 1080}, {4000, 3000}} {
			b.Run(fmt.Sprintf("%s/%dx%d", kern.name, s[0], s[1]), func(b *testing.B) {
				r := newWith(kern, FitCrop, 224)
				dst, pix := make([]byte, 3*224*224), noise(s[0], s[1])
				b.ReportAllocs()
				for b.Loop() {
					if err := r.Resize(dst, pix, s[0], s[1]); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(s[0]*s[1]), "pixels/op")
			})
		}
	}
}

func BenchmarkTable(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newTable(span{1920, 398, 87, 224}); err != nil {
			b.Fatal(err)
		}
	}
}
