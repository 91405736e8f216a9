package decode

import (
	"bytes"
	"encoding/binary"
	"math"
)

// tagOrientation is a tag of a TIFF directory (TIFF 6.0 and EXIF 2.32).
const tagOrientation = 0x112

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
var typeSizes = map[uint16]uint64{byteType: 1, textType: 1, otherType: 1, shortType: 2, longType: 4, rationalType: 8, sbyteType: 1, sshortType: 2,
	slongType: 4, srationalType: 8, floatType: 4, doubleType: 8, ifdType: 4, long8Type: 8}

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

// number reads the first value of a type out of v.
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
