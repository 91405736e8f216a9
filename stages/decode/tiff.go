package decode

import (
	"fmt"
	"image"
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
	blocks      image.Point // strips or tiles of a plane: how many across and down
	block       image.Point // the size of one, in pixels; it may be larger than the image
}

func unsupportedTIFF(format string, args ...any) error {
	return unsupported("this kind of TIFF (%w)", fmt.Errorf(format, args...))
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
		return Plan{}, unsupportedTIFF("tiles of %d x %d pixels for an image of %d x %d", f.block.X, f.block.Y, f.width, f.height)
	}
	own := 96 << 10 // the tables of a decompressor, and a piece of a row
	if f.fax() {
		own += 2 * f.block.X
	}
	upright := tags.get(tagOrientation, 1)
	if upright < 1 || upright > 8 {
		upright = 1
	}
	return newPlan(f.width, f.height, own, work, upright, f.decode).coded(stored, f.codeTime()), nil
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

func (f *tiffFile) layOut(tags tiffTags) error {
	strips, tiles := tags[tagStripOffsets].count() > 0, tags[tagTileOffsets].count() > 0
	f.block = image.Pt(f.width, min(f.height, tags.get(tagRowsPerStrip, f.height)))
	f.offsets, f.counts = tags[tagStripOffsets], tags[tagStripByteCounts]
	if tiled := tags[tagTileWidth].count() > 0 || tags[tagTileLength].count() > 0; tiled || tiles {
		if strips || !tiled {
			return unsupportedTIFF("strips and tiles")
		}
		f.block = image.Pt(tags.get(tagTileWidth, 0), tags.get(tagTileLength, 0))
		f.offsets, f.counts = tags[tagTileOffsets], tags[tagTileByteCounts]
	}
	const surplus = 1 << 16 // keeps the products of sizes far from overflow
	switch {
	case f.block.X == 0 || f.block.Y == 0:
		return corrupt("TIFF: strips or tiles of %d x %d pixels", f.block.X, f.block.Y)
	case f.block.X > f.width+surplus:
		return unsupportedTIFF("tiles of %d columns for an image of %d", f.block.X, f.width)
	}
	f.blocks = image.Pt(roundUp(f.width, f.block.X), roundUp(f.height, f.block.Y))
	if n := f.blocks.X * f.blocks.Y; n > maxBlocks {
		return unsupported("TIFF of %d strips or tiles, at most %d", n, maxBlocks)
	}
	return nil
}

// checkCoding refuses the compressions and their options that are not read here, and where PIL itself gets lost.
func (f *tiffFile) checkCoding(tags tiffTags) error {
	f.compression = tags.get(tagCompression, tiffRaw)
	predictor := 1
	switch f.compression {
	case tiffRaw:
		if n := f.blocks.X * f.blocks.Y * f.planes; f.offsets.count() > n {
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
		case f.block.X > 1<<20:
			return unsupportedTIFF("fax of %d columns", f.block.X)
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
	if f.compression == tiffRaw && f.blocks.X*f.block.X > f.width && f.rowBits()%8 != 0 {
		return unsupportedTIFF("tiles whose rows are not whole bytes")
	}
	return nil
}

// rowBits is the length of a row of a strip or tile.
func (f *tiffFile) rowBits() int { return f.block.X * f.bits * f.samples }

// measure adds up what the strips or tiles that are needed have stored, and what they inflate to: each only as many rows
// as the image has there. Compressed ones may not have more bytes together than the file: if they share them, a
// small file would be read again and again.
func (f *tiffFile) measure() (stored, inflated int, err error) {
	n := f.blocks.X * f.blocks.Y * f.planes
	if f.offsets.count() < n {
		return 0, 0, truncated("TIFF: %d strips or tiles of %d", f.offsets.count(), n)
	}
	inflated = f.blocks.X * f.height * ((f.rowBits() + 7) / 8) * f.planes
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
		down := i / f.blocks.X % f.blocks.Y
		n = min(f.block.Y, f.height-down*f.block.Y) * ((f.rowBits() + 7) / 8)
	case n == 0 && f.offsets.count() == 1:
		n = max(0, len(f.b)-from)
	}
	switch {
	case from+n > len(f.b):
		return nil, truncated("TIFF: strip or tile %d ends at byte %d of %d", i, from+n, len(f.b))
	case from == 0 || n == 0:
		return nil, corrupt("TIFF: strip or tile %d has %d bytes at %d", i, n, from)
	}
	return f.b[from:][:n], nil
}

// codeTime is the factor of Plan.coded.
func (f *tiffFile) codeTime() int {
	const fax = 64
	switch f.compression {
	case tiffAdobeDeflate, tiffDeflate:
		return inflateTime
	case tiffGroup3, tiffGroup4:
		return fax
	}
	return 0
}
