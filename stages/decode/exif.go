package decode

import (
	"bytes"
	"encoding/binary"
)

// Tags of a TIFF directory (TIFF 6.0 and EXIF 2.32).
const (
	tagCompression  = 0x103
	tagPhotometric  = 0x106
	tagOrientation  = 0x112
	tagRowsPerStrip = 0x116
	tagTileWidth    = 0x142
	tagTileLength   = 0x143
)

// Types of the values of a tag.
const (
	noTag     = 0
	byteType  = 1
	shortType = 3
	longType  = 4
)

// orientation reads the orientation out of an EXIF block, with or without the leading "Exif\0\0".
// It returns 1 when there is none or the block is broken: that never fails an image.
func orientation(exif []byte) int {
	exif = bytes.TrimPrefix(exif, []byte("Exif\x00\x00"))
	v, kind := tiffTag(exif, tagOrientation)
	if (kind == shortType || kind == longType) && v >= 1 && v <= 8 {
		return int(v)
	}
	return 1
}

// tiffTag returns the first value of a tag in the first directory of a TIFF file, which an EXIF block is
// as well, and its type, noTag where there is no such number.
func tiffTag(b []byte, tag uint16) (value uint32, kind uint16) {
	if len(b) < 8 {
		return 0, noTag
	}
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
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
		if order.Uint16(entries) == tag {
			return firstValue(b, entries[:12], order)
		}
	}
	return 0, noTag
}

// firstValue returns the first value of a directory entry: it is in the entry itself where all of them
// fit its last four bytes, else in b at the offset that is there.
func firstValue(b, entry []byte, order binary.ByteOrder) (value uint32, kind uint16) {
	kind, count, v := order.Uint16(entry[2:]), uint64(order.Uint32(entry[4:])), entry[8:12]
	size := map[uint16]uint64{byteType: 1, shortType: 2, longType: 4}[kind]
	if size == 0 || count == 0 {
		return 0, noTag
	}
	if size*count > 4 {
		at := uint64(order.Uint32(v))
		if at+size > uint64(len(b)) {
			return 0, noTag
		}
		v = b[at : at+size]
	}
	switch kind {
	case byteType:
		return uint32(v[0]), kind
	case shortType:
		return uint32(order.Uint16(v)), kind
	}
	return order.Uint32(v), kind
}
