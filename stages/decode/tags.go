package decode

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Tags of TIFF 6.0, of which EXIF 2.32 has the orientation.
const (
	tagWidth           = 0x100
	tagHeight          = 0x101
	tagBits            = 0x102
	tagCompression     = 0x103
	tagPhotometric     = 0x106
	tagFillOrder       = 0x10A
	tagStripOffsets    = 0x111
	tagOrientation     = 0x112
	tagSamples         = 0x115
	tagRowsPerStrip    = 0x116
	tagStripByteCounts = 0x117
	tagPlanar          = 0x11C
	tagT4Options       = 0x124
	tagT6Options       = 0x125
	tagPredictor       = 0x13D
	tagColorMap        = 0x140
	tagTileWidth       = 0x142
	tagTileLength      = 0x143
	tagTileOffsets     = 0x144
	tagTileByteCounts  = 0x145
	tagExtraSamples    = 0x152
	tagSampleFormat    = 0x153
)

// Types of the values of a tag.
const (
	noTag         = 0
	byteType      = 1
	textType      = 2
	shortType     = 3
	longType      = 4
	rationalType  = 5
	sbyteType     = 6
	otherType     = 7
	sshortType    = 8
	slongType     = 9
	srationalType = 10
	floatType     = 11
	doubleType    = 12
	ifdType       = 13
	long8Type     = 16
)

// typeSizes has the bytes of a value of each type.
var typeSizes = map[uint16]uint64{byteType: 1, textType: 1, otherType: 1, shortType: 2, longType: 4, rationalType: 8,
	sbyteType: 1, sshortType: 2, slongType: 4, srationalType: 8, floatType: 4, doubleType: 8, ifdType: 4, long8Type: 8}

// tiffTagNames names the tags that say what the pixels are. All others are skipped unread.
var tiffTagNames = map[uint16]string{
	tagWidth: "ImageWidth", tagHeight: "ImageLength", tagBits: "BitsPerSample", tagCompression: "Compression",
	tagPhotometric: "PhotometricInterpretation", tagFillOrder: "FillOrder", tagStripOffsets: "StripOffsets",
	tagOrientation: "Orientation", tagSamples: "SamplesPerPixel", tagRowsPerStrip: "RowsPerStrip",
	tagStripByteCounts: "StripByteCounts", tagPlanar: "PlanarConfiguration", tagT4Options: "T4Options",
	tagT6Options: "T6Options", tagPredictor: "Predictor", tagColorMap: "ColorMap", tagTileWidth: "TileWidth",
	tagTileLength: "TileLength", tagTileOffsets: "TileOffsets", tagTileByteCounts: "TileByteCounts",
	tagExtraSamples: "ExtraSamples", tagSampleFormat: "SampleFormat",
}

// tiffLists are the tags that may have several values.
var tiffLists = map[uint16]bool{tagBits: true, tagStripOffsets: true, tagStripByteCounts: true, tagColorMap: true,
	tagTileOffsets: true, tagTileByteCounts: true, tagExtraSamples: true, tagSampleFormat: true}

// tiffIntegers are the types of integers of 8, 16 and 32 bits, without and with a sign.
var tiffIntegers = map[uint16]bool{byteType: true, shortType: true, longType: true, sbyteType: true, sshortType: true, slongType: true}

// tiffValues are the values of one tag, as they stand in the file.
type tiffValues struct {
	raw   []byte
	size  int // bytes of a value: 1, 2 or 4; 0: the tag is missing
	order binary.ByteOrder
}

func (v tiffValues) count() int {
	if v.size == 0 {
		return 0
	}
	return len(v.raw) / v.size
}

// at returns value i, 0 where there are fewer. A negative one comes out as a large number.
func (v tiffValues) at(i int) int {
	if i >= v.count() {
		return 0
	}
	switch at := v.raw[i*v.size:]; v.size {
	case 1:
		return int(at[0])
	case 2:
		return int(v.order.Uint16(at))
	default:
		return int(v.order.Uint32(at))
	}
}

// tiffTags are the known tags of the first directory of a TIFF file.
type tiffTags map[uint16]tiffValues

// get returns the first value of a tag, or another where the tag is missing.
func (tags tiffTags) get(tag uint16, missing int) int {
	if v := tags[tag]; v.count() > 0 {
		return v.at(0)
	}
	return missing
}

// readTIFFTags reads the first directory of b, in whatever order its tags are. Of a tag that comes twice PIL takes
// the last for one thing and libtiff the first for another, so it is refused.
func readTIFFTags(b []byte) (tiffTags, error) {
	const header, entry, inline = 8, 12, 4
	if len(b) < header {
		return nil, truncated("TIFF: ends within the header")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[0] == 'M' {
		order = binary.BigEndian
	}
	at := int(order.Uint32(b[4:]))
	if at+2 > len(b) || at+2+entry*int(order.Uint16(b[at:])) > len(b) {
		return nil, truncated("TIFF: its directory is not within it")
	}
	tags := tiffTags{}
	for entries := b[at+2:][:entry*int(order.Uint16(b[at:]))]; len(entries) > 0; entries = entries[entry:] {
		tag, kind, count := order.Uint16(entries), order.Uint16(entries[2:]), int(order.Uint32(entries[4:]))
		name, known := tiffTagNames[tag]
		if !known {
			continue
		}
		if _, twice := tags[tag]; twice {
			return nil, unsupported("TIFF that has the tag %s twice", name)
		}
		size := int(typeSizes[kind])
		if !tiffIntegers[kind] || count == 0 || count > 1 && !tiffLists[tag] {
			return nil, unsupported("TIFF whose tag %s has %d values of type %d", name, count, kind)
		}
		raw, length := entries[entry-inline:entry], size*count
		if length > inline {
			from := int(order.Uint32(raw))
			if from+length > len(b) {
				return nil, truncated("TIFF: the values of its tag %s are not within it", name)
			}
			raw = b[from:]
		}
		tags[tag] = tiffValues{raw: raw[:length], size: size, order: order}
	}
	return tags, nil
}

// orientation reads the orientation out of an EXIF block, with or without the leading "Exif\0\0", of any type that
// PIL takes for a number: all but bytes. It returns 1 when there is none or the block is broken: that never fails an
// image.
func orientation(exif []byte) int {
	exif = bytes.TrimPrefix(exif, []byte("Exif\x00\x00"))
	v, kind := tiffTag(exif, tagOrientation)
	if kind != byteType && v >= 1 && v <= 8 {
		return int(v)
	}
	return 1
}

// tiffTag returns the first value of a tag in the first directory of a TIFF file, which an EXIF block is
// as well, and its type, noTag where there is none. As in PIL the last of several entries counts, and the directory
// ends at an entry whose values are not all there. Values that are no whole numbers, or out of range, are 0.
func tiffTag(b []byte, tag uint16) (value uint32, kind uint16) {
	if len(b) < 8 {
		return 0, noTag
	}
	var order binary.ByteOrder
	switch string(b[:4]) { // PIL takes the mixed ones as well
	case "II*\x00", "II\x00*":
		order = binary.LittleEndian
	case "MM\x00*", "MM*\x00":
		order = binary.BigEndian
	default:
		return 0, noTag
	}
	at := uint64(order.Uint32(b[4:]))
	if at+2 > uint64(len(b)) {
		return 0, noTag
	}
	entries := b[at+2:]
	for n := order.Uint16(b[at:]); n > 0 && len(entries) >= 12; n, entries = n-1, entries[12:] {
		k, v := order.Uint16(entries[2:]), entries[8:12]
		size := typeSizes[k] * uint64(order.Uint32(entries[4:]))
		if size == 0 {
			continue
		}
		if size > 4 {
			at := uint64(order.Uint32(v))
			if at+size > uint64(len(b)) {
				break
			}
			v = b[at : at+size]
		}
		if order.Uint16(entries) == tag {
			value, kind = number(v, k, order), k
		}
	}
	return value, kind
}

func number(v []byte, kind uint16, order binary.ByteOrder) uint32 {
	switch kind {
	case byteType, sbyteType:
		return uint32(v[0])
	case shortType, sshortType:
		return uint32(order.Uint16(v))
	case longType, slongType, ifdType:
		return order.Uint32(v)
	case rationalType:
		return whole(float64(order.Uint32(v)) / float64(order.Uint32(v[4:])))
	case srationalType:
		return whole(float64(int32(order.Uint32(v))) / float64(int32(order.Uint32(v[4:]))))
	case floatType:
		return whole(float64(math.Float32frombits(order.Uint32(v))))
	case doubleType:
		return whole(math.Float64frombits(order.Uint64(v)))
	case long8Type:
		return whole(float64(order.Uint64(v)))
	}
	return 0
}

// whole returns f, 0 where it is no number of 32 bits.
func whole(f float64) uint32 {
	if f >= 0 && f <= math.MaxUint32 && f == math.Trunc(f) {
		return uint32(f)
	}
	return 0
}
