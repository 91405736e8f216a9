package decode

import "strings"

// What decoding a JPEG may cost. The library cannot be stopped, so all of its work is judged before it begins.
const (
	// maxPasses is how often all scans may pass over a sample, on average. The scripts of common encoders need 5 to 7;
	// hostile files of a few kilobytes have hundreds, each of which takes nearly as long as one that has data. At 50
	// million pixels the worst file of 12 passes takes about a second.
	maxPasses = 12
	// smallJPEG is how many samples may be passed over in any case: up to 0.1 s of work.
	smallJPEG = 16 << 20
	// maxArithmetic is the same for arithmetic coding, which hardly any file has: a few bytes suffice to let each
	// sample take 65 ns, fifty times as long as with Huffman codes.
	maxArithmetic = 8 << 20
	// Factors of Plan.coded.
	arithmeticByte, arithmeticSample = 100, 40
)

func (d *Decoder) planJPEG(b []byte) (Plan, error) {
	info, err := scanJPEG(b)
	if err != nil {
		return Plan{}, err
	}
	if err := d.checkSize(info.width, info.height); err != nil {
		return Plan{}, err
	}
	switch {
	case info.samples > max(maxPasses*info.padded(), smallJPEG):
		return Plan{}, detailed(ErrTooManyPixels, "JPEG of %d x %d with %d scans", info.width, info.height, info.scans)
	case info.arithmetic() && info.samples > maxArithmetic:
		return Plan{}, unsupported("arithmetic-coded JPEG of more than %d samples in all scans", maxArithmetic)
	case d.turbo == nil:
		return d.planGoJPEG(b, info)
	}
	w, h := info.width, info.height
	if d.fastTarget > 0 {
		w, h = d.fastScale(w, h, orientation(info.exif))
	}
	native := info.turboMemory()
	own := native + info.endMemory(b)
	const inks = 4
	if len(info.components) == inks {
		own += inks * w * h
	}
	work := len(b) + 2*info.samples + 3*info.padded()
	plan := newPlan(w, h, own, work+own, orientation(info.exif), func(t *task) (Image, error) {
		if err := t.spend(work); err != nil {
			return Image{}, err
		}
		b := info.withEnd(b)
		if len(info.components) == inks {
			return d.decodeTurboCMYK(t, b, w, h, info)
		}
		p := newImage(w, h)
		return p, d.runTurbo(b, p.Pix, w, h, tjRGB, info)
	})
	plan.Native = int64(native)
	if info.arithmetic() {
		plan = plan.coded(len(b), arithmeticByte).coded(info.samples, arithmeticSample)
	}
	return plan, nil
}

// turboMemory is what the library allocates, in bytes.
func (info *jpegInfo) turboMemory() int {
	const fixed = 64 << 10 // tables, and the pools in which they are
	w, _ := info.groups()
	w *= 8 * info.maxH
	n := fixed + 8*info.height // pointers to the rows
	for _, c := range info.components {
		cw, ch := info.blocks(c)
		n += 10*8*cw*c.v + w*info.maxV // a row of blocks with its neighbours; the same at full width
		n += 8 * ch                    // pointers to the rows of blocks
	}
	if info.partial {
		const size = 2 // bytes of a coefficient
		n += size * info.padded()
	}
	return n
}

// decodeTurboCMYK decodes inks as the file has them. By Adobe's convention, which PIL follows for every
// such file, they are inverted: 255 is no ink.
func (d *Decoder) decodeTurboCMYK(t *task, b []byte, w, h int, info jpegInfo) (Image, error) {
	inks := newBuffer(4 * w * h)
	defer inks.release()
	if err := d.runTurbo(b, inks.bytes, w, h, tjCMYK, info); err != nil {
		return Image{}, err
	}
	p := newImage(w, h)
	return p, t.rows(p, 4*w, func(out []byte, y int) { unpackInks(out, inks.bytes[4*y*w:], 4, 255) })
}

// runTurbo treats damage as PIL does: where libjpeg only warns, the image counts.
func (d *Decoder) runTurbo(b, dst []byte, w, h, pixelFormat int, info jpegInfo) error {
	t := turbo{lib: d.turbo}
	defer t.close()
	if err := t.open(); err != nil {
		return corrupt("JPEG: %w", err)
	}
	if err := t.readHeader(b); err != nil {
		return corrupt("JPEG: %w", err)
	}
	if int(t.width) != info.width || int(t.height) != info.height {
		return corrupt("JPEG: two sizes")
	}
	warning, err := t.decode(b, dst, w, h, pixelFormat)
	switch {
	case err != nil:
		return corrupt("JPEG: %w", err)
	case info.endless && warning != "" && !strings.HasSuffix(warning, "extraneous bytes before marker 0xd9"):
		return truncated("JPEG: without its end marker: %s", warning)
	}
	return nil
}

// A sequential file of one scan may lack its end marker: cameras send such frames, some padded. The decoders get the
// marker, and whatever they then miss was cut off.

// endMemory is what withEnd allocates.
func (info *jpegInfo) endMemory(b []byte) int {
	if info.endless {
		return len(b) + 2
	}
	return 0
}

// withEnd returns b with its end marker.
func (info *jpegInfo) withEnd(b []byte) []byte {
	if info.endless {
		return append(b[:len(b):len(b)], 0xFF, markEOI)
	}
	return b
}

// fastScale is dctScale for the part of the image that needs the largest scale.
func (d *Decoder) fastScale(width, height, orientation int) (w, h int) {
	if len(d.parts) == 0 {
		return dctScale(width, height, 1, 1, d.fastTarget)
	}
	for _, p := range d.parts {
		if orientation >= 5 {
			p.Width, p.Height = p.Height, p.Width
		}
		if pw, ph := dctScale(width, height, p.Width, p.Height, d.fastTarget); pw > w || ph > h {
			w, h = pw, ph
		}
	}
	return w, h
}

// dctScale returns the smallest of 1/8, 1/4 and 1/2 of w x h, rounded up as libjpeg does, of which a part across
// by down has a shorter side of at least 2.4 times target; w x h itself where none is. Closer to twice, thin lines come out visibly different: on drawings the
// error of the square made of it is 3 to 5 of 255 up to 2.2 times, and below 2 from 2.4 on (root mean square). For the
// scales in between libjpeg-turbo has no vector instructions, so that they take longer than the next larger one of these.
func dctScale(w, h int, across, down float64, target int) (int, int) {
	for _, n := range []int{8, 4, 2} {
		sw, sh := roundUp(w, n), roundUp(h, n)
		if 5*min(across*float64(sw), down*float64(sh)) >= float64(12*target) {
			return sw, sh
		}
	}
	return w, h
}
