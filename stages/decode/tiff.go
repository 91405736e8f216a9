package decode

import (
	"bytes"
	"fmt"
	"image"
	"image/color"

	"golang.org/x/image/tiff"
)

// maxBlocks bounds the strips or tiles of a TIFF: each costs a fresh decompressor.
const maxBlocks = 1 << 16

func (d *Decoder) planTIFF(b []byte) (Plan, error) {
	config, err := tiff.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return Plan{}, classify(TIFF, err)
	}
	if err := d.checkSize(config.Width, config.Height); err != nil {
		return Plan{}, err
	}
	blocks := tiffBlocks(b, config)
	if blocks > maxBlocks {
		return Plan{}, unsupportedKind(fmt.Sprintf("TIFF of %d strips or tiles, at most %d", blocks, maxBlocks))
	}
	own := tiffMemory(b, config, blocks)
	return newPlan(config.Width, config.Height, own, len(b)+2*own, orientation(b), func(t *task) (Picture, error) {
		m, err := tiff.Decode(t.reader(b))
		if err != nil {
			return Picture{}, t.classify(TIFF, err)
		}
		p, err := t.fromImage(m)
		if err != nil {
			return p, err
		}
		if inverted(b) {
			for i := range p.Pix {
				p.Pix[i] ^= 0xFF
			}
		}
		return p, nil
	}), nil
}

// inverted tells that b is fax-compressed with black as zero. The runs that the compression calls white are
// zeros, so they are black then, as libtiff and PIL have it; the Go decoder shows them white always.
func inverted(b []byte) bool {
	const group3, group4, blackIsZero = 3, 4, 1
	compression, _ := tiffTag(b, tagCompression)
	photometric, _ := tiffTag(b, tagPhotometric)
	return (compression == group3 || compression == group4) && photometric == blackIsZero
}

// tiffMemory returns how many bytes the decoder takes: its picture and a block. A compressed block may inflate
// to 8 bytes a pixel, in a buffer that doubles as it grows and leaves as much garbage behind.
func tiffMemory(b []byte, config image.Config, blocks int) int {
	size := 1
	switch config.ColorModel {
	case color.RGBAModel, color.NRGBAModel:
		size = 4
	case color.RGBA64Model, color.NRGBA64Model:
		size = 8
	case color.Gray16Model:
		size = 2
	}
	pixels := config.Width * config.Height
	block := 4 * 8 * (pixels / blocks)
	if compression, _ := tiffTag(b, tagCompression); compression <= 1 {
		block = 3 * min(8*(pixels/blocks), len(b)) // read into a buffer that grows as well
	}
	return size*pixels + block
}

// tiffBlocks returns the number of strips or tiles.
func tiffBlocks(b []byte, config image.Config) int {
	blocks := func(size int, tag uint16) int {
		if v, _ := tiffTag(b, tag); v > 0 {
			return (size + int(v) - 1) / int(v)
		}
		return 1
	}
	if v, _ := tiffTag(b, tagTileWidth); v > 0 {
		return blocks(config.Width, tagTileWidth) * blocks(config.Height, tagTileLength)
	}
	return blocks(config.Height, tagRowsPerStrip)
}
