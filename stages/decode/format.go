package decode

import (
	"bytes"
	"encoding/binary"
)

// Names of the accepted formats, as Image.Format has them.
const (
	JPEG = "JPEG"
	PNG  = "PNG"
	WebP = "WebP"
	GIF  = "GIF"
	BMP  = "BMP"
	TIFF = "TIFF"

	accepted = "JPEG, PNG, WebP, GIF, BMP, TIFF"
)

// planners read the head of a file of each accepted format.
var planners = map[string]func(*Decoder, []byte) (Plan, error){
	JPEG: (*Decoder).planJPEG, PNG: (*Decoder).planPNG, WebP: (*Decoder).planWebP,
	GIF: (*Decoder).planGIF, BMP: (*Decoder).planBMP, TIFF: (*Decoder).planTIFF,
}

// signatures of formats: those accepted, and those only recognised so that the error can name them.
// A '?' stands for any byte.
var signatures = []struct{ name, magic string }{
	{JPEG, "\xff\xd8\xff"},
	{PNG, "\x89PNG\r\n\x1a\n"},
	{WebP, "RIFF????WEBP"},
	{GIF, "GIF87a"},
	{GIF, "GIF89a"},
	{TIFF, "II*\x00"},
	{TIFF, "MM\x00*"},

	{"BigTIFF", "II+\x00"},
	{"BigTIFF", "MM\x00+"},
	{"JPEG XL", "\xff\x0a"},
	{"JPEG XL", "\x00\x00\x00\x0cJXL \r\n\x87\n"},
	{"JPEG 2000", "\x00\x00\x00\x0cjP  \r\n\x87\n"},
	{"JPEG 2000", "\xff\x4f\xff\x51"},
	{"PDF", "%PDF-"},
	{"PostScript", "%!PS"},
	{"Photoshop", "8BPS"},
	{"ICO", "\x00\x00\x01\x00"},
	{"QOI", "qoif"},
	{"OpenEXR", "\x76\x2f\x31\x01"},
	{"Radiance HDR", "#?RADIANCE"},
	{"DDS", "DDS "},
	{"Netpbm", "P1\n"}, {"Netpbm", "P2\n"}, {"Netpbm", "P3\n"},
	{"Netpbm", "P4\n"}, {"Netpbm", "P5\n"}, {"Netpbm", "P6\n"},
	{"AVI video", "RIFF????AVI "},
	{"Matroska or WebM video", "\x1a\x45\xdf\xa3"},
}

// brands of ISO base media files ("....ftyp" and a brand) that are images; others are videos.
var brands = map[string]string{
	"avif": "AVIF", "avis": "AVIF",
	"heic": "HEIC", "heix": "HEIC", "heim": "HEIC", "heis": "HEIC", "hevc": "HEIC", "hevx": "HEIC",
	"mif1": "HEIF", "msf1": "HEIF", "crx ": "Canon raw (CR3)",
}

// Format names the format of a file by its first bytes, of which the error may tell. It returns ErrNotImage when there is none and
// ErrUnsupportedFormat when it is known but not accepted.
func Format(b []byte) (string, error) {
	switch name := detect(b); {
	case planners[name] != nil:
		return name, nil
	case name != "":
		return "", unsupported("%s (accepted: %s)", name, accepted)
	case len(b) == 0:
		return "", detailed(ErrNotImage, "no bytes")
	}
	return "", detailed(ErrNotImage, "starts with % x", b[:min(len(b), 8)])
}

func detect(b []byte) string {
	for _, s := range signatures {
		if matches(b, s.magic) {
			return s.name
		}
	}
	switch {
	case matches(b, "????ftyp????"):
		return detectISO(b)
	case matches(b, "BM") && len(b) >= 18:
		// Two letters are little to go by: the size of the next header, 12 to 124, confirms them.
		if n := binary.LittleEndian.Uint32(b[14:]); n >= 12 && n <= 124 {
			return BMP
		}
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(b[:min(len(b), 1024)], []byte("\xef\xbb\xbf")), " \t\r\n")
	if bytes.HasPrefix(text, []byte("<")) && bytes.Contains(text, []byte("<svg")) {
		return "SVG"
	}
	return ""
}

// detectISO names an ISO base media file by its major brand, or by the first compatible brand that is
// known: an image made by an AVIF writer may well have the general major brand "mif1".
func detectISO(b []byte) string {
	end := min(len(b), int(min(binary.BigEndian.Uint32(b), 256)))
	found := ""
	for i := 8; i+4 <= end; i += 4 {
		name := brands[string(b[i:i+4])]
		if name != "" && (found == "" || found == "HEIF") {
			found = name
		}
	}
	if found == "" {
		return "MP4 or QuickTime video"
	}
	return found
}

// matches tells whether b starts with magic, whose '?' stand for any byte.
func matches(b []byte, magic string) bool {
	if len(b) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && b[i] != magic[i] {
			return false
		}
	}
	return true
}
