package decode

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	goVP8L "golang.org/x/image/vp8l"
)

// FuzzDecode gives the same bytes to both decoders: no panic, one sentinel for each error, a whole image otherwise, the
// same one whatever was in its buffers before; no more work than the plan said, and no plan beyond what the file can
// honestly need; and nothing of it left when the next image is decoded.
func FuzzDecode(f *testing.F) {
	addFiles(f, "testdata/pil/*.*", 50)
	f.Add([]byte("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1miaf"))
	f.Add(pngOf(ihdr(3, 5, "\x08\x02\x00\x00\x00")))
	f.Add(tiffHeader(3, 5))
	f.Add(animation(image.Pt(6, 21), image.Pt(2, 4), image.Pt(2, 17), read(f, "pil", "lossy_2x17.webp")))

	const maxPixels = 200_000
	ds := decoders(f, Config{MaxPixels: maxPixels, JPEGScale: ScaleExact})
	small := read(f, "pil", "rgb_422.jpg")
	want := map[string]string{}
	for name, d := range ds {
		want[name] = outcome(d, small)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, d := range ds {
			plan, err := d.Inspect(b)
			if err != nil {
				if !oneSentinel(err) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if most := honestWork(plan, len(b)); plan.Work > most || plan.Memory < int64(3*plan.Width*plan.Height) || plan.Memory < 0 {
				t.Errorf("%s: %s of %d x %d in %d bytes takes %d bytes of work, %d at most; and %d of memory",
					name, plan.Format, plan.Width, plan.Height, len(b), plan.Work, most, plan.Memory)
			}
			one, two := poisoned(t, plan, 0x11), poisoned(t, plan, 0xEE)
			if !bytes.Equal(one.Pix, two.Pix) || (one.Pix == nil) != (two.Pix == nil) {
				t.Errorf("%s: what was in the buffers before shows", name)
			}
			if p := one; p.Pix != nil && (p.Width < 1 || p.Height < 1 || p.Width*p.Height > maxPixels ||
				len(p.Pix) != 3*p.Width*p.Height || p.Format == "" || p.Orientation < 1 || p.Orientation > 8) {
				t.Errorf("%s: %d x %d, %d bytes, %q, %d", name, p.Width, p.Height, len(p.Pix), p.Format, p.Orientation)
			}
			one.Release()
			two.Release()
			if bytes.HasPrefix(b, small[:3]) && outcome(d, small) != want[name] {
				t.Errorf("%s: the next image is another", name)
			}
		}
	})
}

// honestWork is a bound of what decoding a file may take, from its length and its pixels alone.
func honestWork(plan Plan, length int) int64 {
	const factor = 64
	n := int64(factor)*int64(length) + factor*int64(plan.Width)*int64(plan.Height)
	if plan.Format == JPEG { // groups of up to 32 x 32 pixels, of four components
		n += 2*smallJPEG + (2*maxPasses+16)*4*int64(plan.Width+31)*int64(plan.Height+31)
	}
	return n
}

// poisoned carries out a plan with buffers that hold fill.
func poisoned(t *testing.T, plan Plan, fill byte) Image {
	defer func(before byte) { poison = before }(poison)
	poison = fill
	for range 2 { // pixels, and what is turned
		p, q := newImage(plan.Width, plan.Height), newImage(plan.Width, plan.Height)
		p.Release()
		q.Release()
	}
	run := &task{ctx: t.Context(), work: plan.Work}
	p, err := plan.run(run)
	if run.spent > plan.Work {
		t.Errorf("%s of %d x %d: %d bytes of work done, %d planned", plan.Format, plan.Width, plan.Height, run.spent, plan.Work)
	}
	if err != nil && !oneSentinel(err) {
		t.Error(err)
	}
	return p
}

// addFiles adds files to the corpus of f, of which there must be at least so many.
func addFiles(f *testing.F, pattern string, least int) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		f.Fatal(pattern, len(files), err)
	}
	for _, file := range files {
		f.Add(read(f, strings.TrimPrefix(file, "testdata/")))
	}
}

// fuzzFormat carries out the plans of files of one format and demands that the cost is within the plan, and the plan within
// what the file can honestly need: memory bounds the bytes that so many pixels may take, where it is not nil. Where another
// decoder reads the file too, and means the same by it, it returns the pixels; nil else.
func fuzzFormat(f *testing.F, format, magic string, memory func(pixels int) int64, other func(t *testing.T, b []byte, p Image) []byte) {
	addFiles(f, "testdata/pil/*."+strings.ToLower(format), 10)
	d := newDecoder(Config{MaxPixels: 200_000, JPEGScale: ScaleExact}, 224, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Concat([]byte(magic), b[min(len(magic), len(b)):])
		if format == WebP {
			binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
		}
		plan, err := planners[format](d, b)
		if err != nil {
			if !oneSentinel(err) {
				t.Error(err)
			}
			return
		}
		pixels := plan.Width * plan.Height
		if plan.Work > 64*int64(len(b)+pixels) || memory != nil && plan.Memory > memory(pixels) {
			t.Errorf("work %d, memory %d for %d x %d pixels in %d bytes", plan.Work, plan.Memory, plan.Width, plan.Height, len(b))
		}
		task := &task{ctx: t.Context(), work: plan.Work}
		var p Image
		func() {
			defer contain(format, &err)
			p, err = plan.decode(task)
		}()
		defer p.Release()
		switch {
		case task.spent > plan.Work:
			t.Errorf("%d bytes of work were planned, %d done: %v", plan.Work, task.spent, err)
		case err != nil && (!oneSentinel(err) || strings.Contains(err.Error(), "decoder failed") || strings.Contains(err.Error(), "takes more than")):
			t.Error(err)
		case err == nil && (p.Width != plan.Width || p.Height != plan.Height || len(p.Pix) != 3*pixels):
			t.Errorf("%d x %d in %d bytes, planned were %d x %d", p.Width, p.Height, len(p.Pix), plan.Width, plan.Height)
		case err == nil:
			if pix := other(t, b, p); pix != nil && !bytes.Equal(p.Pix, pix) {
				t.Error("other pixels than another decoder's")
			}
		}
	})
}

// indexedMemory is what a BMP or GIF of so many pixels may take.
func indexedMemory(pixels int) int64 { return int64(4*pixels + 128<<10) }

func FuzzBMP(f *testing.F) {
	fuzzFormat(f, BMP, "", indexedMemory, func(t *testing.T, b []byte, _ Image) []byte {
		m, err := bmp.Decode(bytes.NewReader(b))
		if err != nil {
			return nil
		}
		if m, ok := m.(*image.Paletted); ok && int(slices.Max(m.Pix)) >= len(m.Palette) {
			return nil // it has no colour for these
		}
		return goPixels(t, m)
	})
}

func FuzzGIF(f *testing.F) {
	fuzzFormat(f, GIF, "", indexedMemory, func(t *testing.T, b []byte, p Image) []byte {
		decoded, err := gif.Decode(bytes.NewReader(b))
		m, ok := decoded.(*image.Paletted)
		if err != nil || !ok || bytes.Contains(b, []byte("!\x01")) { // a text is read by another rule there
			return nil
		}
		colors, ramp := make([][3]byte, len(m.Palette)), grayTable(8)
		for i, c := range m.Palette {
			colors[i] = goColor(t, c)
		}
		if slices.Equal(colors, ramp[:len(colors)]) {
			return nil // a global palette counts more
		}
		pix := bytes.Clone(p.Pix)
		for y := m.Rect.Min.Y; y < m.Rect.Max.Y; y++ {
			for x := m.Rect.Min.X; x < m.Rect.Max.X; x++ {
				index := m.ColorIndexAt(x, y)
				if _, _, _, a := m.Palette[index].RGBA(); a != 0 { // else its colour is forgotten there
					copy(pix[3*(y*p.Width+x):], colors[index][:])
				}
			}
		}
		return pix
	})
}

func FuzzPNG(f *testing.F) {
	f.Add(pngOf(ihdr(2, 2, "\x08\x03\x00\x00\x00"), "PLTEabcdef", "IDAT\x78\x01\x01\x06\x00\xf9\xff\x00\x01\x02\x01\x00\xff"))
	fuzzFormat(f, PNG, "\x89PNG\r\n\x1a\n", nil, func(t *testing.T, b []byte, _ Image) []byte {
		m, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			return nil
		}
		file, _ := readPNGHeader(b)
		_ = file.chunks(b)
		if file.color == pngPalette && len(file.palette) < 3<<file.depth {
			return nil // beyond it is black there, a gray ramp here
		}
		return goPixels(t, m)
	})
}

func FuzzWebP(f *testing.F) {
	f.Add(webpOf(solidVP8L(37, 21, predictor, crossColor, subtractGreen, colorIndexing)))
	f.Add(animation(image.Pt(6, 21), image.Pt(2, 4), image.Pt(2, 17), read(f, "pil", "lossy_2x17.webp")))
	fuzzFormat(f, WebP, "RIFF    WEBP", nil, func(t *testing.T, b []byte, _ Image) []byte {
		name, data := firstChunk(b[12:], "VP8L")
		m, err := goVP8L.Decode(bytes.NewReader(data))
		if name == "" || err != nil || b[12+8]&webpAnimated != 0 {
			return nil
		}
		return goPixels(t, m)
	})
}

func FuzzTIFF(f *testing.F) {
	addFiles(f, "testdata/tiff/*.tif", 10)
	fuzzFormat(f, TIFF, "", func(pixels int) int64 { return int64(8*pixels + 512<<10) }, goTIFF)
}

// goTIFF returns the pixels that golang.org/x/image/tiff decodes, or nil where it fails or goes other ways than PIL.
func goTIFF(t *testing.T, b []byte, _ Image) []byte {
	tags, err := readTIFFTags(b)
	if err != nil {
		return nil
	}
	compression := tags.get(tagCompression, 1)
	switch {
	case tags.get(tagFillOrder, 1) != 1, tags.get(tagPlanar, 1) != 1: // it does not look at them
		return nil
	case compression == tiffGroup3 || compression == tiffGroup4: // white, whatever the photometric interpretation
		return nil
	case compression != tiffLZW && compression != tiffDeflate && compression != tiffAdobeDeflate && tags.get(tagPredictor, 1) != 1:
		return nil
	}
	m, err := tiff.Decode(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	switch m.(type) {
	case *image.RGBA, *image.RGBA64: // multiplied by alpha
		if tags.get(tagExtraSamples, 0) != 0 {
			return nil
		}
	case *image.Paletted: // colours that the palette lacks
		if tags[tagColorMap].count() < 3*256 {
			return nil
		}
	}
	return goPixels(t, m)
}

// goPixels packs what a decoder of Go returned: without its alpha, samples of 16 bits cut to their high byte, and black
// where a palette lacks an index.
func goPixels(t testing.TB, m image.Image) (pix []byte) {
	r := m.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			var c color.Color = color.RGBA{}
			if p, ok := m.(*image.Paletted); !ok || int(p.ColorIndexAt(x, y)) < len(p.Palette) {
				c = m.At(x, y)
			}
			rgb := goColor(t, c)
			pix = append(pix, rgb[:]...)
		}
	}
	return pix
}

func goColor(t testing.TB, c color.Color) [3]byte {
	switch c := c.(type) {
	case color.Gray:
		return [3]byte{c.Y, c.Y, c.Y}
	case color.Gray16:
		return [3]byte{byte(c.Y >> 8), byte(c.Y >> 8), byte(c.Y >> 8)}
	case color.RGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.NRGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.RGBA64:
		return [3]byte{byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)}
	case color.NRGBA64:
		return [3]byte{byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)}
	case color.CMYK:
		r, g, b := fromInks(c.C, c.M, c.Y, c.K)
		return [3]byte{r, g, b}
	}
	t.Fatalf("a color of type %T", c)
	return [3]byte{}
}
