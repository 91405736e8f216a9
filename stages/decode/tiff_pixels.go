package decode

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// tiffPixel says how the samples of a pixel are stored and what they mean.
type tiffPixel struct {
	bits    int        // of a sample: 1, 2, 4, 8 or 16
	samples int        // that follow each other in a strip or tile
	planes  int        // sets of strips or tiles: one a sample where each has its own, else 1
	high    int        // the place of the high byte in a sample
	colours int        // that make a pixel: 1, 3 or 4 (CMYK); samples beyond them are skipped
	divided bool       // RGB was multiplied by the alpha that follows
	table   colorTable // of one colour: what its values look like
}

// Values of PhotometricInterpretation that are read.
const (
	tiffWhiteIsZero = 0
	tiffBlackIsZero = 1
	tiffRGB         = 2
	tiffPalette     = 3
	tiffInks        = 5
)

// tiffPhotometrics names those that are not.
var tiffPhotometrics = map[int]string{4: "mask", 6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "colour filter array",
	32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}

// pixel finds out what the samples are. It accepts what PIL does of integers of 1, 2, 4, 8 and 16 bits, without YCbCr
// and Lab, and with the exceptions named in the errors, where PIL shows another image than the file means.
func (tags tiffTags) pixel() (p tiffPixel, err error) {
	const mostSamples = 6
	photometric, planar := tags.get(tagPhotometric, tiffWhiteIsZero), tags.get(tagPlanar, 1)
	p = tiffPixel{bits: tags.get(tagBits, 1), samples: tags.get(tagSamples, 1), planes: 1, colours: 1}
	if name := tiffPhotometrics[photometric]; name != "" {
		return p, unsupportedTIFF("%s", name)
	}
	extra := tags[tagExtraSamples].count()
	what := fmt.Sprintf("photometric interpretation %d, %d samples of %d bits, %d extra", photometric, p.samples, p.bits, extra)
	if p.samples < 1 || p.samples > mostSamples || planar != 1 && planar != 2 {
		return p, unsupportedTIFF("%s, planar configuration %d", what, planar)
	}
	for i := range p.samples {
		if bits := tags[tagBits]; bits.count() > 1 && bits.at(i) != p.bits {
			return p, unsupportedTIFF("samples of different lengths")
		}
		if format := tags[tagSampleFormat]; format.count() > i && format.at(i) != 1 {
			return p, unsupportedTIFF("signed or floating-point samples")
		}
	}
	if !slices.Contains([]int{1, 2, 4, 8, 16}, p.bits) || !p.setColours(photometric, extra, tags) {
		return p, unsupportedTIFF("%s", what)
	}
	if p.bits == 16 && tags[tagWidth].order == binary.LittleEndian {
		p.high = 1
	}
	if planar == 2 {
		return p, p.separate(photometric, extra, tags)
	}
	return p, nil
}

// setColours sets what depends on the photometric interpretation. It tells whether the samples are right for it.
func (p *tiffPixel) setColours(photometric, extra int, tags tiffTags) bool {
	const associated, unassociated = 1, 2
	alpha := tags[tagExtraSamples].at(0)
	switch photometric {
	case tiffRGB:
		p.colours, p.divided = 3, alpha == associated
		most := map[int]int{8: 6, 16: 4}[p.bits]
		return p.samples >= 3 && p.samples <= most && (p.samples == 3+extra || p.samples == 4 && extra == 0)
	case tiffInks:
		p.colours = 4
		return p.bits == 8 && p.samples == 4+extra
	case tiffPalette:
		colours := tags[tagColorMap]
		n := colours.count() / 3
		p.table = *grayTable(8) // of what the palette lacks
		for i := range min(n, len(p.table)) {
			for c := range 3 {
				p.table[i][c] = byte(colours.at(c*n+i) >> 8)
			}
		}
		if n == 0 || colours.size != 2 || colours.count()%3 != 0 || p.bits == 16 {
			return false
		}
	case tiffWhiteIsZero, tiffBlackIsZero:
		p.table = *grayTable(min(p.bits, 8))
		if photometric == tiffWhiteIsZero {
			for i, c := range p.table {
				p.table[i] = [3]byte{255 - c[0], 255 - c[1], 255 - c[2]}
			}
		}
		if p.bits == 16 && photometric == tiffWhiteIsZero { // PIL does not invert them
			return false
		}
	default:
		return false
	}
	return p.samples == 1 && extra == 0 || p.samples == 2 && p.bits == 8 && extra == 1 && alpha == unassociated
}

// separate is for samples that have strips or tiles of their own. Where these are not compressed, PIL takes them for bytes
// that mean light or an index, whatever they are; of compressed ones it takes a fourth without a meaning for associated alpha.
func (p *tiffPixel) separate(photometric, extra int, tags tiffTags) error {
	raw, reversed := tags.get(tagCompression, tiffRaw) == tiffRaw, tags.get(tagFillOrder, 1) == 2
	switch {
	case p.samples == 2 || p.colours == 4:
		return unsupportedTIFF("planes of gray and alpha or of CMYK")
	case p.divided || p.samples > 3 && extra == 0:
		return unsupportedTIFF("planes of RGB and associated alpha")
	case raw && (p.bits != 8 || reversed || photometric == tiffWhiteIsZero):
		return unsupportedTIFF("uncompressed planes of other than bytes, black as zero")
	}
	p.planes, p.samples = p.samples, 1
	return nil
}

// sum undoes the predictor in samples of 8 or 16 bits: each is the difference to that lead bytes before.
func (p *tiffPixel) sum(b []byte, lead int) {
	if p.bits == 8 {
		for i := lead; i < len(b); i++ {
			b[i] += b[i-lead]
		}
		return
	}
	high, low := p.high, 1-p.high
	for i := lead; i+1 < len(b); i += 2 {
		before := b[i-lead:]
		v := uint(b[i+high])<<8 + uint(b[i+low]) + uint(before[high])<<8 + uint(before[low])
		b[i+high], b[i+low] = byte(v>>8), byte(v)
	}
}

// pack writes the pixels of in, which are of that plane, to out: three bytes for each, of several planes one of the three.
func (p *tiffPixel) pack(out, in []byte, plane int) {
	step := p.samples * p.bits / 8
	at := [3]int{p.high, p.high + p.bits/8, p.high + p.bits/4} // of red, green and blue
	switch {
	case p.planes > 1:
		for i, o := p.high, plane; o < len(out); i, o = i+step, o+3 {
			out[o] = in[i]
		}
	case p.bits < 8:
		p.table.unpack(out, 3, len(out)/3, in, p.bits)
	case p.colours == 1:
		for i, o := p.high, 0; o < len(out); i, o = i+step, o+3 {
			c := &p.table[in[i]]
			out[o], out[o+1], out[o+2] = c[0], c[1], c[2]
		}
	case p.colours == 4:
		unpackInks(out, in, step, 0)
	case p.divided:
		for ; len(out) > 0; in, out = in[step:], out[3:] {
			a := in[p.high+3*p.bits/8]
			out[0], out[1], out[2] = divide(in[at[0]], a), divide(in[at[1]], a), divide(in[at[2]], a)
		}
	case step == 3:
		copy(out, in)
	default:
		unpackBytes(out, in, step, at)
	}
}

// divide returns a colour that was multiplied by alpha as PIL does, after the cut to 8 bits; 0 where alpha is 0.
func divide(c, alpha byte) byte {
	if alpha == 0 {
		return 0
	}
	return byte(min(int(c)*255/int(alpha), 255))
}
