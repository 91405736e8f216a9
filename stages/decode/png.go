package decode

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/zlib"
)

const pngSignature = 8 // bytes

// Colour types of PNG.
const (
	pngGray      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGrayAlpha = 4
	pngRGBA      = 6
)

// pngDepths are the bits a sample that each colour type may have.
var pngDepths = map[byte]string{
	pngGray: "\x01\x02\x04\x08\x10", pngRGB: "\x08\x10", pngPalette: "\x01\x02\x04\x08", pngGrayAlpha: "\x08\x10", pngRGBA: "\x08\x10",
}

// pngFile is what the chunks of a PNG say. Slices refer to the file.
type pngFile struct {
	width, height int
	depth, color  byte // bits a sample; one of the colour types
	interlaced    bool
	palette       []byte // RGB, as many entries as there are
	pixels        []byte // the file from the first IDAT chunk on
	compressed    int    // bytes in the IDAT chunks
	meta          pngMeta
}

// planPNG reads a PNG as PIL does: what surrounds the pixels must be sound up to them; after them anything goes, and
// nothing may be missing but pixels. The checksums of chunks of pixels are not looked at.
func (d *Decoder) planPNG(b []byte) (Plan, error) {
	f, err := readPNGHeader(b)
	if err != nil {
		return Plan{}, err
	}
	if err := d.checkSize(f.width, f.height); err != nil {
		return Plan{}, err
	}
	if err := f.chunks(b); err != nil {
		return Plan{}, err
	}
	raw, rows := 0, 0
	for _, p := range f.passes() {
		if p.w > 0 {
			raw, rows = raw+p.h*(1+f.rowBytes(p.w)), rows+p.h
		}
	}
	const mostInflated = 1032 // bytes out of one: 258 for a length and a distance of one bit each
	if f.compressed < raw/mostInflated {
		return Plan{}, truncated("PNG: %d bytes of compressed pixels for %d x %d", f.compressed, f.width, f.height)
	}
	const rowTime = 24        // see coded
	const inflater = 96 << 10 // its window, its tables and the buffer it reads from
	// The file is read twice: its checksums, its pixels. What is inflated is written, and read with the row above it.
	plan := newPlan(f.width, f.height, f.rowsMemory()+inflater, 2*len(b)+3*raw, f.meta.orientation(), f.decode)
	return plan.coded(f.compressed, inflateTime).coded(rows, rowTime), nil
}

func readPNGHeader(b []byte) (f pngFile, err error) {
	c, _, ok := nextPNGChunk(b[pngSignature:])
	switch {
	case ok && string(c.name) == "CgBI":
		return f, unsupported("PNG as Apple's Xcode rewrites it (CgBI), which is no PNG any more; " +
			"revert it with \"xcrun pngcrush -revert-iphone-optimizations\"")
	case ok && string(c.name) != "IHDR":
		return f, corrupt("PNG: it begins with the chunk %q instead of IHDR", c.name)
	case !c.whole:
		return f, truncated("PNG: ends within the header")
	case len(c.data) != 13:
		return f, corrupt("PNG: an IHDR chunk of %d bytes instead of 13", len(c.data))
	case !c.intact():
		return f, corrupt("PNG: wrong checksum of the chunk IHDR")
	}
	f.width, f.height = int(binary.BigEndian.Uint32(c.data)), int(binary.BigEndian.Uint32(c.data[4:]))
	f.depth, f.color, f.interlaced = c.data[8], c.data[9], c.data[12] == 1
	switch compression, filter, interlace := c.data[10], c.data[11], c.data[12]; {
	case strings.IndexByte(pngDepths[f.color], f.depth) < 0:
		return f, corrupt("PNG: there is no colour type %d of %d bits", f.color, f.depth)
	case compression != 0:
		return f, corrupt("PNG: there is no compression method %d", compression)
	case filter != 0:
		return f, corrupt("PNG: there is no filter method %d", filter)
	case interlace > 1:
		return f, corrupt("PNG: there is no interlace method %d", interlace)
	}
	return f, nil
}

// chunks goes through the chunks behind the header: all must be whole and have the right checksum up to the pixels;
// behind them what is broken ends the file.
func (f *pngFile) chunks(b []byte) error {
	_, rest, _ := nextPNGChunk(b[pngSignature:])
	for f.pixels == nil {
		c, after, ok := nextPNGChunk(rest)
		switch {
		case !ok:
			return truncated("PNG: ends before its pixels")
		case !c.named():
			return corrupt("PNG: a chunk named %q", c.name)
		case string(c.name) == "IDAT":
			f.pixels = rest
			continue
		case !c.whole:
			return truncated("PNG: ends within the chunk %s, before its pixels", c.name)
		case !c.intact():
			return corrupt("PNG: wrong checksum of the chunk %s", c.name)
		}
		switch string(c.name) {
		case "IHDR", "IEND":
			return corrupt("PNG: a chunk %s between the header and the pixels", c.name)
		case "PLTE":
			if f.color == pngPalette && len(c.data) > 3*256 {
				return corrupt("PNG: a palette of %d bytes", len(c.data))
			}
			f.palette = c.data
		default:
			f.meta.add(c)
		}
		rest = after
	}
	settled := f.meta.exif != nil // PIL reads no further then
	for pixels := true; ; {
		c, after, ok := nextPNGChunk(rest)
		pixels = pixels && string(c.name) == "IDAT"
		if pixels {
			f.compressed += len(c.data)
		} else if !ok || !c.whole || settled || f.meta.ends(c) {
			return nil
		} else {
			f.meta.add(c)
		}
		rest = after
	}
}

// pngChunk is a chunk as far as it is in the file; whole tells that nothing of it is missing.
type pngChunk struct {
	name, data, sum []byte
	whole           bool
}

// nextPNGChunk returns the first chunk in b and what follows it. There is none where b ends within its name.
func nextPNGChunk(b []byte) (c pngChunk, rest []byte, ok bool) {
	if len(b) < 8 {
		return c, nil, false
	}
	n := uint64(binary.BigEndian.Uint32(b))
	c.name, rest = b[4:8], b[8:]
	c.whole = n+4 <= uint64(len(rest))
	n = min(n, uint64(len(rest)))
	c.data, rest = rest[:n:n], rest[n:]
	n = min(4, uint64(len(rest)))
	c.sum, rest = rest[:n], rest[n:]
	return c, rest, true
}

// intact tells that the checksum of a whole chunk is right.
func (c pngChunk) intact() bool {
	return crc32.Update(crc32.ChecksumIEEE(c.name), crc32.IEEETable, c.data) == binary.BigEndian.Uint32(c.sum)
}

func (c pngChunk) named() bool {
	for _, l := range c.name {
		if l|0x20 < 'a' || l|0x20 > 'z' {
			return false
		}
	}
	return true
}

// idatReader reads what consecutive IDAT chunks hold.
type idatReader struct {
	task       *task
	data, rest []byte
}

func (r *idatReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		c, rest, ok := nextPNGChunk(r.rest)
		if !ok || string(c.name) != "IDAT" {
			return 0, io.EOF
		}
		r.data, r.rest = c.data, rest
		const frame = 12 // bytes of a chunk beside its data
		if err := r.task.spend(frame); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, r.task.spend(n)
}

// checkSum tells when all rows have been read and the checksum that follows them is another. It may be missing, and so may
// be the end of the stream: there may be surplus rows.
func checkSum(r io.Reader) error {
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, zlib.ErrChecksum) {
		return err
	}
	return nil
}
