package decode

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Markers of JPEG (ITU T.81, table B.1).
const (
	markTEM       = 0x01
	markFirst     = 0xC0 // those below, but TEM, are reserved
	markSOF2      = 0xC2
	markDHT       = 0xC4
	markSOF9      = 0xC9
	markSOF10     = 0xCA
	markDAC       = 0xCC
	markRST0      = 0xD0
	markSOI       = 0xD8
	markEOI       = 0xD9
	markSOS       = 0xDA
	markDQT       = 0xDB
	markDNL       = 0xDC
	markDRI       = 0xDD
	markDHP       = 0xDE
	markEXP       = 0xDF
	markAPP0      = 0xE0
	markAPP1      = 0xE1
	markAPP14     = 0xEE
	markAPP15     = 0xEF
	markJPEGLS    = 0xF7
	markCOM       = 0xFE
	blockSamples  = 64 // of a block of 8 x 8
	maxMCUBlocks  = 10
	quantTables   = 4
	jpegMaxLength = 65500 // the longest side that libjpeg decodes
)

// jpegInfo is what the markers of a JPEG file tell without decoding it.
type jpegInfo struct {
	exif          []byte // the first EXIF block before the first scan, nil without one
	process       byte   // the SOF marker
	width, height int
	components    []jpegComponent // 1, 3 or 4
	maxH, maxV    int             // the largest sampling factors
	quant         [quantTables]bool
	adobeRGB      bool // Adobe's segment says that the colours are not transformed
	interval      int  // blocks or groups of them between restart markers; 0: there are none
	scans         int
	samples       int  // that all scans pass over, those of whole blocks
	partial       bool // scans build upon others, so that all coefficients are kept
	longRestarts  bool // restart markers in a scan of one component that has several blocks a group
	endless       bool // sequential with a single scan, without the end marker: whether all of it is there the decoder shows
}

type jpegComponent struct {
	id    byte
	h, v  int // sampling factors, 1 to 4
	quant byte
}

// scanJPEG walks the markers of b, which begins with SOI, as libjpeg does (jdmarker.c), so that it meets every scan that
// libjpeg will read, and refuses what libjpeg refuses by the markers alone. Where coded data is damaged, libjpeg may take
// its rest for bytes between markers; it then meets the same markers, or gives up at one that has no meaning there.
func scanJPEG(b []byte) (info jpegInfo, err error) {
	b = b[2:]
	for inData := false; ; {
		var marker byte
		if marker, b = nextMarker(b); marker == 0 {
			// Of arithmetic coding any beginning is an image.
			if info.endless = info.scans == 1 && !info.partial && !info.arithmetic(); info.endless {
				return info, nil
			}
			return info, truncated("JPEG: without its end marker")
		}
		switch {
		case marker == markTEM, marker >= markRST0 && marker < markSOI, inData && marker < markFirst:
			continue // nothing follows them
		case marker == markEOI && info.scans == 0:
			return info, corrupt("JPEG: no image in it")
		case marker == markEOI:
			return info, nil
		case marker == markSOI:
			return info, corrupt("JPEG: two start markers")
		}
		skipped := marker >= markAPP0 && marker <= markAPP15 || marker == markCOM || marker == markDNL
		if err := checkMarker(marker); err != nil && !skipped {
			return info, err
		}
		if len(b) < 2 {
			return info, truncated("JPEG: ends within a segment")
		}
		n := int(binary.BigEndian.Uint16(b))
		switch {
		case n < 2 && skipped:
			n = 2
		case n < 2:
			return info, corrupt("JPEG: a segment %X of %d bytes", marker, n)
		case n > len(b):
			return info, truncated("JPEG: ends within a segment")
		}
		segment := b[2:n]
		b = b[n:]
		inData = marker == markSOS
		if err := info.segment(marker, segment); err != nil {
			return info, err
		}
	}
}

// nextMarker returns the first marker of b and what follows it, 0 where there is none. Other bytes are passed over, the
// pair FF 00 and any number of FF before the marker as well.
func nextMarker(b []byte) (marker byte, rest []byte) {
	for {
		i := bytes.IndexByte(b, 0xFF)
		if i < 0 {
			return 0, nil
		}
		b = b[i+1:]
		for len(b) > 0 && b[0] == 0xFF {
			b = b[1:]
		}
		if len(b) == 0 {
			return 0, nil
		}
		if marker, b = b[0], b[1:]; marker != 0 {
			return marker, b
		}
	}
}

// checkMarker refuses markers of segments that no decoder here knows.
func checkMarker(marker byte) error {
	switch {
	case marker == markDHT, marker == markDAC, marker == markSOS, marker == markDQT, marker == markDRI,
		marker >= markFirst && marker <= markSOF2, marker == markSOF9, marker == markSOF10:
		return nil
	case marker > markSOF2 && marker < markRST0 && marker != 0xC8:
		return unsupported("lossless or hierarchical JPEG (SOF%d)", marker-markFirst)
	case marker == markDHP, marker == markEXP:
		return unsupported("hierarchical JPEG")
	case marker == markJPEGLS:
		return unsupported("JPEG-LS")
	}
	return corrupt("JPEG: an unknown marker %X", marker)
}

func (info *jpegInfo) segment(marker byte, segment []byte) error {
	switch marker {
	case markDHT, markDAC: // the library looks into them
	case markSOS:
		return info.scan(segment)
	case markDQT:
		return info.quantization(segment)
	case markDRI:
		if len(segment) != 2 {
			return corrupt("JPEG: a restart interval of %d bytes", len(segment))
		}
		info.interval = int(binary.BigEndian.Uint16(segment))
	case markAPP1:
		if info.exif == nil && info.scans == 0 && bytes.HasPrefix(segment, []byte("Exif\x00")) {
			info.exif = segment
		}
	case markAPP14:
		if len(segment) >= 12 && string(segment[:5]) == "Adobe" {
			info.adobeRGB = segment[11] == 0
		}
	default:
		if marker < markRST0 {
			return info.frame(marker, segment)
		}
	}
	return nil
}

func (info *jpegInfo) frame(marker byte, segment []byte) error {
	switch {
	case info.process != 0:
		return corrupt("JPEG: two frames")
	case len(segment) < 6 || len(segment) != 6+3*int(segment[5]):
		return corrupt("JPEG: a frame of %d bytes", len(segment))
	case segment[0] != 8:
		return unsupported("JPEG of %d bits a sample", segment[0])
	}
	info.process = marker
	info.height, info.width = int(binary.BigEndian.Uint16(segment[1:])), int(binary.BigEndian.Uint16(segment[3:]))
	switch n := segment[5]; {
	case info.width == 0:
		return corrupt("JPEG: %d x %d pixels", info.width, info.height)
	case info.height == 0:
		return unsupported("JPEG whose height comes after its first scan")
	case max(info.width, info.height) > jpegMaxLength:
		return unsupported("JPEG of %d x %d: a side is longer than %d", info.width, info.height, jpegMaxLength)
	case n != 1 && n != 3 && n != 4:
		return unsupported("JPEG of %d components", n)
	}
	for c := range slices.Chunk(segment[6:], 3) {
		h, v := int(c[1]>>4), int(c[1]&0xF)
		if h < 1 || h > 4 || v < 1 || v > 4 {
			return corrupt("JPEG: sampling factors %d x %d", h, v)
		}
		info.components = append(info.components, jpegComponent{id: c[0], h: h, v: v, quant: c[2]})
		info.maxH, info.maxV = max(info.maxH, h), max(info.maxV, v)
	}
	return nil
}

func (info *jpegInfo) quantization(segment []byte) error {
	for len(segment) > 0 {
		n := 1 + blockSamples
		if segment[0]>>4 != 0 {
			n += blockSamples // of two bytes each
		}
		table := int(segment[0] & 0xF)
		if table >= quantTables || n > len(segment) {
			return corrupt("JPEG: a bad quantization table")
		}
		info.quant[table] = true
		segment = segment[n:]
	}
	return nil
}

// scan reads a SOS segment and counts what decoding its scan passes over.
func (info *jpegInfo) scan(segment []byte) error {
	if info.process == 0 {
		return corrupt("JPEG: a scan before the frame")
	}
	if len(segment) < 1 || segment[0] < 1 || segment[0] > 4 || len(segment) != 4+2*int(segment[0]) {
		return corrupt("JPEG: a scan header of %d bytes", len(segment))
	}
	n := int(segment[0])
	if info.scans == 0 {
		info.partial = n < len(info.components) || info.progressive()
	} else if !info.partial {
		return corrupt("JPEG: two scans of a sequential image")
	}
	info.scans++
	var taken [4]bool // libjpeg's way of telling apart components of the same number
	var c jpegComponent
	blocks := 0 // of all components in a group
	for i := range n {
		at := 0
		for at < len(info.components) && (taken[at] || info.components[at].id != segment[1+2*i]) {
			at++
		}
		if at == len(info.components) {
			return corrupt("JPEG: a scan of a component that is not there")
		}
		taken[at] = true
		c = info.components[at]
		if c.quant >= quantTables || !info.quant[c.quant] {
			return corrupt("JPEG: no quantization table")
		}
		blocks += c.h * c.v
	}
	if n == 1 {
		w, h := info.blocks(c)
		info.samples += blockSamples * w * h
		info.longRestarts = info.longRestarts || info.interval > 0 && info.interval < w*h && blocks > 1 && len(info.components) > 1
		return nil
	}
	if blocks > maxMCUBlocks {
		return corrupt("JPEG: %d blocks in a group", blocks)
	}
	w, h := info.groups()
	info.samples += blockSamples * blocks * w * h
	return nil
}

// progressive tells whether each scan brings some bits of the coefficients.
func (info *jpegInfo) progressive() bool {
	return info.process == markSOF2 || info.process == markSOF10
}

func (info *jpegInfo) arithmetic() bool { return info.process >= markSOF9 }

// groups returns how many groups of blocks, of all components, are in a row and in a column.
func (info *jpegInfo) groups() (w, h int) {
	return roundUp(info.width, 8*info.maxH), roundUp(info.height, 8*info.maxV)
}

// blocks returns how many blocks of component c are in a row and in a column.
func (info *jpegInfo) blocks(c jpegComponent) (w, h int) {
	return roundUp(info.width*c.h, 8*info.maxH), roundUp(info.height*c.v, 8*info.maxV)
}

// padded returns the samples of all components in whole groups of blocks.
func (info *jpegInfo) padded() int {
	w, h := info.groups()
	n := 0
	for _, c := range info.components {
		n += c.h * c.v
	}
	return blockSamples * n * w * h
}

// roundUp returns a/b, rounded up.
func roundUp(a, b int) int { return (a + b - 1) / b }
