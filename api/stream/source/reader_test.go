package source

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	gojpeg "image/jpeg"
	gopng "image/png"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drawing is an image of noise, so that all byte values come up in its JPEG.
func drawing(seed uint64, w, h int) image.Image {
	r := rand.New(rand.NewPCG(seed, 1))
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.Set(i%w, i/w, color.RGBA{byte(r.Uint32()), byte(i), byte(i / w), 255})
	}
	return m
}

func jpegOf(seed uint64, w, h int) []byte {
	var b bytes.Buffer
	if err := gojpeg.Encode(&b, drawing(seed, w, h), &gojpeg.Options{Quality: 95}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func pngOf(seed uint64, w, h int) []byte {
	var b bytes.Buffer
	if err := gopng.Encode(&b, drawing(seed, w, h)); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// insert puts segments, with their markers, behind the SOI of a JPEG.
func insert(img []byte, segments ...[]byte) []byte {
	return slices.Concat(img[:2], slices.Concat(segments...), img[2:])
}

// segment is one with its marker and length.
func segment(marker byte, content []byte) []byte {
	n := len(content) + 2
	return slices.Concat([]byte{0xff, marker, byte(n >> 8), byte(n)}, content)
}

// webpOf is a file that is WebP by its container alone.
func webpOf(n int) []byte {
	b := append([]byte("RIFF\x00\x00\x00\x00WEBPVP8L"), bytes.Repeat([]byte("\xff\xd8\xff--b\r\n"), n)...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	size := len(b) - 8
	b[4], b[5], b[6] = byte(size), byte(size>>8), byte(size>>16)
	return b
}

const testFrame = 1 << 20

// frames reads all images of a stream.
func frames(t testing.TB, r io.Reader, boundary string, l Limits) (images [][]byte, skipped int, err error) {
	t.Helper()
	reader := NewReader(r, boundary, l)
	buf := bytes.Repeat([]byte("old"), 10)
	for {
		image, n, err := reader.Next(buf, appended)
		skipped += n
		if buf = image; err != nil {
			if len(image) > 0 {
				t.Error("an image beside an error")
			}
			return images, skipped, err
		}
		if len(image) > l.FrameBytes {
			t.Errorf("an image of %d bytes, and %d are allowed", len(image), l.FrameBytes)
		}
		images = append(images, bytes.Clone(image))
	}
}

// stream is a body and what is to be found in it.
type stream struct {
	boundary string
	body     []byte
	want     [][]byte
	skipped  int
}

// streams are the ways in which cameras write, well and badly.
func streams() map[string]stream {
	a, b, c := jpegOf(1, 40, 30), jpegOf(2, 90, 60), jpegOf(3, 20, 20)
	abc := [][]byte{a, b, c}
	thumbnail := jpegOf(9, 16, 12)
	exif := insert(a, segment(0xe1, slices.Concat([]byte("Exif\x00\x00II*\x00"), thumbnail)))
	comment := insert(b, segment(0xfe, []byte("\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\xd9\r\n--b--\r\n")))
	restarts := bytes.Clone(b)
	for i := len(restarts) - 60; i < len(restarts)-20; i += 8 {
		copy(restarts[i:], []byte{0xff, 0xd0 + byte(i%8), 1, 0xff, 0, 2, 3, 4})
	}
	filled := slices.Concat([]byte{0xff, 0xd8, 0xff, 0xff, 0xff, 0xff}, a[3:len(a)-2], []byte{0xff, 0xff, 0xff, 0xd9})

	cat := func(parts ...any) []byte {
		var out []byte
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				out = append(out, p...)
			case []byte:
				out = append(out, p...)
			}
		}
		return out
	}
	// each writes parts of format, with the length of the image where that has a verb, and the image.
	each := func(format, after string, images ...[]byte) []byte {
		var out []byte
		for _, m := range images {
			head := format
			if strings.Contains(format, "%") {
				head = fmt.Sprintf(format, len(m))
			}
			out = append(append(append(out, head...), m...), after...)
		}
		return out
	}
	const plain, sized = "--b\r\nContent-Type: image/jpeg\r\n\r\n", "--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
	odd := slices.Concat(a[:20], []byte("between segments"), a[20:])
	noEnd := a[:len(a)-2]

	return map[string]stream{
		"well formed":                     {"b", cat(each(sized, "\r\n", abc...), "--b--\r\n"), abc, 0},
		"without Content-Length":          {"b", cat(each(plain, "\r\n", abc...), "--b--\r\n"), abc, 0},
		"no Content-Type outside":         {"", each(sized, "\r\n", abc...), abc, 0},
		"as ffmpeg writes it":             {"", cat("--ffmpeg\r\n", each("Content-type: image/jpeg\r\nContent-length: %d\r\n\r\n", "\r\n--ffmpeg\r\n", abc...)), abc, 0},
		"the header has the hyphens":      {"--b", each(sized, "\r\n", abc...), abc, 0},
		"hyphens once more in the stream": {"--b", each("--"+sized, "\r\n", abc...), abc, 0},
		"every boundary ends in hyphens":  {"data-boundary", each("--data-boundary--\r\nContent-Type: image/jpeg\r\n\r\n", "\r\n", abc...), abc, 0},
		"no boundary in front":            {"b", cat(each("Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", "\r\n", a), each(sized, "\r\n", b, c)), abc, 0},
		"no boundary at all":              {"b", each("Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", "\r\n", abc...), abc, 0},
		"boundary twice":                  {"b", each("--b\r\n"+sized, "\r\n", abc...), abc, 0},
		"boundary without hyphens":        {"b", each("b\r\nContent-Type: image/jpeg\r\n\r\n", "\r\n", abc...), abc, 0},
		"another boundary than declared":  {"x", each(plain, "\r\n", abc...), abc, 0},
		"line feeds alone":                {"b", each("--b\nContent-Length: %d\n\n", "\n", abc...), abc, 0},
		"line feeds alone, no length":     {"b", each("--b\nContent-Type: image/jpeg\n\n", "\n", abc...), abc, 0},
		"no line end behind the image":    {"b", each(sized, "", abc...), abc, 0},
		"empty lines in front":            {"b", cat("\r\n\r\n", each(sized+"\r\n\r\n", "\r\n\r\n\r\n", abc...)), abc, 0},
		"no headers":                      {"b", each("--b\r\n\r\n", "\r\n", abc...), abc, 0},
		"other headers":                   {"b", each("--b\r\nServer: x\r\nX-Timestamp: 1.25\r\nno header\r\nContent-Length: %d\r\n\r\n", "\r\n", abc...), abc, 0},
		"concatenated":                    {"", cat(a, b, c), abc, 0},
		"concatenated in a declared form": {"b", cat(a, b, c), abc, 0},
		"garbage between":                 {"b", cat("\x00\x00", a, "\x00\xff\xfejunk\xff", b, strings.Repeat("\x00", 100_000), c, "x"), abc, 0},
		"padded within the length":        {"b", each("--b\r\nContent-Length: 6000\r\n\r\n", strings.Repeat("\x00", 100)+"\r\n", abc...), abc, 0},
		"length too small":                {"b", each("--b\r\nContent-Length: 100\r\n\r\n", "\r\n", abc...), abc, 0},
		"length of nothing":               {"b", each("--b\r\nContent-Length: 0\r\n\r\n", "\r\n", abc...), abc, 0},
		"length one too small":            {"b", cat(fmt.Sprintf("--b\r\nContent-Length: %d\r\n\r\n", len(a)-1), a, "\r\n", each(sized, "\r\n", b, c)), abc, 0},
		"length too large":                {"b", each("--b\r\nContent-Length: 100000\r\n\r\n", "\r\n", abc...), abc, 0},
		"length huge":                     {"b", each("--b\r\nContent-Length: 99999999999999999999999\r\n\r\n", "\r\n", abc...), abc, 0},
		"length negative":                 {"b", each("--b\r\nContent-Length: -1\r\n\r\n", "\r\n", abc...), abc, 0},
		"length garbage":                  {"b", each("--b\r\nContent-Length: 12 bytes\r\nContent-Length\r\nContent-Length:\r\n\r\n", "\r\n", abc...), abc, 0},
		"wrong type":                      {"b", each("--b\r\nContent-Type: text/plain\r\n\r\n", "\r\n", abc...), abc, 0},
		"PNG and WebP":                    {"b", cat(each(sized, "\r\n", pngOf(1, 30, 20)), each(plain, "\r\n", webpOf(50), pngOf(2, 20, 30)), "--b--"), [][]byte{pngOf(1, 30, 20), webpOf(50), pngOf(2, 20, 30)}, 0},
		"PNG and WebP, concatenated":      {"", cat(pngOf(1, 30, 20), webpOf(50), a, pngOf(2, 20, 30)), [][]byte{pngOf(1, 30, 20), webpOf(50), a, pngOf(2, 20, 30)}, 0},
		"thumbnail":                       {"b", each(plain, "\r\n", exif, b, exif), [][]byte{exif, b, exif}, 0},
		"thumbnail, concatenated":         {"", cat(exif, exif, b), [][]byte{exif, exif, b}, 0},
		"boundary within":                 {"b", each(plain, "\r\n", comment, a, comment), [][]byte{comment, a, comment}, 0},
		"restarts and fill bytes":         {"", cat(restarts, filled, c), [][]byte{restarts, filled, c}, 0},
		"a second image in the part":      {"b", each(fmt.Sprintf("--b\r\nContent-Length: %d\r\n\r\n", len(a)+len(thumbnail)), string(thumbnail)+"\r\n", a, a), [][]byte{a, a}, 0},
		"parts that are no images":        {"b", cat(plain, "hello\r\n", each(sized, "\r\n", a), "--b\r\nContent-Type: video/x-h264\r\n\r\n\x00\x00\x00\x01\x67xyz\nxyz\r\n", each(sized, "\r\n", b), sized, c), abc, 2},
		"an image in what is none":        {"b", cat("--b\r\nContent-Type: audio/pcm\r\nContent-Length: 405\r\n\r\n", "sound", strings.Repeat("\n\n\xff\xd8\xff\xe0", 66), "\r\n\r\n", each(sized, "\r\n", abc...)), abc, 1},
		"an empty part":                   {"b", cat("--b\r\nContent-Type: image/jpeg\r\n\r\n", each(sized, "\r\n", abc...)), abc, 1},
		"endless headers":                 {"b", cat("--b\r\n", strings.Repeat("X-Long: yyyyyyyyyyyyy\r\n", 2000), "\r\n", each(sized, "\r\n", abc...)), abc, 1},
		"an endless line":                 {"b", cat("--b\r\nX: ", strings.Repeat("y", 100_000), each("\r\n"+sized, "", abc...)), abc, 1},
		"cut, the next by its boundary":   {"b", cat(plain, a[:len(a)/2], "\r\n", each(sized, "\r\n", b, c)), [][]byte{b, c}, 1},
		"cut, with its former length":     {"b", cat(fmt.Sprintf(sized, len(a)), a[:len(a)/2], "\r\n", each(sized, "\r\n", b, c)), [][]byte{b, c}, 1},
		"cut, concatenated":               {"", cat(a, b[:len(b)/2], c, a), [][]byte{a, c, a}, 1},
		"cut in a segment":                {"b", cat(plain, exif[:300], "\r\n", each(sized, "\r\n", b, c)), [][]byte{b, c}, 1},
		"cut in a segment, concatenated":  {"", cat(b, exif[:300], "\xff\xd9", c, a), [][]byte{b, c, a}, 1},
		"the last cut":                    {"b", cat(each(sized, "\r\n", a, b), fmt.Sprintf(sized, len(c)), c[:len(c)/2]), [][]byte{a, b}, 1},
		"the last cut, concatenated":      {"", cat(a, b, c[:len(c)-1]), [][]byte{a, b}, 1},
		"the last without boundary":       {"b", cat(each(sized, "\r\n", a, b), plain, c), abc, 0},
		"no end, by length":               {"b", cat(each(sized, "\r\n", noEnd, b), fmt.Sprintf(sized, len(noEnd)), noEnd), [][]byte{noEnd, b, noEnd}, 0},
		"odd, by length":                  {"b", cat(each(sized, "\r\n", odd, b, odd)), [][]byte{odd, b, odd}, 0},
		"damaged, by length":              {"b", cat(each(sized, "\r\n", damage(b, 30, 0xaa), b, a)), [][]byte{damage(b, 30, 0xaa), b, a}, 0},
		"damaged marker":                  {"b", cat(each(plain, "\r\n", damage(b, 136, 0xaa), b, a)), [][]byte{b, a}, 1},
		"damaged marker, concatenated":    {"", cat(c, damage(b, 136, 0xaa), b, a), [][]byte{c, b, a}, 1},
		"damaged length of a segment":     {"b", cat(each(plain, "\r\n", damage(b, 138, 0x20), b, a, c)), [][]byte{b, a, c}, 1},
		"damaged PNG":                     {"b", cat(each(plain, "\r\n", damage(pngOf(1, 90, 90), 33, 0x10), b, a)), [][]byte{b, a}, 1},
		"damaged PNG, huge chunk":         {"b", cat(each(plain, "\r\n", damage(pngOf(1, 90, 90), 33, 0xff), b, a)), [][]byte{b, a}, 1},
		"too large":                       {"b", cat(each(plain, "\r\n", a, insert(b, slices.Repeat([][]byte{segment(0xe5, make([]byte, 65000))}, 20)...), c)), [][]byte{a, c}, 1},
		"too large, by length":            {"b", cat(each(sized, "\r\n", a, insert(b, slices.Repeat([][]byte{segment(0xe5, thumbnailed(thumbnail))}, 20)...), c)), [][]byte{a, c}, 1},
		"an image without data":           {"", cat("\xff\xd8\xff\xd9", a, b, c), abc, 1},
		"an answer of an HTTP server":     {"", cat("<html><body>Unauthorized</body></html>"), nil, 0},
		"nothing":                         {"", nil, nil, 0},
		"a thousand frames, as they come": {"b", bytes.Repeat(each(sized, "\r\n", abc...), 30), slices.Repeat(abc, 30), 0},
		"of one color, with long lines":   {"", cat(bytes.Repeat([]byte{0}, 5<<20)), nil, 0},
	}
}

func thumbnailed(thumbnail []byte) []byte {
	return append(append([]byte("\n\n"), thumbnail...), make([]byte, 60_000)...)
}

func damage(image []byte, at int, c byte) []byte {
	image = bytes.Clone(image)
	image[at] = c
	return image
}

func appended(b []byte, more int) ([]byte, error) { return slices.Grow(b, more), nil }

func TestReader(t *testing.T) {
	readers := map[string]func(io.Reader) io.Reader{
		"whole":    func(r io.Reader) io.Reader { return r },
		"bytewise": iotest.OneByteReader,
		"halved":   iotest.HalfReader,
		"data+EOF": iotest.DataErrReader,
	}
	for name, s := range streams() {
		for how, wrap := range readers {
			if how == "bytewise" && len(s.body) > 60_000 {
				continue
			}
			got, skipped, err := frames(t, wrap(bytes.NewReader(s.body)), s.boundary, Limits{testFrame})
			if !errors.Is(err, io.EOF) && (!errors.Is(err, ErrNoImages) || len(s.body) <= 4*testFrame) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if !slices.EqualFunc(got, s.want, bytes.Equal) || skipped != s.skipped {
				t.Errorf("%s, %s: %d frames%v, %d skipped; want %d%v, %d", name, how,
					len(got), lengths(got), skipped, len(s.want), lengths(s.want), s.skipped)
			}
		}
	}
}

func lengths(images [][]byte) (n []int) {
	for _, m := range images[:min(len(images), 5)] {
		n = append(n, len(m))
	}
	return n
}

// A frame is there with its last byte: nobody waits for the boundary of the next one.
func TestReaderDoesNotWaitForWhatFollows(t *testing.T) {
	for name, head := range map[string]string{"sized": "--b\r\nContent-Length: %d\r\n\r\n", "not": "--b\r\n\r\n%.0d", "bare": "%.0d"} {
		in, out := io.Pipe()
		reader := NewReader(in, "b", Limits{testFrame})
		for i := range 5 {
			want := jpegOf(uint64(i), 60, 40)
			go func() { out.Write(slices.Concat(fmt.Appendf(nil, head, len(want)), want)) }()
			got, skipped, err := reader.Next(nil, appended)
			if err != nil || skipped != 0 || !bytes.Equal(got, want) {
				t.Fatal(name, i, len(got), skipped, err)
			}
		}
		in.Close()
	}
}

// What grow refuses costs that frame alone, and no memory of the caller's is lost.
func TestReaderWithoutMemory(t *testing.T) {
	a, b := jpegOf(1, 200, 200), jpegOf(2, 60, 40)
	exif := insert(a, segment(0xe1, append([]byte("Exif\x00\x00\n\n"), b...)))
	body := slices.Concat([]byte("--b\r\n\r\n"), exif, []byte("\r\n--b\r\n\r\n"), b, []byte("\r\n"), exif, exif, b)
	for _, least := range []int{0, 100, 70_000} {
		full := errors.New("full")
		lent := make([]byte, 0, len(b))
		grow := func(b []byte, more int) ([]byte, error) {
			if &lent[:1][0] != &b[:1][0] {
				t.Error("another buffer")
			}
			if len(b) >= least {
				return nil, full
			}
			lent = append(make([]byte, 0, len(b)+more), b...)
			return lent, nil
		}
		var whole, refused int
		reader := NewReader(bytes.NewReader(body), "b", Limits{testFrame})
		for {
			got, _, err := reader.Next(lent, grow)
			if &lent[:1][0] != &got[:1][0] {
				t.Error("another buffer")
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if errors.Is(err, full) {
				refused++
			} else if err != nil || !bytes.Equal(got, b) && !bytes.Equal(got, exif) {
				t.Fatal(len(got), err)
			} else {
				whole++
			}
			lent = make([]byte, 0, len(b))
		}
		if whole+refused != 5 || least == 0 && refused != 3 {
			t.Errorf("%d whole, %d refused", whole, refused)
		}
	}
}

// TestReaderAfterDamage breaks a stream at random places: what is a hundred kilobytes behind the damage comes whole.
func TestReaderAfterDamage(t *testing.T) {
	images := make([][]byte, 60)
	for i := range images {
		images[i] = jpegOf(uint64(i), 100+i, 60)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 90 {
		var body []byte
		ends := make([]int, len(images))
		for i, m := range images {
			switch n % 3 {
			case 0:
				body = fmt.Appendf(body, "\r\n--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", len(m))
			case 1:
				body = append(body, "\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n"...)
			}
			body = append(body, m...)
			ends[i] = len(body)
		}
		at := r.IntN(len(body) / 2)
		switch size := 1 + r.IntN(200); r.IntN(3) {
		case 0: // lost
			body = slices.Delete(body, at, at+size)
			for i := range ends {
				ends[i] -= size
			}
		case 1: // other bytes
			for i := range size {
				body[at+i] = byte(r.Uint32())
			}
		case 2: // one bit
			body[at] ^= 1 << r.IntN(8)
		}
		first := 0
		for ends[first] <= at+200 {
			first++
		}
		got, _, err := frames(t, bytes.NewReader(body), "b", Limits{testFrame})
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		missing := 0
		for _, m := range images[first+1:] {
			if !slices.ContainsFunc(got, func(b []byte) bool { return bytes.Equal(b, m) }) {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("form %d, damage at %d: %d of the %d frames behind it are missing", n%3, at, missing, len(images)-first-1)
		}
	}
}

// FuzzReader: whatever comes, an image is within its limit, all read the same in pieces, nothing is read twice for ever, and no
// more memory is asked for than is said.
func FuzzReader(f *testing.F) {
	for _, s := range streams() {
		if len(s.body) < 100_000 {
			f.Add(s.body, s.boundary)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		const limit = 64 << 10
		run := func(r io.Reader) (out []string) {
			reader, read := NewReader(r, boundary, Limits{limit}), 0
			var buf []byte
			for {
				image, skipped, err := reader.Next(buf, func(b []byte, more int) ([]byte, error) {
					if len(b)+more > limit || more < 1 {
						t.Fatalf("%d bytes more than %d", more, len(b))
					}
					return slices.Grow(b, more), nil
				})
				out = append(out, fmt.Sprintf("%x %d", image, skipped))
				if read += len(image); read > len(body) {
					t.Fatal("read twice")
				}
				if buf = image; err != nil {
					return out
				}
				if k, at, whole := signature(image, 0); k == nil || at != 0 || !whole {
					t.Fatalf("%.20q", image)
				}
			}
		}
		whole := run(bytes.NewReader(body))
		if pieces := run(iotest.HalfReader(bytes.NewReader(body))); len(body) < inBytes && !slices.Equal(whole, pieces) {
			t.Fatalf("%d and %d frames", len(whole)-1, len(pieces)-1)
		}
	})
}

// BenchmarkReader reads frames of 70 kB, as 240 come a second from eight cameras.
func BenchmarkReader(b *testing.B) {
	frame := jpegOf(1, 290, 240)
	for name, head := range map[string]string{
		"sized": fmt.Sprintf("\r\n--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", len(frame)),
		"not":   "\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n",
		"bare":  "",
	} {
		b.Run(name, func(b *testing.B) {
			part := append([]byte(head), frame...)
			reader := NewReader(&endless{part: part, chunk: 64 << 10}, "b", Limits{testFrame})
			var buf []byte
			b.SetBytes(int64(len(part)))
			b.ReportAllocs()
			for b.Loop() {
				image, _, err := reader.Next(buf, appended)
				if buf = image; err != nil || len(image) != len(frame) {
					b.Fatal(len(image), err)
				}
			}
		})
	}
}

// endless repeats a part, in chunks.
type endless struct {
	part  []byte
	at    int
	chunk int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), e.chunk)], e.part[e.at:])
	e.at = (e.at + n) % len(e.part)
	return n, nil
}

// An image for which there is no memory goes by whole, whatever is in it; also one of many chunks.
func TestReaderSkims(t *testing.T) {
	large, b := pngOf(1, 300, 300), jpegOf(2, 60, 40)
	chunk := func(n int) []byte { // private, with the signature of an image in it
		c := append([]byte{0, 0, byte(n >> 8), byte(n), 'p', 'r', 'V', 't'}, make([]byte, n+4)...)
		copy(c[10:], "\n\n\xff\xd8\xff\xe0")
		return c
	}
	chunks := slices.Concat(large[:33], bytes.Repeat(chunk(50), 2000), chunk(40_000), large[33:])
	exif := insert(jpegOf(3, 300, 300), slices.Repeat([][]byte{segment(0xe1, append([]byte("Exif\x00\x00\n\n"), b...))}, 50)...)
	for name, m := range map[string][]byte{"PNG": chunks, "JPEG": exif, "WebP": webpOf(20_000)} {
		for _, head := range []string{"--b\r\n\r\n%.0d", "--b\r\nContent-Length: %d\r\n\r\n", "%.0d"} {
			body := slices.Concat(fmt.Appendf(nil, head, len(m)), m, []byte("\r\n"), fmt.Appendf(nil, head, len(b)), b)
			full := errors.New("full")
			reader := NewReader(iotest.HalfReader(bytes.NewReader(body)), "b", Limits{testFrame})
			buf := make([]byte, 0, 70_000)
			got, skipped, err := reader.Next(buf, func([]byte, int) ([]byte, error) { return nil, full })
			if !errors.Is(err, full) || skipped != 1 || len(got) != 0 {
				t.Errorf("%s: %d bytes, %d skipped, %v", name, len(got), skipped, err)
			}
			if got, skipped, err = reader.Next(buf, appended); err != nil || !bytes.Equal(got, b) || skipped != 0 {
				t.Errorf("%s, %q: %d bytes, %d skipped, %v", name, head, len(got), skipped, err)
			}
		}
	}
}
