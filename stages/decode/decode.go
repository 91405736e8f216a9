// Package decode turns compressed images into packed RGB pixels, as PIL's exif_transpose followed by
// convert("RGB") does: JPEG, PNG, WebP, GIF, BMP and TIFF, of animations the first frame; 16-bit samples are
// cut to their high byte, alpha is dropped and not blended, and EXIF orientation is applied.
//
// JPEGs are decoded by libturbojpeg, opened at run time: byte for byte what PIL decodes. Where the library
// is missing, the Go standard library decodes them, slower and close but not equal (chroma is not
// interpolated).
//
// All input is taken as hostile: the number of pixels is judged by the header before anything is allocated,
// and a panic of a decoder is an error of that image. Nothing is read but the given bytes.
//
// Limitations: BMP with fewer or more than 1, 2, 4, 8, 24 or 32 bits or with run lengths,
// and CMYK, floating-point or JPEG-compressed TIFF are refused as unsupported; colour profiles are ignored
// as PIL ignores them.
package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"image/png"

	"golang.org/x/image/bmp"
)

// Decoder decodes images one at a time: one for each worker, not for concurrent use. Close it after use.
type Decoder struct {
	maxPixels  int
	fastTarget int    // the shorter side that will be needed; 0: decode at full size
	turbo      *turbo // nil: no library

	// Of the picture that is being decoded.
	ctx  context.Context // how long it may wait for memory
	held int64           // of the budget
}

// NewDecoder makes a decoder by a valid cfg. target is the side of the picture that will be made of the
// decoded one, in pixels (224 for CLIP): "fast" never goes below twice that on the shorter side.
// JPEGs go to libturbojpeg where FindLibrary finds it.
func NewDecoder(cfg Config, target int) *Decoder {
	lib, _ := loadTurbo() // FindLibrary reports the error to who asks
	return newDecoder(cfg, target, lib)
}

func newDecoder(cfg Config, target int, lib *turboLib) *Decoder {
	d := &Decoder{maxPixels: cfg.MaxPixels}
	if cfg.JPEGScale == ScaleFast {
		d.fastTarget = target
	}
	if lib != nil {
		d.turbo = &turbo{lib: lib}
	}
	return d
}

// Close frees the decompressor of libturbojpeg. The decoder goes on working without it.
func (d *Decoder) Close() {
	if d.turbo != nil {
		d.turbo.close()
		d.turbo = nil
	}
}

// Decode is DecodeContext without an end to the wait for memory.
func (d *Decoder) Decode(b []byte) (Picture, error) { return d.DecodeContext(context.Background(), b) }

// DecodeContext decodes b, which it does not keep or change. The caller owns the picture and releases it.
// It blocks for as long as the work takes (milliseconds a megapixel); pictures of millions of pixels wait,
// besides, while those that other decoders work on or that are not released yet fill a GiB, but not beyond
// the end of ctx. The error is one of ErrNotImage, ErrUnsupportedFormat, ErrTooManyPixels, ErrTruncated or
// ErrCorrupt, wrapped with the detail, or the cause of ctx when it ended in that wait.
func (d *Decoder) DecodeContext(ctx context.Context, b []byte) (p Picture, err error) {
	d.ctx = ctx
	defer func() { d.ctx = nil }()
	format, err := sniff(b)
	if err != nil {
		return Picture{}, err
	}
	defer d.settle(&p) // after the others, when nothing refers to the memory of a decoder
	defer func() {
		if r := recover(); r != nil { // third-party decoders on hostile bytes
			p, err = Picture{}, fmt.Errorf("%w: %s: decoder failed: %v", ErrCorrupt, format, r)
		}
	}()
	return d.decode(format, b)
}

// decode leaves d.held for settle.
func (d *Decoder) decode(format string, b []byte) (p Picture, err error) {
	switch format {
	case JPEG:
		p, err = d.decodeJPEG(b)
	case PNG:
		p, err = d.decodePNG(b)
	case WebP:
		p, err = d.decodeWebP(b)
	case GIF:
		p, err = d.decodeGIF(b)
	case BMP:
		p, err = d.decodeBMP(b)
	case TIFF:
		p, err = d.decodeTIFF(b)
	}
	if err != nil {
		return Picture{}, err
	}
	p.Format = format
	return p, nil
}

// checkSize refuses a header with no pixels or with too many.
func (d *Decoder) checkSize(w, h int) error {
	switch {
	case w <= 0 || h <= 0:
		return fmt.Errorf("%w: its header says %d x %d pixels", ErrCorrupt, w, h)
	case w > d.maxPixels/h:
		return fmt.Errorf("%w: %d x %d is more than %d", ErrTooManyPixels, w, h, d.maxPixels)
	}
	return nil
}

func (d *Decoder) decodePNG(b []byte) (Picture, error) {
	// The size stands in the first chunk, at a fixed place; the decoder checks that the chunk is the right one.
	const width, height, depth, colorType, interlace, firstChunkEnd = 16, 20, 24, 25, 28, 33
	if len(b) < firstChunkEnd {
		return Picture{}, fmt.Errorf("%w: PNG: ends within the header", ErrTruncated)
	}
	w, h := int(binary.BigEndian.Uint32(b[width:])), int(binary.BigEndian.Uint32(b[height:]))
	if err := d.checkSize(w, h); err != nil {
		return Picture{}, err
	}
	const paletted = 3
	size := 4 // bytes a pixel
	switch {
	case b[depth] == 16:
		size = 8
	case b[colorType] == paletted:
		size = 1
	}
	own := size * w * (h + 2) // and two rows as they are stored
	if b[interlace] != 0 {
		own *= 2 // the passes are pictures of their own
	}
	turn := orientation(pngExif(b))
	if err := d.admit(w, h, own, turn); err != nil {
		return Picture{}, err
	}
	m, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return Picture{}, classify(PNG, err)
	}
	p, err := fromImage(m)
	if err == nil {
		upright(&p, turn)
	}
	return p, err
}

func (d *Decoder) decodeBMP(b []byte) (Picture, error) {
	config, err := bmp.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return Picture{}, classify(BMP, err)
	}
	if err := d.checkSize(config.Width, config.Height); err != nil {
		return Picture{}, err
	}
	// The pixels are stored as they are, so a header that promises more than the file has is known at once.
	if bits := int(binary.LittleEndian.Uint16(b[28:])); config.Width*config.Height > len(b)*8/bits {
		return Picture{}, fmt.Errorf("%w: BMP: %d bytes for %d x %d pixels", ErrTruncated, len(b), config.Width, config.Height)
	}
	if err := d.admit(config.Width, config.Height, 4*config.Width*config.Height, 1); err != nil {
		return Picture{}, err
	}
	m, err := bmp.Decode(bytes.NewReader(b))
	if err != nil {
		return Picture{}, classify(BMP, err)
	}
	return fromImage(m)
}
