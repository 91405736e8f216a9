package decode

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"testing"
)

// photo is a part of a photograph, scaled up by repetition where it is too small, as w x h.
func photo(b *testing.B, w, h int) image.Image {
	src, err := jpeg.Decode(bytes.NewReader(read(b, "photos", "china.jpg")))
	if err != nil {
		b.Fatal(err)
	}
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	r := src.Bounds()
	for y := range h {
		for x := range w {
			m.Set(x, y, src.At(x*r.Dx()/w, y*r.Dy()/h))
		}
	}
	return m
}

var sizes = []struct {
	name string
	w, h int
}{{"640x480", 640, 480}, {"1280x720", 1280, 720}, {"1920x1080", 1920, 1080}}

func BenchmarkJPEG(b *testing.B) {
	for _, s := range sizes {
		var file bytes.Buffer
		if err := jpeg.Encode(&file, photo(b, s.w, s.h), &jpeg.Options{Quality: 85}); err != nil {
			b.Fatal(err)
		}
		for name, d := range decoders(b, exact) {
			b.Run(name+"/"+s.name, func(b *testing.B) { benchmark(b, d, file.Bytes()) })
		}
		if d := decoders(b, Config{MaxPixels: 50e6, JPEGScale: ScaleFast})["turbo"]; d != nil {
			b.Run("fast/"+s.name, func(b *testing.B) { benchmark(b, d, file.Bytes()) })
		}
	}
}

func BenchmarkPNG(b *testing.B) {
	for _, s := range sizes {
		var file bytes.Buffer
		if err := png.Encode(&file, photo(b, s.w, s.h)); err != nil {
			b.Fatal(err)
		}
		b.Run(s.name, func(b *testing.B) { benchmark(b, goDecoder, file.Bytes()) })
	}
}

func BenchmarkFormats(b *testing.B) {
	for _, file := range []string{"lossy.webp", "lossless.webp", "first_frame.gif", "interlaced_none.bmp", "lzw.tiff"} {
		b.Run(file, func(b *testing.B) { benchmark(b, goDecoder, read(b, "pixels", file)) })
	}
}

func BenchmarkUpright(b *testing.B) {
	p := newImage(1920, 1080)
	b.ReportAllocs()
	for b.Loop() {
		upright(&p, 6)
	}
}

func benchmark(b *testing.B, d *Decoder, file []byte) {
	b.ReportAllocs()
	pixels := 0
	for b.Loop() {
		p, err := d.DecodeBytes(file)
		if err != nil {
			b.Fatal(err)
		}
		pixels = p.Width * p.Height
		p.Release()
	}
	b.ReportMetric(float64(pixels), "pixels/op")
	b.ReportMetric(float64(pixels)*float64(b.N)/1e6/b.Elapsed().Seconds(), "Mpixel/s")
}
