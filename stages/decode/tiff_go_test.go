package decode

import (
	"bytes"
	"image"
	"testing"

	"golang.org/x/image/tiff"
)

// goTIFF returns the pixels that golang.org/x/image/tiff decodes, or nil where it fails or goes other ways than PIL.
func goTIFF(t testing.TB, b []byte) []byte {
	tags, err := readTIFFTags(b)
	if err != nil {
		return nil
	}
	compression := tags.get(tagCompression, 1)
	switch {
	case tags.get(tagFillOrder, 1) != 1, tags.get(tagPlanar, 1) != 1: // it does not look at them
		return nil
	case compression == tiffGroup3 || compression == tiffGroup4: // white, whatever the photometric interpretation
		return nil
	case compression != tiffLZW && compression != tiffDeflate && compression != tiffAdobeDeflate && tags.get(tagPredictor, 1) != 1:
		return nil
	}
	m, err := tiff.Decode(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	switch m.(type) {
	case *image.RGBA, *image.RGBA64: // multiplied by alpha
		if tags.get(tagExtraSamples, 0) != 0 {
			return nil
		}
	case *image.Paletted: // colours that the palette lacks
		if tags[tagColorMap].count() < 3*256 {
			return nil
		}
	}
	return goPixels(t, m)
}
