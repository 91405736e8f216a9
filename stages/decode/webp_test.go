package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"testing"
)

// webpOf makes a WebP file of chunks, each its name and its data.
func webpOf(chunks ...string) []byte {
	b := "WEBP"
	for _, c := range chunks {
		b += webpChunk(c)
	}
	return []byte(webpChunk("RIFF" + b))
}

// webpChunk makes a chunk of its name and its data.
func webpChunk(c string) string {
	return c[:4] + string(binary.LittleEndian.AppendUint32(nil, uint32(len(c)-4))) + c[4:] + string(make([]byte, len(c)&1))
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

func TestWebPRefused(t *testing.T) {
	lossless := solidVP8L(8, 6)
	lossy := string(read(t, "pil", "lossy_1x1.webp")[20:])
	changed := func(at int, v byte) string { return "VP8 " + lossy[:at] + string([]byte{v}) + lossy[at+1:] }
	checkRefused(t, goDecoder, "", []refusal{
		{"", greedyVP8L(), ErrUnsupportedFormat, "codes"},
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

// TestLossyWork has what cannot be stopped count as long, by what the worst file of its size takes.
func TestLossyWork(t *testing.T) {
	plan, err := goDecoder.Inspect(read(t, "pil", "webp_lossy_large.webp"))
	if least := 30 * int64(plan.Width*plan.Height); err != nil || plan.Work < least {
		t.Errorf("%d bytes of work, want %d: %v", plan.Work, least, err)
	}
}

// animation makes a WebP animation of two frames: the image of a file at a place, then one that cannot be
// decoded. size is the one that the frame says it has; more are chunks behind the frames.
func animation(canvas, at, size image.Point, still []byte, more ...string) []byte {
	frame := "ANMF"
	for _, v := range []int{at.X / 2, at.Y / 2, size.X - 1, size.Y - 1} {
		frame += string([]byte{byte(v), byte(v >> 8), byte(v >> 16)})
	}
	frame += "d\x00\x00\x00" // the duration, and how to blend
	for name, data := range webpChunks(still[12:]) {
		if name == "ALPH" || name == "VP8 " || name == "VP8L" {
			frame += webpChunk(name + string(data))
		}
	}
	// The background is white, which decoders ignore.
	return webpOf(append([]string{vp8x(1<<1|1<<4, canvas.X, canvas.Y), "ANIM\xff\xff\xff\xff\x00\x00", frame, "ANMFno frame"}, more...)...)
}

// TestAnimatedWebP compares the first frame of animations with the same image on its own.
func TestAnimatedWebP(t *testing.T) {
	for _, file := range []string{"lossy.webp", "lossy_alpha.webp", "lossless_alpha.webp", "lossy_1x1.webp"} {
		b := read(t, "pil", file)
		still := decoded(t, goDecoder, b)
		size := image.Pt(still.Width, still.Height)
		for _, at := range []image.Point{{}, {6, 4}} {
			canvas := size.Add(at).Add(at)
			p := decoded(t, goDecoder, animation(canvas, at, size, b))
			want := make([]byte, 3*canvas.X*canvas.Y)
			for y := range size.Y {
				copy(want[3*((at.Y+y)*canvas.X+at.X):], still.Pix[3*y*size.X:][:3*size.X])
			}
			if p.Width != canvas.X || p.Height != canvas.Y || !bytes.Equal(p.Pix, want) {
				t.Errorf("%s at %v: another image, of %d x %d", file, at, p.Width, p.Height)
			}
		}
	}

	b := read(t, "pil", "lossy.webp")
	still := decoded(t, goDecoder, b)
	size := image.Pt(still.Width, still.Height)
	for name, bad := range map[string][]byte{
		"beside the canvas":  animation(size, image.Pt(2, 0), size, b),
		"another size":       animation(size, image.Point{}, size.Sub(image.Pt(1, 0)), b),
		"a frame of nothing": animation(size, image.Point{}, size, make([]byte, 12)),
	} {
		if _, err := goDecoder.DecodeBytes(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	exif := read(t, "pil", "exif8.webp")
	_, block := firstChunk(exif[12:], "EXIF")
	with := animation(size, image.Point{}, size, b, "EXIF"+string(block))
	const flags = 20
	with[flags] |= webpHasExif
	if p := decoded(t, goDecoder, with); p.Orientation != 8 || p.Width != size.Y {
		t.Errorf("the orientation: %d, %d x %d", p.Orientation, p.Width, p.Height)
	}
	whole := animation(size, image.Point{}, size, b)
	for n := 12; n < len(whole); n += 7 {
		cut := bytes.Clone(whole[:n])
		if _, err := goDecoder.DecodeBytes(cut); !errors.Is(err, ErrTruncated) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
		binary.LittleEndian.PutUint32(cut[4:], uint32(n-8)) // as if it were whole
		if p, err := goDecoder.DecodeBytes(cut); err != nil && !oneSentinel(err) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		} else {
			p.Release()
		}
	}
}
