package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"slices"
	"testing"
)

// animation makes a WebP animation of two frames: the image of a file at a place, then one that cannot be
// decoded. size is the one that the frame says it has.
func animation(canvas, at, size image.Point, still []byte, more ...byte) []byte {
	le24 := func(b []byte, v int) []byte { return append(b, byte(v), byte(v>>8), byte(v>>16)) }
	chunk := func(b []byte, name string, data []byte) []byte {
		b = binary.LittleEndian.AppendUint32(append(b, name...), uint32(len(data)))
		return append(append(b, data...), make([]byte, len(data)&1)...)
	}
	frame := le24(le24(le24(le24(nil, at.X/2), at.Y/2), size.X-1), size.Y-1)
	frame = append(frame, 100, 0, 0, 0) // the duration, and how to blend
	for name, data := range webpChunks(still[12:]) {
		if name == "ALPH" || name == "VP8 " || name == "VP8L" {
			frame = chunk(frame, name, data)
		}
	}
	body := chunk([]byte("WEBP"), "VP8X", le24(le24([]byte{1<<1 | 1<<4, 0, 0, 0}, canvas.X-1), canvas.Y-1))
	body = chunk(body, "ANIM", []byte{255, 255, 255, 255, 0, 0}) // a white background, which decoders ignore
	body = chunk(body, "ANMF", frame)
	body = chunk(body, "ANMF", []byte("no frame"))
	body = append(body, more...)
	return chunk(nil, "RIFF", body)
}

// TestAnimatedWebP compares the first frame of animations with the same image on its own.
func TestAnimatedWebP(t *testing.T) {
	d := newDecoder(exact, 224, nil)
	for _, file := range []string{"lossy.webp", "lossy_alpha.webp", "lossless_alpha.webp", "lossy_1x1.webp"} {
		b := read(t, "pil", file)
		still, err := d.DecodeBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		size := image.Pt(still.Width, still.Height)
		for _, at := range []image.Point{{}, {6, 4}} {
			canvas := size.Add(at).Add(at)
			p, err := d.DecodeBytes(animation(canvas, at, size, b))
			if err != nil {
				t.Errorf("%s at %v: %v", file, at, err)
				continue
			}
			want := make([]byte, 3*canvas.X*canvas.Y)
			for y := range size.Y {
				copy(want[3*((at.Y+y)*canvas.X+at.X):], still.Pix[3*y*size.X:][:3*size.X])
			}
			if p.Width != canvas.X || p.Height != canvas.Y || !bytes.Equal(p.Pix, want) {
				t.Errorf("%s at %v: another image, of %d x %d", file, at, p.Width, p.Height)
			}
			p.Release()
		}
		still.Release()
	}

	b := read(t, "pil", "lossy.webp")
	config, err := d.DecodeBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	size := image.Pt(config.Width, config.Height)
	config.Release()
	for name, bad := range map[string][]byte{
		"beside the canvas":  animation(size, image.Pt(2, 0), size, b),
		"another size":       animation(size, image.Point{}, size.Sub(image.Pt(1, 0)), b),
		"a frame of nothing": animation(size, image.Point{}, size, make([]byte, 12)),
	} {
		if _, err := d.DecodeBytes(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	exif := read(t, "pil", "exif8.webp")
	_, block := firstChunk(exif[12:], "EXIF")
	turned := slices.Concat([]byte("EXIF"), binary.LittleEndian.AppendUint32(nil, uint32(len(block))), block, make([]byte, len(block)&1))
	with := animation(size, image.Point{}, size, b, turned...)
	const flags = 20
	with[flags] |= webpHasExif
	p, err := d.DecodeBytes(with)
	if err != nil || p.Orientation != 8 || p.Width != size.Y {
		t.Errorf("the orientation: %d, %d x %d, %v", p.Orientation, p.Width, p.Height, err)
	}
	p.Release()
	whole := animation(size, image.Point{}, size, b)
	for n := 12; n < len(whole); n += 7 {
		cut := bytes.Clone(whole[:n])
		if _, err := d.DecodeBytes(cut); !errors.Is(err, ErrTruncated) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
		binary.LittleEndian.PutUint32(cut[4:], uint32(n-8)) // as if it were whole
		if p, err := d.DecodeBytes(cut); err != nil && !oneSentinel(err) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		} else {
			p.Release()
		}
	}
}
