package decode

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/klauspost/compress/zlib"
)

// pngMeta are the chunks of a PNG that may say its orientation; of several the last one counts. Slices refer to the file.
type pngMeta struct {
	exif         []byte  // nil: none
	profile, xmp pngText // the EXIF block as ImageMagick writes it; XMP
	animated     bool
}

type pngText struct {
	value      []byte // nil: none
	compressed bool
}

func (m *pngMeta) add(c pngChunk) {
	switch string(c.name) {
	case "eXIf":
		m.exif = c.data
	case "acTL":
		m.animated = true
	case "tEXt", "zTXt", "iTXt":
		key, value, _ := bytes.Cut(c.data, []byte{0})
		text := &m.profile
		switch string(key) {
		case "Raw profile type exif":
		case "XML:com.adobe.xmp":
			text = &m.xmp
		default:
			return
		}
		if t := pngTextOf(c.name[0], value); t.value != nil {
			*text = t
		}
	}
}

// ends tells that chunks from c on, which is behind the pixels, say nothing of the image: those of the next frame
// of an animation.
func (m *pngMeta) ends(c pngChunk) bool {
	return string(c.name) == "IEND" || m.animated && string(c.name) == "fcTL" || !c.named()
}

// pngTextOf makes a text of what is behind the key of a chunk tEXt, zTXt or iTXt.
func pngTextOf(kind byte, b []byte) pngText {
	const method = 0 // zlib, the only one
	switch {
	case kind == 't':
		return pngText{b, false}
	case kind == 'z' && len(b) > 0 && b[0] == method:
		return pngText{b[1:], true}
	case kind == 'i' && len(b) > 2:
		compressed := b[0] != 0
		names := bytes.SplitN(b[2:], []byte{0}, 3) // the language and the translated key go before the text
		if len(names) < 3 || compressed && b[1] != method || !compressed && !utf8.Valid(b) {
			break
		}
		return pngText{names[2], compressed}
	}
	return pngText{}
}

// largestProfile is room for an EXIF block of 64 KiB in lines of hexadecimal digits.
const largestProfile = 160 << 10

// bytes returns the text. Of a compressed one (XMP should not be) no more is inflated than the largest profile has.
func (t pngText) bytes() []byte {
	if !t.compressed {
		return t.value
	}
	r, err := zlib.NewReader(bytes.NewReader(t.value))
	if err != nil {
		return nil
	}
	text := make([]byte, largestProfile)
	n, err := io.ReadFull(r, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // the end may be missing
		return nil
	}
	return text[:n]
}

// orientation returns the EXIF orientation, 1 where there is none: of the chunk eXIf, else of the profile; of XMP where
// neither has any.
func (m *pngMeta) orientation() int {
	exif := m.exif
	if exif == nil {
		exif = m.profile.exif()
	}
	if _, kind := tiffTag(bytes.TrimPrefix(exif, []byte("Exif\x00\x00")), tagOrientation); kind != noTag {
		return orientation(exif)
	}
	return xmpOrientation(m.xmp.bytes())
}

// exif decodes a profile: an empty line, its name, its length and lines of hexadecimal digits.
func (t pngText) exif() []byte {
	lines := bytes.SplitN(t.bytes(), []byte("\n"), 4)
	if len(lines) < 4 {
		return nil
	}
	digits := slices.Clone(lines[3][:min(len(lines[3]), largestProfile)])
	digits = slices.DeleteFunc(digits, func(c byte) bool { return c == '\n' || c == ' ' || c == '\r' || c == '\t' })
	n, err := hex.Decode(digits, digits)
	if err != nil && n < len(digits)/2 {
		return nil
	}
	return digits[:n]
}

// xmpOrientation finds tiff:Orientation as an attribute or as an element.
func xmpOrientation(xmp []byte) int {
	for {
		_, after, ok := bytes.Cut(xmp, []byte("tiff:Orientation"))
		if !ok {
			return 1
		}
		for _, mark := range []string{`="`, ">"} {
			if value, ok := bytes.CutPrefix(after, []byte(mark)); ok && len(value) > 0 && value[0] >= '0' && value[0] <= '9' {
				if v := int(value[0] - '0'); v >= 1 && v <= 8 {
					return v
				}
				return 1
			}
		}
		xmp = after
	}
}
