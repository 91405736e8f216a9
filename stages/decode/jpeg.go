package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image/jpeg"
)

// maxScanWork bounds what a JPEG of many scans may cost: scans times pixels, in units of MaxPixels.
// A progressive file has about ten scans; hostile ones have thousands, each a pass over all pixels.
const maxScanWork = 16

// jpegInfo is what the markers of a JPEG file tell without decoding it.
type jpegInfo struct {
	exif       []byte // the first EXIF block, nil without one
	process    byte   // the SOF marker, 0xC0 to 0xCF; 0 when there is none
	precision  byte   // bits a sample
	width      int
	height     int
	components int
	scans      int
	terminated bool // has an end-of-image marker
}

// scanJPEG walks the markers of b (ITU T.81, annex B). It reads past garbage between them, as libjpeg does.
func scanJPEG(b []byte) (info jpegInfo) {
	const (
		stuffed, temporary, restart0, restart7 = 0x00, 0x01, 0xD0, 0xD7
		start, end, scan, app1                 = 0xD8, 0xD9, 0xDA, 0xE1
	)
	for {
		i := bytes.IndexByte(b, 0xFF)
		if i < 0 || i+1 >= len(b) {
			return info
		}
		marker := b[i+1]
		if marker == 0xFF {
			b = b[i+1:] // any number of 0xFF may come before a marker
			continue
		}
		b = b[i+2:]
		switch {
		case marker == stuffed, marker == temporary, marker == start, marker >= restart0 && marker <= restart7:
			continue
		case marker == end:
			info.terminated = true
			return info
		}
		if len(b) < 2 {
			return info
		}
		n := int(binary.BigEndian.Uint16(b))
		if n < 2 || n > len(b) {
			return info
		}
		segment := b[2:n]
		switch {
		case marker == scan:
			info.scans++
		case marker == app1 && info.exif == nil && bytes.HasPrefix(segment, []byte("Exif\x00")):
			info.exif = segment
		case marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC:
			if info.process == 0 && len(segment) >= 6 {
				info.process, info.precision = marker, segment[0]
				info.height, info.width = int(binary.BigEndian.Uint16(segment[1:])), int(binary.BigEndian.Uint16(segment[3:]))
				info.components = int(segment[5])
			}
		}
		b = b[n:]
	}
}

// check refuses what no decoder here can do, and files that end before their first pixel.
func (info jpegInfo) check() error {
	switch {
	case info.process == 0xC3 || info.process >= 0xC5 && info.process <= 0xC7 || info.process == 0xCB || info.process >= 0xCD:
		return unsupportedKind(fmt.Sprintf("lossless or hierarchical JPEG (SOF%d)", info.process-0xC0))
	case info.process != 0 && info.precision != 8:
		return unsupportedKind(fmt.Sprintf("JPEG of %d bits a sample", info.precision))
	case info.scans == 0 && !info.terminated:
		return fmt.Errorf("%w: JPEG: ends within the header", ErrTruncated)
	}
	return nil
}

func (d *Decoder) planJPEG(b []byte) (Plan, error) {
	info := scanJPEG(b)
	if err := info.check(); err != nil {
		return Plan{}, err
	}
	if err := d.checkScans(info.width, info.height, info.scans); err != nil {
		return Plan{}, err
	}
	if d.turbo == nil {
		return d.planGoJPEG(b, info)
	}
	w, h := info.width, info.height
	if d.fastTarget > 0 {
		w, h = dctScale(w, h, 2*d.fastTarget)
	}
	own, inks := 0, info.components == 4
	if inks {
		own = 4 * w * h
	}
	work := len(b) + max(info.scans, 1)*info.components*info.width*info.height
	if info.scans > 1 { // the library keeps the coefficients of the whole picture, 2 bytes each
		own += 2 * info.components * info.width * info.height
	}
	return newPlan(w, h, own, work, orientation(info.exif), func(t *task) (Picture, error) {
		if inks {
			return d.decodeTurboCMYK(b, w, h, info)
		}
		p := newPicture(w, h)
		return p, d.runTurbo(b, p.Pix, w, h, tjRGB, info)
	}), nil
}

// decodeTurboCMYK decodes inks as the file has them. By Adobe's convention, which PIL follows for every
// such file, they are inverted: 255 is no ink.
func (d *Decoder) decodeTurboCMYK(b []byte, w, h int, info jpegInfo) (Picture, error) {
	inks := newBuffer(4 * w * h)
	defer inks.release()
	if err := d.runTurbo(b, inks.bytes, w, h, tjCMYK, info); err != nil {
		return Picture{}, err
	}
	p := newPicture(w, h)
	for i, o := 0, 0; o < len(p.Pix); i, o = i+4, o+3 {
		q := inks.bytes[i : i+4 : i+4]
		p.Pix[o], p.Pix[o+1], p.Pix[o+2] = fromInks(255-q[0], 255-q[1], 255-q[2], 255-q[3])
	}
	return p, nil
}

// runTurbo treats damage as PIL does: where libjpeg only warns, the picture counts, unless the file has
// no end-of-image marker; then it was cut off.
func (d *Decoder) runTurbo(b, dst []byte, w, h, pixelFormat int, info jpegInfo) error {
	t := turbo{lib: d.turbo}
	defer t.close()
	if err := t.readHeader(b); err != nil {
		return fmt.Errorf("%w: JPEG: %w", ErrCorrupt, err)
	}
	if int(t.width) != info.width || int(t.height) != info.height {
		return fmt.Errorf("%w: JPEG: two sizes", ErrCorrupt)
	}
	warned, err := t.decode(b, dst, w, h, pixelFormat)
	if err != nil {
		return fmt.Errorf("%w: JPEG: %w", ErrCorrupt, err)
	}
	if warned && !info.terminated {
		return fmt.Errorf("%w: JPEG: ends within the picture", ErrTruncated)
	}
	return nil
}

// planGoJPEG is the way without libturbojpeg. It is stricter than PIL: every damage is an error.
func (d *Decoder) planGoJPEG(b []byte, info jpegInfo) (Plan, error) {
	pixels := info.width * info.height
	size := 3
	if info.components == 4 {
		size = 8 // converted into a second picture
	}
	if info.scans > 1 {
		size += 4 * 4 // coefficients of 4 bytes
	}
	return newPlan(info.width, info.height, size*pixels, len(b)+(info.scans+1)*size*pixels, orientation(info.exif), func(t *task) (Picture, error) {
		m, err := jpeg.Decode(t.reader(b))
		if err != nil {
			if t.ctx.Err() != nil {
				return Picture{}, context.Cause(t.ctx)
			}
			return Picture{}, goJPEGError(err)
		}
		return t.fromImage(m)
	}), nil
}

// goJPEGError tells apart what only libturbojpeg can do: arithmetic coding, uncommon subsampling.
func goJPEGError(err error) error {
	if feature := jpeg.UnsupportedError(""); errors.As(err, &feature) {
		return fmt.Errorf("%w: JPEG: %w (it takes libturbojpeg, which is not installed)", ErrUnsupportedFormat, err)
	}
	return classify(JPEG, err)
}

// checkScans refuses too many pixels, and scans that would pass over them too often.
func (d *Decoder) checkScans(w, h, scans int) error {
	if err := d.checkSize(w, h); err != nil {
		return err
	}
	if scans*w*h > maxScanWork*d.maxPixels {
		return fmt.Errorf("%w: JPEG of %d x %d with %d scans", ErrTooManyPixels, w, h, scans)
	}
	return nil
}

// dctScale returns the smallest of 1/8, 1/4 and 1/2 of w x h, rounded up as libjpeg does, whose shorter
// side is at least minShort; w x h itself where none is. For the scales in between libjpeg-turbo has
// no vector instructions, so that they take longer than the next larger one of these.
func dctScale(w, h, minShort int) (int, int) {
	for _, n := range []int{8, 4, 2} {
		sw, sh := (w+n-1)/n, (h+n-1)/n
		if min(sw, sh) >= minShort {
			return sw, sh
		}
	}
	return w, h
}
