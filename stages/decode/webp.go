package decode

import (
	"encoding/binary"
	"image"
	"iter"
	"slices"

	"golang.org/x/image/vp8"
)

// Flags of the chunk VP8X.
const (
	webpAnimated = 1 << 1
	webpHasExif  = 1 << 3
)

// planWebP reads what libwebp reads of a file: the image is the first chunk VP8 or VP8L. Alpha is dropped, so its
// chunk and its flag do not matter; EXIF counts only where VP8X says that there is some.
func (d *Decoder) planWebP(b []byte) (Plan, error) {
	n := uint64(binary.LittleEndian.Uint32(b[4:])) + 8
	if n > uint64(len(b)) {
		return Plan{}, truncated("WebP: %d of %d bytes", len(b), n)
	}
	const signature, header, canvas = 12, 10, 4
	chunks := b[signature:max(n, signature)]
	if !matches(chunks, "VP8X") {
		m, err := d.webpImage(chunks)
		return m.plan(1), err
	}
	const frame = 8 // of a chunk
	if len(chunks) < frame+header {
		return Plan{}, truncated("WebP: ends within the header")
	}
	vp8x := chunks[frame:][:header]
	turned := 1
	if vp8x[0]&webpHasExif != 0 {
		_, exif := firstChunk(chunks, "EXIF")
		turned = orientation(exif)
	}
	size := image.Pt(1+uint24(vp8x[canvas:]), 1+uint24(vp8x[canvas+3:]))
	if vp8x[0]&webpAnimated != 0 {
		m, err := d.firstFrame(chunks, size)
		return m.plan(turned), err
	}
	m, err := d.webpImage(chunks)
	if err == nil && m.size != size {
		err = corrupt("WebP: an image of %v pixels on a canvas of %v", m.size, size)
	}
	return m.plan(turned), err
}

// webpImage is a chunk VP8 (lossy) or VP8L.
type webpImage struct {
	data   []byte
	lossy  bool
	size   image.Point // in pixels, as its own header says
	canvas image.Point // the size of the whole; that of an animation may be larger than its frame
	at     image.Point // the place of a frame on the canvas
}

// webpImage finds the image in chunks and reads its header.
func (d *Decoder) webpImage(chunks []byte) (m webpImage, err error) {
	name, data := firstChunk(chunks, "VP8 ", "VP8L")
	if name == "" {
		return m, corrupt("WebP: no whole image in it")
	}
	m.data, m.lossy = data, name == "VP8 "
	if m.size, err = readVP8Header(data, m.lossy); err == nil {
		err = d.checkSize(m.size.X, m.size.Y)
	}
	m.canvas = m.size
	return m, err
}

// firstFrame finds the first frame of an animation: a chunk ANMF, which holds the chunks of an image behind its place
// on the canvas (WebP container specification).
func (d *Decoder) firstFrame(chunks []byte, canvas image.Point) (m webpImage, err error) {
	if err := d.checkSize(canvas.X, canvas.Y); err != nil {
		return m, err
	}
	const head = 16
	name, data := firstChunk(chunks, "ANMF")
	switch {
	case name == "":
		return m, truncated("WebP: an animation without a whole frame")
	case len(data) < head:
		return m, corrupt("WebP: a frame of %d bytes", len(data))
	}
	at, size := image.Pt(2*uint24(data), 2*uint24(data[3:])), image.Pt(1+uint24(data[6:]), 1+uint24(data[9:]))
	if place := (image.Rectangle{at, at.Add(size)}); !place.In(image.Rectangle{Max: canvas}) {
		return m, corrupt("WebP: the frame %v is not on the canvas of %v", place, canvas)
	}
	if m, err = d.webpImage(data[head:]); err == nil && m.size != size {
		err = corrupt("WebP: an image of %v pixels in a frame of %v", m.size, size)
	}
	m.canvas, m.at = canvas, at
	return m, err
}

// readVP8Header returns the size of an image.
func readVP8Header(b []byte, lossy bool) (image.Point, error) {
	const lossyHead, losslessHead, most = 10, 5, 1<<14 - 1
	switch {
	case lossy && len(b) < lossyHead, !lossy && len(b) < losslessHead:
		return image.Point{}, truncated("WebP: an image of %d bytes", len(b))
	case !lossy:
		v := binary.LittleEndian.Uint32(b[1:])
		if b[0] != 0x2F || v>>29 != 0 {
			return image.Point{}, corrupt("WebP: a lossless image begins with % x", b[:losslessHead])
		}
		return image.Pt(1+int(v&most), 1+int(v>>14&most)), nil
	}
	frame := uint24(b) // a bit for other than key frames, three of the profile, one that it is shown, the length of the first partition
	if string(b[3:6]) != "\x9d\x01\x2a" || frame&1 != 0 || frame>>1&7 > 3 || frame>>4&1 == 0 {
		return image.Point{}, corrupt("WebP: a lossy image begins with % x", b[:lossyHead])
	}
	if first := frame >> 5; first > len(b)-lossyHead {
		return image.Point{}, truncated("WebP: a first partition of %d bytes in an image of %d", first, len(b))
	}
	return image.Pt(int(binary.LittleEndian.Uint16(b[6:]))&most, int(binary.LittleEndian.Uint16(b[8:]))&most), nil
}

// plan makes the plan of m. Lossy images take longer than what they touch: their coded bits are read one by one.
func (m webpImage) plan(orientation int) Plan {
	const byteTime, pixelTime = 64, 8 // see coded
	own, work := m.cost()
	if m.size != m.canvas {
		pixels := 3 * m.size.X * m.size.Y // they are copied onto the canvas
		own, work = own+pixels, work+3*pixels
	}
	p := newPlan(m.canvas.X, m.canvas.Y, own, work, orientation, m.decode)
	if m.lossy {
		p = p.coded(len(m.data), byteTime).coded(m.size.X*m.size.Y, pixelTime)
	}
	return p
}

// cost returns how many bytes decoding allocates beside the packed pixels, and touches.
func (m webpImage) cost() (own, work int) {
	if !m.lossy {
		return vp8lMemory(m.size.X, m.size.Y), vp8lWork(len(m.data), m.size.X, m.size.Y)
	}
	// Macroblocks of 16 x 16 pixels with 4:2:0 samples and what the loop filter does; the file is copied. Coefficients are
	// read bit by bit: a byte may hold several.
	const samples, filter, tables = 384, 4, 16 << 10
	const perByte, perPixel = 62, 32
	blocks := vp8lTiles(m.size.X, 4) * vp8lTiles(m.size.Y, 4)
	own = (samples + filter) * blocks
	return own + len(m.data) + tables, perByte*len(m.data) + perPixel*m.size.X*m.size.Y
}

// decode puts the image on its canvas, which is transparent black and so becomes black, as libwebp and PIL have it.
func (m webpImage) decode(t *task) (Image, error) {
	p, err := m.decodeChunk(t)
	if err != nil || m.size == m.canvas {
		return p, err
	}
	defer p.Release()
	whole := newImage(m.canvas.X, m.canvas.Y)
	clear(whole.Pix)
	return whole, t.rows(p, 6*p.Width, func(row []byte, y int) {
		copy(whole.Pix[3*((m.at.Y+y)*whole.Width+m.at.X):], row)
	})
}

// decodeChunk decodes the image alone. The lossy decoder reads all of its bytes first and cannot be stopped after that: an ordinary
// file takes 26 ns a pixel, the worst one of 16 MiB 95 ns, which is 5 s for 50 million pixels. That is the longest that
// anything here goes on after its deadline.
func (m webpImage) decodeChunk(t *task) (Image, error) {
	if !m.lossy {
		return t.decodeVP8L(m.data, m.size.X, m.size.Y)
	}
	d := vp8.NewDecoder()
	d.Init(&source{task: t, b: m.data}, len(m.data))
	if _, err := d.DecodeFrameHeader(); err != nil {
		return Image{}, classify(WebP, err)
	}
	yuv, err := d.DecodeFrame()
	if err != nil {
		return Image{}, classify(WebP, err)
	}
	return t.fromVP8(yuv)
}

// fromVP8 converts the 4:2:0 samples of lossy WebP. They are of limited range (16 to 235), unlike what Go's
// own conversion of image.YCbCr assumes, and libwebp interpolates chroma: each pixel takes 9/16 of the
// nearest sample, 3/16 of the next one in its row and in its column, 1/16 of the one across.
func (t *task) fromVP8(m *image.YCbCr) (Image, error) {
	p := newImage(m.Rect.Dx(), m.Rect.Dy())
	columns, rows := (p.Width+1)/2, (p.Height+1)/2
	return p, t.rows(p, 4*p.Width, func(out []byte, y int) {
		// The rows of chroma: the nearer one, and the one on the other side of the pixel.
		near := y / 2
		far := min(max(near-1+y%2*2, 0), rows-1)
		cb, cb2 := m.Cb[near*m.CStride:][:columns], m.Cb[far*m.CStride:][:columns]
		cr, cr2 := m.Cr[near*m.CStride:][:columns], m.Cr[far*m.CStride:][:columns]
		luma := m.Y[y*m.YStride:][:p.Width]
		for x, l := range luma {
			i := x / 2
			j := min(max(i-1+x%2*2, 0), columns-1)
			u := (9*int(cb[i]) + 3*int(cb[j]) + 3*int(cb2[i]) + int(cb2[j]) + 8) >> 4
			v := (9*int(cr[i]) + 3*int(cr[j]) + 3*int(cr2[i]) + int(cr2[j]) + 8) >> 4
			out[3*x], out[3*x+1], out[3*x+2] = fromYUV(int(l), u, v)
		}
	})
}

// fromYUV converts one pixel of limited range (ITU-R BT.601) in the fixed-point arithmetic of libwebp:
// factors in 1/2^14 of 255/219 for luma and of the chroma terms, products cut to 1/2^6.
func fromYUV(y, u, v int) (r, g, b byte) {
	l := y * 19077 >> 8
	return clip6(l + v*26149>>8 - 14234), clip6(l - u*6419>>8 - v*13320>>8 + 8708), clip6(l + u*33050>>8 - 17685)
}

// clip6 drops six fractional bits and limits to a byte.
func clip6(v int) byte { return byte(min(max(v>>6, 0), 255)) }

// uint24 reads the first three bytes of b.
func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// firstChunk returns the first of the chunks in b with one of these names, "" where there is none that is whole.
func firstChunk(b []byte, names ...string) (name string, data []byte) {
	for name, data := range webpChunks(b) {
		if slices.Contains(names, name) {
			return name, data
		}
	}
	return "", nil
}

// webpChunks yields the chunks in b that are whole, each its name and its data.
func webpChunks(b []byte) iter.Seq2[string, []byte] {
	const head = 8
	return func(yield func(string, []byte) bool) {
		for len(b) >= head {
			n := uint64(binary.LittleEndian.Uint32(b[4:]))
			if n+head > uint64(len(b)) || !yield(string(b[:4]), b[head:head+n]) {
				return
			}
			b = b[min(head+n+n&1, uint64(len(b))):]
		}
	}
}
