package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

// jpegSegments cuts a JPEG into pieces that each begin with a marker, coded data being part of its scan's.
func jpegSegments(b []byte) (pieces [][]byte) {
	at := 0
	for rest := b[2:]; ; {
		marker, after := nextMarker(rest)
		begin := len(b) - len(after) - 2
		rest = after
		if marker >= markRST0 && marker < markSOI || marker == markTEM {
			continue
		}
		if marker == 0 {
			return append(pieces, b[at:])
		}
		pieces = append(pieces, b[at:begin])
		at = begin
		if marker != markEOI {
			rest = rest[binary.BigEndian.Uint16(rest):]
		}
	}
}

// jpegWith puts a segment in front of all others.
func jpegWith(b []byte, segment string) []byte {
	return slices.Insert(bytes.Clone(b), 2, []byte(segment)...)
}

// jpegWithout leaves out the segments of a marker.
func jpegWithout(b []byte, marker byte) []byte {
	var kept []byte
	for _, piece := range jpegSegments(b) {
		if piece[1] != marker {
			kept = append(kept, piece...)
		}
	}
	return kept
}

// jpegSized changes the size that the frame of b says.
func jpegSized(b []byte, w, h uint16) []byte {
	b = bytes.Clone(b)
	for _, piece := range jpegSegments(b) {
		if m := piece[1]; m >= markFirst && m < markRST0 && m != markDHT && m != markDAC {
			binary.BigEndian.PutUint16(piece[5:], h)
			binary.BigEndian.PutUint16(piece[7:], w)
		}
	}
	return b
}

// jpegRepeated repeats the last scan of b n times, each time after filler.
func jpegRepeated(b []byte, n int, filler string) []byte {
	pieces := jpegSegments(b)
	last := pieces[len(pieces)-2]
	var repeated []byte
	for range n {
		repeated = append(append(repeated, filler...), last...)
	}
	pieces[len(pieces)-2] = append(bytes.Clone(last), repeated...)
	return bytes.Join(pieces, nil)
}

// hiding has what libjpeg passes over between scans or within coded data, and a walk might not.
var hiding = map[string]string{
	"nothing":                     "",
	"a segment of length 0":       "\xff\xef\x00\x00",
	"a comment of length 1":       "\xff\xfe\x00\x01",
	"a height of length 0":        "\xff\xdc\x00\x00",
	"junk":                        "abc\x00\x01",
	"stuffed bytes":               "\xff\x00\xff\x00",
	"filling bytes":               "\xff\xff\xff",
	"a marker without parameters": "\xff\x01\xff\xd5",
	"a short segment and junk":    "\xff\xe3\x00\x00\xff\x00abc",
	"a restart interval":          "\xff\xdd\x00\x04\x00\x01",
	"reserved markers in data":    "\xff\x02\xff\xbf\xff\xd0\xff\x10",
	"a reserved marker and a 0":   "\xff\x02\x00\x02",
}

// TestScansAreCounted hides scans from the walk in every way that libjpeg passes over.
func TestScansAreCounted(t *testing.T) {
	for _, file := range []string{"progressive_gray.jpg", "arithmetic_progressive.jpg", "progressive_restarts.jpg"} {
		whole := read(t, "pil", file)
		before, err := scanJPEG(whole)
		if err != nil || before.scans < 2 {
			t.Fatal(file, before.scans, err)
		}
		for name, filler := range hiding {
			info, err := scanJPEG(jpegRepeated(whole, 20, filler))
			if err != nil || info.scans != before.scans+20 {
				t.Errorf("%s: %s: %d scans of %d: %v", file, name, info.scans, before.scans+20, err)
			}
		}
	}
}

// TestManyScans has files of a few kilobytes with more passes than any encoder makes.
func TestManyScans(t *testing.T) {
	for name, d := range decoders(t, exact) {
		for hidden, filler := range hiding {
			b := jpegRepeated(jpegSized(read(t, "pil", "progressive_gray.jpg"), 7000, 7000), 60, filler)
			if _, err := d.Inspect(b); !errors.Is(err, ErrTooManyPixels) || !strings.Contains(err.Error(), "scans") {
				t.Errorf("%s: %s: %v", name, hidden, err)
			}
		}
		// Scripts of common encoders pass at any size, whatever number of components they have.
		for _, file := range []string{"progressive_gray.jpg", "progressive_cmyk.jpg", "progressive_restarts.jpg"} {
			b := jpegSized(read(t, "pil", file), 7000, 7000)
			if _, err := d.Inspect(b); err != nil && (name == "turbo" || !errors.Is(err, ErrUnsupportedFormat)) {
				t.Errorf("%s: %s: %v", name, file, err)
			}
		}
		for _, file := range []string{"arithmetic.jpg", "arithmetic_progressive.jpg"} {
			if _, err := d.Inspect(jpegSized(read(t, "pil", file), 4000, 4000)); !errors.Is(err, ErrUnsupportedFormat) {
				t.Errorf("%s: %s: %v", name, file, err)
			}
		}
	}
}

// TestCountedSamples compares what a scan is said to pass over with a count by hand.
func TestCountedSamples(t *testing.T) {
	for _, c := range []struct {
		file             string
		w, h             uint16
		samples, partial int // partial: bytes of coefficients
	}{
		{"rgb_444.jpg", 16, 8, 3 * 2 * 64, 0},
		{"rgb_420_optimized.jpg", 16, 16, 6 * 64, 0},
		{"rgb_420_optimized.jpg", 17, 1, 2 * 6 * 64, 0},
		{"rgb_420_optimized.jpg", 1, 65500, 4094 * 6 * 64, 0},
		// 4:2:0, 10 scans: 2 of all components, 4 of luma alone, 2 of each other.
		{"progressive_restarts.jpg", 16, 16, (2*6 + 4*4 + 2*2) * 64, 2 * 6 * 64},
		// A scan of one component has only the blocks in which there are pixels.
		{"progressive_restarts.jpg", 8, 8, (2*6 + 4*1 + 2*2) * 64, 2 * 6 * 64},
	} {
		info, err := scanJPEG(jpegSized(read(t, "pil", c.file), c.w, c.h))
		coefficients := 0
		if info.partial {
			coefficients = 2 * info.padded()
		}
		if err != nil || info.samples != c.samples || coefficients != c.partial {
			t.Errorf("%s: %d samples and %d bytes, want %d and %d: %v", c.file, info.samples, coefficients, c.samples, c.partial, err)
		}
	}
}

// TestJPEGTables decodes files without tables after others that have some: standard Huffman tables are implied, as
// cameras' motion JPEG has it, and quantization tables never are.
func TestJPEGTables(t *testing.T) {
	whole := read(t, "pil", "rgb_444.jpg")
	for name, d := range decoders(t, exact) {
		want := outcome(d, whole)
		for _, before := range []string{"rgb_444.jpg", "rgb_420_optimized.jpg", "progressive_gray.jpg", "cmyk.jpg"} {
			outcome(d, read(t, "pil", before))
			if got := outcome(d, jpegWithout(whole, markDHT)); got != want {
				t.Errorf("%s: without Huffman tables, after %s: %s", name, before, got)
			}
			if _, err := d.DecodeBytes(jpegWithout(whole, markDQT)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: without quantization tables, after %s: %v", name, before, err)
			}
			if _, err := d.DecodeBytes(jpegWithout(read(t, "pil", "progressive_gray.jpg"), markDHT)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: progressive without Huffman tables, after %s: %v", name, before, err)
			}
		}
	}
}

// TestWarnings has damage that libjpeg only warns about, one kind after the other, and each before something that ends
// the decoding: that is an error, whatever rows had been written.
func TestWarnings(t *testing.T) {
	d := turboDecoder(t, exact)
	insert := func(file string, marker byte, what string) []byte {
		var b []byte
		for _, piece := range jpegSegments(read(t, "pil", file)) {
			if piece[1] == marker {
				b, what = append(b, what...), ""
			}
			b = append(b, piece...)
		}
		return b
	}
	edit := func(b []byte, marker byte, at int, value byte) []byte {
		b = bytes.Clone(b)
		for _, piece := range jpegSegments(b) {
			if piece[1] == marker {
				piece[at] = value
				return b
			}
		}
		t.Fatalf("no marker %X", marker)
		return nil
	}
	restarts := read(t, "pil", "restarts.jpg")
	first := bytes.Index(restarts, []byte{0xFF, markRST0})
	restarts[first+1] += 5
	for name, warned := range map[string][]byte{
		"bytes before a marker":     insert("rgb_444.jpg", markSOS, "junk"),
		"bytes after the data":      insert("progressive_gray.jpg", markEOI, "much junk, more than is read ahead"),
		"an unknown colour code":    edit(read(t, "pil", "adobe_rgb.jpg"), markAPP14, 15, 77),
		"an unknown JFIF version":   edit(read(t, "pil", "rgb_444.jpg"), markAPP0, 9, 7),
		"scan of a strange sort":    edit(read(t, "pil", "rgb_444.jpg"), markSOS, 12, 5),
		"data that ends early":      append(bytes.Clone(read(t, "pil", "rgb_444.jpg")[:1500]), 0xFF, markEOI),
		"inks that end early":       append(bytes.Clone(read(t, "pil", "cmyk.jpg")[:2000]), 0xFF, markEOI),
		"a wrong restart marker":    restarts,
		"a scan that repeats":       jpegRepeated(read(t, "pil", "progressive_gray.jpg"), 1, "\xff\x00"),
		"another arithmetic coding": edit(read(t, "pil", "arithmetic.jpg"), markSOS, 30, 0x3B),
	} {
		info, err := scanJPEG(warned)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pix := make([]byte, 4*info.width*info.height)
		format := tjRGB
		if len(info.components) == 4 {
			format = tjCMYK
		}
		if err := d.runTurbo(warned, pix, info.width, info.height, format, info); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, fatal := range map[string]string{
			"a bad Huffman table": "\xff\xc4\x00\x05\x00\x01\x02",
			"a bad conditioning":  "\xff\xcc\x00\x04\xff\x00",
			"a table 7":           "\xff\xc4\x00\x14\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00",
		} {
			b := append(append(bytes.Clone(warned[:len(warned)-2]), fatal...), 0xFF, markEOI)
			if _, err := d.DecodeBytes(b); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, then %s: %v", name, what, err)
			}
		}
	}
}

// TestWithoutLibrary has kinds of JPEG that Go's decoder takes for corrupt although they are not.
func TestWithoutLibrary(t *testing.T) {
	for _, file := range []string{"progressive_restarts.jpg", "single_scans_restarts.jpg", "arithmetic.jpg"} {
		_, err := goDecoder.Inspect(read(t, "pil", file))
		if !errors.Is(err, ErrUnsupportedFormat) || !strings.Contains(err.Error(), "libturbojpeg") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestJPEGMarkers has files that are refused by their markers alone.
func TestJPEGMarkers(t *testing.T) {
	whole := read(t, "pil", "rgb_444.jpg")
	for name, d := range decoders(t, exact) {
		checkRefused(t, d, name+"/", []refusal{
			{"two starts", jpegWith(whole, "\xff\xd8"), ErrCorrupt, "two start markers"},
			{"a scan first", jpegWith(whole, "\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"), ErrCorrupt, "before the frame"},
			{"two frames", jpegWith(whole, "\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"), ErrCorrupt, "two frames"},
			{"a reserved marker", jpegWith(whole, "\xff\x02"), ErrCorrupt, "unknown marker 2"},
			{"a JPEG extension", jpegWith(whole, "\xff\xf0\x00\x02"), ErrCorrupt, "unknown marker F0"},
			{"JPEG-LS", jpegWith(whole, "\xff\xf7\x00\x02"), ErrUnsupportedFormat, "JPEG-LS"},
			{"hierarchical", jpegWith(whole, "\xff\xde\x00\x02"), ErrUnsupportedFormat, "hierarchical"},
			{"tables of length 1", jpegWith(whole, "\xff\xdb\x00\x01"), ErrCorrupt, "1 bytes"},
			{"too long a table", jpegWith(whole, "\xff\xdb\x00\x04\x10\x01"), ErrCorrupt, "quantization table"},
			{"two scans", jpegRepeated(whole, 1, ""), ErrCorrupt, "two scans"},
			{"two components", jpegWith(whole, "\xff\xc0\x00\x0e\x08\x00\x08\x00\x08\x02\x01\x11\x00\x02\x11\x00"), ErrUnsupportedFormat, "2 components"},
			{"a bad sampling", jpegWith(whole, "\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x51\x00"), ErrCorrupt, "sampling"},
			{"a height that follows", jpegSized(whole, 8, 0), ErrUnsupportedFormat, "height"},
			{"too long a side", jpegSized(whole, 65501, 1), ErrUnsupportedFormat, "65500"},
			{"a segment that is cut", whole[:10], ErrTruncated, "segment"},
			{"an end that is another file's", append(jpegWith(whole, "\xff\xd9"), whole...), ErrCorrupt, "no image"},
		})
	}
}

// TestOnlyTheFirstImage reads nothing after the end: cameras store several images in a file.
func TestOnlyTheFirstImage(t *testing.T) {
	whole := read(t, "pil", "rgb_444.jpg")
	for _, d := range decoders(t, exact) {
		want := outcome(d, whole)
		if got := outcome(d, append(bytes.Clone(whole), jpegRepeated(read(t, "pil", "progressive_gray.jpg"), 600, "")...)); got != want {
			t.Error(got)
		}
	}
}

// TestJPEGSize has a library that finds another size than the markers said.
func TestJPEGSize(t *testing.T) {
	d := turboDecoder(t, exact)
	b := read(t, "pil", "rgb_444.jpg")
	info, err := scanJPEG(b)
	if err != nil {
		t.Fatal(err)
	}
	info.width++
	if err := d.runTurbo(b, make([]byte, 3*info.width*info.height), info.width, info.height, tjRGB, info); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

// TestWithoutEnd has frames as cameras send them: a sequential image of one scan without its end marker counts when all of
// its data is there, followed by anything or by nothing.
func TestWithoutEnd(t *testing.T) {
	for name, d := range decoders(t, exact) {
		for _, file := range []string{"rgb_420_optimized.jpg", "rgb_444.jpg", "restarts.jpg", "cmyk.jpg", "adobe_rgb.jpg"} {
			whole := read(t, "pil", file)
			want := outcome(d, whole)
			for _, padding := range []string{"", "\xff", "\x00\x00\x00", string(make([]byte, 500)), "\xff\xff\xff"} {
				if got := outcome(d, append(whole[:len(whole)-2:len(whole)-2], padding...)); got != want {
					t.Errorf("%s: %s with % x for its end marker: %s", name, file, padding, got)
				}
			}
			for cut := 3; cut < len(whole)-700; cut += 1 + cut/5 {
				if _, err := d.DecodeBytes(whole[: len(whole)-cut : len(whole)-cut]); !errors.Is(err, ErrTruncated) {
					t.Errorf("%s: %s without its last %d bytes: %v", name, file, cut, err)
				}
			}
		}
		// Of these, any beginning is an image.
		for _, file := range []string{"progressive_gray.jpg", "single_scans_restarts.jpg", "arithmetic.jpg"} {
			whole := read(t, "pil", file)
			if _, err := d.DecodeBytes(whole[: len(whole)-2 : len(whole)-2]); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: %s without its end marker: %v", name, file, err)
			}
		}
	}
}
