package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"os"
	"slices"
	"strings"
	"testing"

	goVP8L "golang.org/x/image/vp8l"
)

// webpOf makes a WebP file of chunks, each its name and its data.
func webpOf(chunks ...string) []byte {
	b := []byte("RIFF    WEBP")
	for _, c := range chunks {
		b = binary.LittleEndian.AppendUint32(append(b, c[:4]...), uint32(len(c)-4))
		b = append(append(b, c[4:]...), make([]byte, len(c)&1)...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

// vp8x makes the chunk VP8X of a canvas.
func vp8x(flags byte, w, h int) string {
	return "VP8X" + string([]byte{flags, 0, 0, 0, byte(w - 1), byte((w - 1) >> 8), 0, byte(h - 1), byte((h - 1) >> 8), 0})
}

// bitWriter writes bits, the first one lowest.
type bitWriter struct {
	b []byte
	n int
}

func (w *bitWriter) put(v, n int) {
	for ; n > 0; v, n, w.n = v>>1, n-1, w.n+1 {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v&1) << (w.n % 8)
	}
}

// group puts five codes of a single symbol each.
func (w *bitWriter) group(symbols ...int) {
	for _, s := range symbols {
		w.put(0b101, 3)
		w.put(s, 8)
	}
}

// solidVP8L makes a chunk VP8L of a few bytes whose pixels are all read from none, with transforms on tiles of 4 x 4 pixels.
func solidVP8L(width, height int, transforms ...int) string {
	var w bitWriter
	w.put(0x2F, 8)
	w.put(width-1, 14)
	w.put(height-1, 14)
	w.put(0, 4)
	for _, kind := range transforms {
		w.put(1, 1)
		w.put(kind, 2)
		switch kind {
		case predictor, crossColor:
			w.put(0, 4) // the size of the tiles, no cache
			w.group(12, 3, 4, 5, 0)
		case colorIndexing:
			w.put(255, 8)
			w.put(0, 1)
			w.group(9, 77, 200, 0, 0)
		}
	}
	w.put(0, 1) // no more transforms
	w.put(0, 1) // no cache
	w.put(1, 1) // groups of codes by tiles
	w.put(0, 4)
	w.group(0, 0, 0, 0, 0)
	w.group(50, 100, 150, 255, 0)
	return "VP8L" + string(append(w.b, 0, 0, 0, 0))
}

// greedyVP8L is a file of 2 kB whose codes would take more memory than was planned.
func greedyVP8L() []byte {
	var w bitWriter
	w.put(0x2F, 8)
	w.put(7, 14)
	w.put(7, 14)
	w.put(0, 4)
	w.put(0b00, 2) // no transforms, no cache
	w.put(1, 1)    // groups of codes by tiles of 4 x 4
	w.put(0, 4)
	w.group(0xFF, 0xFF, 0, 0, 0) // of which the last one is used
	return webpOf("VP8L" + string(append(w.b, make([]byte, 2000)...)))
}

func TestVP8LCodes(t *testing.T) {
	if _, err := newDecoder(exact, 224, nil).DecodeBytes(greedyVP8L()); !errors.Is(err, ErrUnsupportedFormat) || !strings.Contains(err.Error(), "codes") {
		t.Error(err)
	}
}

func TestWebPRefused(t *testing.T) {
	lossless := solidVP8L(8, 6)
	lossy := string(read(t, "pil", "lossy_1x1.webp")[20:])
	changed := func(at int, v byte) string { return "VP8 " + lossy[:at] + string([]byte{v}) + lossy[at+1:] }
	checkRefused(t, newDecoder(exact, 224, nil), "", []refusal{
		{"", webpOf(), ErrCorrupt, "no whole image"},
		{"", webpOf("ALPHx", "EXIFx"), ErrCorrupt, "no whole image"},
		{"", webpOf(lossless)[:30], ErrTruncated, "30 of"},
		{"", webpOf("VP8Xabc"), ErrTruncated, "within the header"},
		{"", webpOf(vp8x(0, 8, 7), lossless), ErrCorrupt, "(8,6) pixels on a canvas of (8,7)"},
		{"", webpOf(vp8x(0, 8, 6), vp8x(0, 8, 6)), ErrCorrupt, "no whole image"},
		{"", webpOf("VP8L\x2f\x00\x00"), ErrTruncated, "3 bytes"},
		{"", webpOf("VP8L\x2e\x00\x00\x00\x00"), ErrCorrupt, "begins with 2e"},
		{"", webpOf("VP8L\x2f\x00\x00\x00\x20"), ErrCorrupt, "begins with 2f"},
		{"", webpOf("VP8L\x2f\x00\x00\x00\x00"), ErrTruncated, "end early"},
		{"", webpOf("VP8L\x2f\xff\xff\xff\x0f"), ErrTooManyPixels, "16384 x 16384"},
		{"", webpOf(vp8x(0, 8, 6), "VP8L\x2f\xff\xff\xff\x0f"), ErrTooManyPixels, "16384 x 16384"},
		{"", webpOf(vp8x(webpAnimated, 8, 6), "ANIM", "ANMF"+string(make([]byte, 16))+"VP8L\x05\x00\x00\x00\x2f\xff\xff\xff\x0f\x00"), ErrTooManyPixels, "16384 x 16384"},
		{"", webpOf("VP8 " + lossy[:9]), ErrTruncated, "9 bytes"},
		{"", webpOf(changed(0, lossy[0]|1)), ErrCorrupt, "begins with"},
		{"", webpOf(changed(0, lossy[0]&^(1<<4))), ErrCorrupt, "begins with"},
		{"", webpOf(changed(0, lossy[0]|14)), ErrCorrupt, "begins with"},
		{"", webpOf(changed(3, 0)), ErrCorrupt, "begins with"},
		{"", webpOf(changed(2, 0xFF)), ErrTruncated, "first partition"},
		{"", webpOf(changed(6, 0)), ErrCorrupt, "0 x 1"},
	})
}

// FuzzWebP compares lossless images with those of golang.org/x/image where both read them.
func FuzzWebP(f *testing.F) {
	addFiles(f, "testdata/pil/*.webp", 1)
	f.Add(webpOf(solidVP8L(37, 21, predictor, crossColor, subtractGreen, colorIndexing)))
	still, err := os.ReadFile("testdata/pil/lossy_2x17.webp")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(animation(image.Pt(6, 21), image.Pt(2, 4), image.Pt(2, 17), still))
	d := newDecoder(Config{MaxPixels: 100_000, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Concat([]byte("RIFF    WEBP"), b[min(12, len(b)):])
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
		p, ok := fuzzCost(t, b, d.Inspect, nil)
		if !ok {
			return
		}
		defer p.Release()
		for name, data := range webpChunks(b[12:]) {
			if name != "VP8L" {
				continue
			}
			m, err := goVP8L.Decode(bytes.NewReader(data))
			if err != nil || b[12+8]&webpAnimated != 0 {
				return
			}
			if !bytes.Equal(p.Pix, goPixels(t, m)) {
				t.Error("other pixels than those of golang.org/x/image")
			}
			return
		}
	})
}

// TestLossyWork has what cannot be stopped count as long, by what the worst file of its size takes.
func TestLossyWork(t *testing.T) {
	plan, err := newDecoder(exact, 224, nil).Inspect(read(t, "pil", "webp_lossy_large.webp"))
	if least := 30 * int64(plan.Width*plan.Height); err != nil || plan.Work < least {
		t.Errorf("%d bytes of work, want %d: %v", plan.Work, least, err)
	}
}
