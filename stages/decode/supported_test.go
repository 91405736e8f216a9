package decode

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// kinds are those of one format, each by its name in configs/docs/images.md, with a sample.
type kinds []struct {
	name   string
	sample []byte
}

func (k kinds) String() string {
	var names []string
	for _, kind := range k {
		names = append(names, kind.name)
	}
	return strings.Join(names, ", ")
}

// formatKinds is what is read of a format, and what is refused as unsupported (415). A star marks what only libturbojpeg reads.
type formatKinds struct {
	format        string
	read, refused kinds
}

func supported(t *testing.T) []formatKinds {
	pil := func(name string) []byte { return read(t, "pil", name) }
	tif := func(over madeTags) []byte {
		return makeTIFF(8, 8, [][]byte{make([]byte, 400), make([]byte, 400), make([]byte, 400)}, over)
	}
	jpg := pil("rgb_444.jpg")
	sof := bytes.Index(jpg, []byte{0xFF, 0xC0})
	ftyp := func(brand string) []byte { return []byte("\x00\x00\x00\x14ftyp" + brand + "\x00\x00\x00\x00" + brand) }
	colors := make([]byte, 4*256)
	return []formatKinds{
		{"JPEG", kinds{
			{"baseline", jpg},
			{"progressive", read(t, "pixels", "hd_progressive.jpg")},
			{"arithmetic coding*", pil("arithmetic.jpg")},
			{"gray", read(t, "pixels", "gray.jpg")},
			{"RGB", pil("keep_rgb.jpg")},
			{"CMYK and YCCK", pil("progressive_cmyk.jpg")},
			{"4:4:4, 4:2:2, 4:2:0", pil("rgb_422.jpg")},
			{"other subsampling*", pil("sampling_1x2_2x1.jpg")},
			{"restart markers", pil("restarts.jpg")},
			{"frames of MJPEG (without Huffman tables or end marker)", jpegWithout(jpg[:len(jpg)-2], markDHT)},
			{"EXIF orientation", read(t, "pixels", "exif_6.jpg")},
		}, kinds{
			{"lossless", patched(jpg, sof+1, 0xC3)},
			{"hierarchical", jpegWith(jpg, "\xff\xde\x00\x02")},
			{"JPEG-LS", jpegWith(jpg, "\xff\xf7\x00\x02")},
			{"12 bits", patched(jpg, sof+4, 12)},
			{"2 components", jpegWith(jpg, "\xff\xc0\x00\x0e\x08\x00\x08\x00\x08\x02\x01\x11\x00\x02\x11\x00")},
			{"height after the first scan", jpegSized(jpg, 8, 0)},
			{"a side over 65500", jpegSized(jpg, 65501, 1)},
		}},
		{"PNG", kinds{
			{"1 to 16 bits", pil("gray16.png")},
			{"gray", pil("gray4.png")},
			{"RGB", pil("rgb16.png")},
			{"palette", pil("palette2.png")},
			{"alpha", pil("rgba.png")},
			{"interlaced", pil("interlaced.png")},
			{"APNG (its main image)", pil("png_apng_xmp_mid.png")},
			{"orientation in eXIf, XMP or a raw profile", pil("exif6.png")},
		}, kinds{
			{"Apple's CgBI", pngOf("CgBI\x50\x00\x20\x02", smallIHDR, smallRows)},
		}},
		{"WebP", kinds{
			{"lossy", pil("lossy.webp")},
			{"lossless", pil("webp_ll_pal16_64x48.webp")},
			{"alpha", pil("lossy_alpha.webp")},
			{"animations", pil("webp_ll_animE.webp")},
			{"EXIF orientation", pil("exif8.webp")},
		}, kinds{
			{"lossless with more codes than pixels", greedyVP8L()},
		}},
		{"GIF", kinds{
			{"87a and 89a", pil("palette.gif")},
			{"interlaced", pil("interlaced.gif")},
			{"local palettes", pil("local_palette.gif")},
			{"transparency", pil("transparent.gif")},
			{"frames smaller or larger than the screen", pil("frame_beyond_screen.gif")},
		}, nil},
		{"BMP", kinds{
			{"1, 4, 8, 16, 24 and 32 bits", pil("bits16.bmp")},
			{"Windows 2 to V5 and OS/2 headers", pil("os2_8_gap.bmp")},
			{"run lengths", pil("runs4.bmp")},
			{"masks of whole bytes, 5-6-5 and 5-5-5", pil("bits16_565.bmp")},
			{"top down", pil("top_down.bmp")},
		}, kinds{
			{"other masks", bmpOf(40, 1, 1, 16, 3, bmpMasks(0xF00, 0xF0, 0xF), colors)},
			{"run lengths that leave pixels out", bmpOf(40, 4, 2, 8, 1, colors, []byte{0, 2, 1, 1, 0, 1})},
			{"JPEG or PNG inside", bmpOf(40, 1, 1, 0, 5, colors)},
			{"other depths", bmpOf(40, 1, 1, 64, 0, colors)},
			{"headers of other lengths", bmpOf(16, 1, 1, 24, 0, colors)},
		}},
		{"TIFF", kinds{
			{"integers of 1, 2, 4, 8 and 16 bits", read(t, "tiff", "gray16_predictor.tif")},
			{"gray", read(t, "tiff", "gray2_white.tif")},
			{"palette", read(t, "tiff", "palette4_fill2.tif")},
			{"RGB", read(t, "tiff", "rgbx.tif")},
			{"CMYK", read(t, "tiff", "cmyk.tif")},
			{"alpha", read(t, "tiff", "rgba16_associated_lzw.tif")},
			{"strips, tiles, planes", read(t, "tiff", "rgb_planar_large_tile.tif")},
			{"LZW, deflate, PackBits", read(t, "tiff", "rgb_tiles_packbits.tif")},
			{"fax group 3 (one dimension) and 4", read(t, "tiff", "fax3_strips.tif")},
			{"predictor 2", read(t, "tiff", "gray16_predictor.tif")},
			{"fill order 2", read(t, "tiff", "rgb_fill2_lzw.tif")},
			{"orientation", read(t, "tiff", "sshort_orientation6.tif")},
		}, kinds{
			{"signed and floating-point numbers", tif(madeTags{tagBits: {32}, tagSampleFormat: {3}})},
			{"other depths", tif(madeTags{tagBits: {12}})},
			{"YCbCr", tif(madeTags{tagPhotometric: {6}})},
			{"Lab", tif(madeTags{tagPhotometric: {8}})},
			{"JPEG inside", tif(madeTags{tagCompression: {7}})},
			{"other compressions", tif(madeTags{tagCompression: {50000}})},
			{"old-style LZW", makeTIFF(8, 8, [][]byte{{0, 1, 2, 3}}, madeTags{tagCompression: {tiffLZW}})},
			{"fax in two dimensions or with fill bits", tif(madeTags{tagCompression: {3}, tagBits: {1}, tagT4Options: {1}})},
			{"planes of CMYK or with associated alpha", tif(madeTags{tagPlanar: {2}, tagPhotometric: {2}, tagSamples: {4}, tagExtraSamples: {1}})},
			{"compressed strips that share bytes", makeTIFF(8, 8, [][]byte{lzwed(make([]byte, 32), 0)}, madeTags{tagCompression: {tiffLZW},
				tagRowsPerStrip: {1}, tagStripOffsets: {8, 8, 8, 8, 8, 8, 8, 8}, tagStripByteCounts: {40, 40, 40, 40, 40, 40, 40, 40}})},
			{fmt.Sprintf("over %d strips or tiles", maxBlocks), tiffHeader(1, maxBlocks+1)},
			{"BigTIFF", []byte("II+\x00\x08\x00\x00\x00")},
		}},
		{"others", nil, kinds{
			{"AVIF", ftyp("avif")},
			{"HEIC", ftyp("heic")},
			{"JPEG XL", []byte("\xff\x0a\x00\x00")},
			{"JPEG 2000", []byte("\xff\x4f\xff\x51")},
			{"SVG", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>")},
			{"PDF", []byte("%PDF-1.7\n")},
			{"ICO", []byte("\x00\x00\x01\x00\x01\x00")},
			{"Photoshop", []byte("8BPS\x00\x01")},
			{"Netpbm", []byte("P6\n1 1\n255\n")},
			{"video", ftyp("isom")},
		}},
	}
}

// TestSupported decodes a sample of each kind, and demands that the table in configs/docs/images.md names these kinds and no others.
// That what is read has PIL's pixels, other tests show.
func TestSupported(t *testing.T) {
	table := "| format | read | refused (415) |\n|---|---|---|\n"
	formats := supported(t)
	for _, f := range formats {
		table += fmt.Sprintf("| %s | %v | %v |\n", f.format, f.read, f.refused)
		for name, d := range decoders(t, exact) {
			for _, kind := range f.read {
				_, err := d.DecodeBytes(kind.sample)
				if starred := strings.HasSuffix(kind.name, "*"); name == "go" && starred {
					if !errors.Is(err, ErrUnsupportedFormat) || !strings.Contains(err.Error(), "libturbojpeg") {
						t.Errorf("%s, %s without libturbojpeg: %v", f.format, kind.name, err)
					}
				} else if err != nil {
					t.Errorf("%s, %s: %v", f.format, kind.name, err)
				}
			}
			for _, kind := range f.refused {
				if _, err := d.DecodeBytes(kind.sample); !errors.Is(err, ErrUnsupportedFormat) {
					t.Errorf("%s, %s: %v", f.format, kind.name, err)
				}
			}
		}
	}
	readme, err := os.ReadFile("../../configs/docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "\n"+table+"\n") {
		t.Errorf("the table of images should be:\n%s", table)
	}
}
