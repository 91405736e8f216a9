package decode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/image/ccitt"
)

// TIFF is read by a small reader of our own: one strip or tile after the other, in pieces of a row, straight into
// the packed pixels.

// maxBlocks bounds the strips or tiles of a TIFF: each costs a fresh start of the decompressor.
const maxBlocks = 1 << 16

// Values of Compression that are read.
const (
	tiffRaw          = 1
	tiffGroup3       = 3
	tiffGroup4       = 4
	tiffLZW          = 5
	tiffAdobeDeflate = 8
	tiffPackBits     = 32773
	tiffDeflate      = 32946
)

// tiffCompressions names those that are not.
var tiffCompressions = map[int]string{2: "modified Huffman", 6: "old-style JPEG", 7: "JPEG", 9: "JBIG", 10: "JBIG", 32771: "CCITT RLEW",
	32809: "ThunderScan", 32909: "PixarLog", 34661: "JBIG", 34676: "SGILog", 34677: "SGILog24", 34712: "JPEG 2000",
	34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"}

// tiffFile is what the directory of a TIFF says of its pixels.
type tiffFile struct {
	b             []byte
	width, height int
	tiffPixel
	compression int
	reversed    bool // FillOrder 2: the first bit of a byte is its lowest
	predicted   bool // each sample is stored as the difference to that of the pixel before
	offsets     tiffValues
	counts      tiffValues
	blocks      tiffSize // strips or tiles of a plane: how many across and down
	block       tiffSize // the size of one, in pixels; it may be larger than the image
}

type tiffSize struct{ w, h int }

func unsupportedTIFF(format string, args ...any) error {
	return unsupportedKind("this kind of TIFF (" + fmt.Sprintf(format, args...) + ")")
}

func (d *Decoder) planTIFF(b []byte) (Plan, error) {
	tags, err := readTIFFTags(b)
	if err != nil {
		return Plan{}, err
	}
	f := &tiffFile{b: b, width: tags.get(tagWidth, 0), height: tags.get(tagHeight, 0)}
	if err := d.checkSize(f.width, f.height); err != nil {
		return Plan{}, err
	}
	if err := f.layOut(tags); err != nil {
		return Plan{}, err
	}
	if f.tiffPixel, err = tags.pixel(); err != nil {
		return Plan{}, err
	}
	if err := f.checkCoding(tags); err != nil {
		return Plan{}, err
	}
	stored, inflated, err := f.measure()
	if err != nil {
		return Plan{}, err
	}
	pixels := f.width * f.height
	work := stored + f.touched()*inflated + pixels*f.pixelBytes()*min(f.planes, 3)
	if work > 60*(len(b)+pixels) {
		return Plan{}, unsupportedTIFF("tiles of %d x %d pixels for an image of %d x %d", f.block.w, f.block.h, f.width, f.height)
	}
	own := 96 << 10 // the tables of a decompressor, and a piece of a row
	if f.fax() {
		own += 2 * f.block.w
	}
	upright := tags.get(tagOrientation, 1)
	if upright < 1 || upright > 8 {
		upright = 1
	}
	return newPlan(f.width, f.height, own, work, upright, f.decode), nil
}

// fax tells that the compression is one of those of telefax.
func (f *tiffFile) fax() bool { return f.compression == tiffGroup3 || f.compression == tiffGroup4 }

// touched is how often an inflated byte is written and read before its pixels are packed.
func (f *tiffFile) touched() int {
	switch {
	case f.fax():
		return 1 + 3*8 // each of its pixels is a byte first, that is written and read twice
	case f.predicted:
		return 3
	}
	return 1
}

// pixelBytes is what is read of a pixel when it is packed.
func (f *tiffFile) pixelBytes() int { return (f.bits*f.samples + 7) / 8 }

// layOut finds the strips or tiles.
func (f *tiffFile) layOut(tags tiffTags) error {
	strips, tiles := tags[tagStripOffsets].count() > 0, tags[tagTileOffsets].count() > 0
	f.block = tiffSize{f.width, min(f.height, tags.get(tagRowsPerStrip, f.height))}
	f.offsets, f.counts = tags[tagStripOffsets], tags[tagStripByteCounts]
	if tiled := tags[tagTileWidth].count() > 0 || tags[tagTileLength].count() > 0; tiled || tiles {
		if strips || !tiled {
			return unsupportedTIFF("strips and tiles")
		}
		f.block = tiffSize{tags.get(tagTileWidth, 0), tags.get(tagTileLength, 0)}
		f.offsets, f.counts = tags[tagTileOffsets], tags[tagTileByteCounts]
	}
	const surplus = 1 << 16 // keeps the products of sizes far from overflow
	switch {
	case f.block.w == 0 || f.block.h == 0:
		return fmt.Errorf("%w: TIFF: strips or tiles of %d x %d pixels", ErrCorrupt, f.block.w, f.block.h)
	case f.block.w > f.width+surplus:
		return unsupportedTIFF("tiles of %d columns for an image of %d", f.block.w, f.width)
	}
	f.blocks = tiffSize{(f.width + f.block.w - 1) / f.block.w, (f.height + f.block.h - 1) / f.block.h}
	if n := f.blocks.w * f.blocks.h; n > maxBlocks {
		return unsupportedKind(fmt.Sprintf("TIFF of %d strips or tiles, at most %d", n, maxBlocks))
	}
	return nil
}

// checkCoding refuses the compressions and their options that are not read here, and where PIL itself gets lost.
func (f *tiffFile) checkCoding(tags tiffTags) error {
	f.compression = tags.get(tagCompression, tiffRaw)
	predictor := 1
	switch f.compression {
	case tiffRaw:
		if n := f.blocks.w * f.blocks.h * f.planes; f.offsets.count() > n {
			return unsupportedTIFF("%d strips or tiles, %d are enough", f.offsets.count(), n)
		}
	case tiffPackBits:
	case tiffLZW, tiffAdobeDeflate, tiffDeflate:
		predictor = tags.get(tagPredictor, 1)
	case tiffGroup3, tiffGroup4:
		const twoDimensional, uncompressed, fill = 1, 2, 4
		options := tags.get(tagT4Options, 0) & (twoDimensional | uncompressed | fill)
		if f.compression == tiffGroup4 {
			options = tags.get(tagT6Options, 0) & uncompressed
		}
		switch {
		case f.bits != 1 || f.samples != 1:
			return unsupportedTIFF("fax of %d samples of %d bits", f.samples, f.bits)
		case options&twoDimensional != 0:
			return unsupportedTIFF("fax group 3, two-dimensional")
		case options != 0:
			return unsupportedTIFF("fax group %d with options %d", f.compression, options)
		case f.block.w > 1<<20:
			return unsupportedTIFF("fax of %d columns", f.block.w)
		}
	default:
		if name := tiffCompressions[f.compression]; name != "" {
			return unsupportedTIFF("compressed by %s", name)
		}
		return unsupportedTIFF("compression %d", f.compression)
	}
	if f.predicted = predictor == 2; predictor > 2 || f.predicted && f.bits < 8 {
		return unsupportedTIFF("predictor %d of %d bits", predictor, f.bits)
	}
	fillOrder := tags.get(tagFillOrder, 1)
	if f.reversed = fillOrder == 2; fillOrder != 1 && fillOrder != 2 {
		return unsupportedTIFF("fill order %d", fillOrder)
	}
	if f.compression == tiffRaw && f.blocks.w*f.block.w > f.width && f.rowBits()%8 != 0 {
		return unsupportedTIFF("tiles whose rows are not whole bytes")
	}
	return nil
}

// rowBits is the length of a row of a strip or tile.
func (f *tiffFile) rowBits() int { return f.block.w * f.bits * f.samples }

// measure adds up what the strips or tiles that are needed have stored, and what they inflate to: each only as many rows
// as the image has there. Compressed ones may not have more bytes together than the file: if they share them, a
// small file would be read again and again.
func (f *tiffFile) measure() (stored, inflated int, err error) {
	n := f.blocks.w * f.blocks.h * f.planes
	if f.offsets.count() < n {
		return 0, 0, fmt.Errorf("%w: TIFF: %d strips or tiles of %d", ErrTruncated, f.offsets.count(), n)
	}
	inflated = f.blocks.w * f.height * ((f.rowBits() + 7) / 8) * f.planes
	for i := range n {
		data, err := f.stored(i)
		if err != nil {
			return 0, 0, err
		}
		stored += len(data)
	}
	if f.compression != tiffRaw && stored > len(f.b) {
		return 0, 0, unsupportedTIFF("strips or tiles that share their bytes")
	}
	return stored, inflated, nil
}

// stored returns the bytes of a strip or tile: as many as are needed of an uncompressed one, whose count is not looked at.
// A single one without a count reaches to the end of the file.
func (f *tiffFile) stored(i int) ([]byte, error) {
	from, n := f.offsets.at(i), f.counts.at(i)
	switch {
	case f.compression == tiffRaw:
		down := i / f.blocks.w % f.blocks.h
		n = min(f.block.h, f.height-down*f.block.h) * ((f.rowBits() + 7) / 8)
	case n == 0 && f.offsets.count() == 1:
		n = max(0, len(f.b)-from)
	}
	switch {
	case from+n > len(f.b):
		return nil, fmt.Errorf("%w: TIFF: strip or tile %d ends at byte %d of %d", ErrTruncated, i, from+n, len(f.b))
	case from == 0 || n == 0:
		return nil, fmt.Errorf("%w: TIFF: strip or tile %d has %d bytes at %d", ErrCorrupt, i, n, from)
	}
	return f.b[from:][:n], nil
}

// decode is the decoder of a Plan.
func (f *tiffFile) decode(t *task) (Picture, error) {
	p := newPicture(f.width, f.height)
	src := &tiffSource{task: t, reversed: f.reversed}
	start := f.codec(src)
	piece := f.newPiece()
	layer := f.blocks.w * f.blocks.h
	for i := range layer * min(f.planes, 3) { // alpha is not needed
		data, err := f.stored(i)
		if err != nil {
			return p, err
		}
		src.open(data)
		x, y := i%f.blocks.w*f.block.w, i/f.blocks.w%f.blocks.h*f.block.h
		r, err := start(min(f.block.h, f.height-y))
		if err == nil {
			err = f.decodeBlock(t, r, p.Pix, i/layer, x, y, piece)
		}
		if err != nil {
			return p, f.fault(t, err)
		}
	}
	return p, nil
}

// fault says what is wrong with the pixels.
func (f *tiffFile) fault(t *task, err error) error {
	truncated := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.HasSuffix(err.Error(), "incomplete code")
	switch {
	case t.ctx.Err() != nil:
		return context.Cause(t.ctx)
	case errors.Is(err, ErrUnsupportedFormat), errors.Is(err, ErrCorrupt):
		return err
	case truncated:
		return fmt.Errorf("%w: TIFF: a strip or tile ends before its pixels", ErrTruncated)
	case f.fax(): // bad lines and unannounced fill bits, which libtiff passes over
		return unsupportedTIFF("fax with surplus bits or transmission errors: %v", err)
	}
	return fmt.Errorf("%w: TIFF: %w", ErrCorrupt, err)
}

// codec returns the function that begins to read so many rows of the strip or tile that src has been opened for.
func (f *tiffFile) codec(src *tiffSource) (start func(rows int) (io.Reader, error)) {
	switch f.compression {
	case tiffLZW:
		r := newLZWReader(src)
		return func(int) (io.Reader, error) { return r, r.start() }
	case tiffAdobeDeflate, tiffDeflate:
		r := &inflater{src: src}
		return func(int) (io.Reader, error) { return r.start() }
	case tiffPackBits:
		return func(int) (io.Reader, error) { return &packBits{src: src}, nil }
	case tiffGroup3, tiffGroup4:
		group := ccitt.Group3
		if f.compression == tiffGroup4 {
			group = ccitt.Group4
		}
		return func(rows int) (io.Reader, error) {
			return ccitt.NewReader(src, ccitt.MSB, group, f.block.w, rows, &ccitt.Options{Invert: true}), nil
		}
	}
	return func(int) (io.Reader, error) { return src, nil }
}

// piece is a buffer for a part of a row.
type piece struct {
	width int    // in pixels; a multiple of 8
	lead  int    // bytes of one pixel, where there is a predictor
	buf   []byte // the pixel before, and width pixels
}

func (f *tiffFile) newPiece() *piece {
	const width = 4 << 10
	lead := f.bits * f.samples / 8
	return &piece{width: width, lead: lead, buf: make([]byte, lead+width*f.bits*f.samples/8)}
}

// decodeBlock reads a strip or tile, of plane, whose first pixel is at x0, y0, as far down as the image reaches.
func (f *tiffFile) decodeBlock(t *task, r io.Reader, pix []byte, plane, x0, y0 int, c *piece) error {
	columns := min(f.block.w, f.width-x0)
	for y := y0; y < min(f.height, y0+f.block.h); y++ {
		clear(c.buf[:c.lead])
		for x := 0; x < f.block.w; x += c.width {
			n := min(c.width, f.block.w-x)
			data := c.buf[c.lead:][:(n*f.bits*f.samples+7)/8]
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
			if f.predicted {
				f.sum(c.buf[:c.lead+len(data)], c.lead)
				copy(c.buf[:c.lead], data[len(data)-c.lead:])
			}
			if n = max(0, min(n, columns-x)); n > 0 {
				f.pack(pix[3*(y*f.width+x0+x):][:3*n], data, plane)
			}
			if err := t.spend(f.touched()*len(data) + n*(f.pixelBytes()+3/min(f.planes, 3))); err != nil {
				return err
			}
		}
	}
	return nil
}
