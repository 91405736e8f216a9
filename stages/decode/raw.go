package decode

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Raw says how the bytes of an uncompressed frame are to be read. The zero value says that an image is compressed.
type Raw struct {
	layout        int // index of layouts
	width, height int // pixels
	stride        int // bytes from a row to the next, in the first plane
	matrix        int // index of matrices
	full          bool
}

// layouts are the formats of raw frames, with the names and the layout in memory that FFmpeg and V4L2 give them: a first
// plane with so many bytes a pixel; then, for planes, those of chroma at half the size in both directions (NV12: one, of
// pairs U V; I420: U, then V, each with half the stride).
var layouts = [...]struct {
	name       string
	bytes      int
	subsampled bool // two pixels share a chroma sample: sides are even
	planes     bool
}{
	none:  {},
	rgb24: {"rgb24", 3, false, false},
	bgr24: {"bgr24", 3, false, false},
	gray8: {"gray8", 1, false, false},
	nv12:  {"nv12", 1, true, true},
	i420:  {"i420", 1, true, true},
	yuyv:  {"yuyv", 2, true, false},
}

const (
	none = iota
	rgb24
	bgr24
	gray8
	nv12
	i420
	yuyv
)

// ParseRaw reads a description such as "nv12; 640x480; stride=640; matrix=bt601; range=limited": the format (rgb24, bgr24,
// gray8, nv12, i420 or yuyv), width and height, then, in any order, what there is of the rest. A stride must hold a row of
// the first plane, and is the least such unless given. matrix and range are looked at for YUV only. The error is for who wrote it.
func ParseRaw(text string) (f Raw, err error) {
	fields := strings.Split(text, ";")
	for i := range fields {
		fields[i] = strings.Trim(fields[i], " \t")
	}
	if f.layout, err = choose("the format", fields[0], names()...); err != nil {
		return Raw{}, err
	}
	f.layout++ // there is none
	l := layouts[f.layout]
	if len(fields) < 2 {
		return Raw{}, fmt.Errorf("width and height are missing, as in %q", l.name+"; 640x480")
	}
	width, height, _ := strings.Cut(fields[1], "x")
	if f.width, f.height = side(width), side(height); f.width == 0 || f.height == 0 {
		return Raw{}, fmt.Errorf("%q is not width and height, as in 640x480", fields[1])
	}
	if l.subsampled && (f.width|f.height)&1 != 0 {
		return Raw{}, fmt.Errorf("width and height of %s must be even, and not %dx%d", l.name, f.width, f.height)
	}
	seen := map[string]bool{}
	for _, field := range fields[2:] {
		key, value, _ := strings.Cut(field, "=")
		if seen[key] {
			return Raw{}, fmt.Errorf("%q comes twice", key)
		}
		seen[key] = true
		switch key {
		case "stride":
			f.stride, err = f.parseStride(value)
		case "matrix":
			f.matrix, err = choose(key, value, "bt601", "bt709")
		case "range":
			var i int
			i, err = choose(key, value, "limited", "full")
			f.full = i == 1
		default:
			err = fmt.Errorf("%q is none of stride=, matrix= and range=", field)
		}
		if err != nil {
			return Raw{}, err
		}
	}
	if !seen["stride"] {
		f.stride = f.least()
	}
	return f, nil
}

// String is what ParseRaw reads; "" for a compressed image.
func (f Raw) String() string {
	if f.Compressed() {
		return ""
	}
	text := fmt.Sprintf("%s; %dx%d", layouts[f.layout].name, f.width, f.height)
	if f.stride != f.least() {
		text += fmt.Sprintf("; stride=%d", f.stride)
	}
	if f.matrix != 0 {
		text += "; matrix=bt709"
	}
	if f.full {
		text += "; range=full"
	}
	return text
}

// names are those of the formats.
func names() (all []string) {
	for _, l := range layouts[1:] {
		all = append(all, l.name)
	}
	return all
}

// choose returns the index of value in values.
func choose(what, value string, values ...string) (int, error) {
	for i, v := range values {
		if v == value {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s is %q, and must be one of %s", what, value, strings.Join(values, ", "))
}

// side reads digits: 1 to 2^31-1, which no product here overflows; else it is 0.
func side(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// least is the bytes of a row without padding, in the first plane.
func (f Raw) least() int { return layouts[f.layout].bytes * f.width }

func (f Raw) parseStride(s string) (int, error) {
	n := side(s)
	if n < f.least() {
		return 0, fmt.Errorf("stride is %q, and must be a number of bytes of at least %d", s, f.least())
	}
	if f.layout == i420 && n&1 != 0 {
		return 0, fmt.Errorf("stride is %d, and must be even for i420, whose chroma has half of it", n)
	}
	return n, nil
}

// Bytes is the length of the frame, the padding of the last row included.
func (f Raw) Bytes() int {
	n := f.stride * f.height
	if layouts[f.layout].planes {
		n += n / 2
	}
	return n
}

// Compressed says that the image is not raw.
func (f Raw) Compressed() bool { return f.layout == none }

// InspectRaw is Inspect for a raw frame: b must have exactly the bytes that f says. The image of an rgb24 frame is b itself,
// other formats are converted. Errors: ErrTooManyPixels, ErrTruncated, ErrCorrupt.
func (d *Decoder) InspectRaw(b []byte, f Raw) (Plan, error) {
	name := layouts[f.layout].name
	if err := d.checkSize(f.width, f.height); err != nil {
		return Plan{}, err
	}
	if n := f.Bytes(); len(b) != n {
		sentinel := ErrCorrupt
		if len(b) < n {
			sentinel = ErrTruncated
		}
		return Plan{}, detailed(sentinel, "%s of %d x %d pixels with a stride of %d has %d bytes, and not %d",
			name, f.width, f.height, f.stride, n, len(b))
	}
	if f.layout == rgb24 {
		whole := Image{Pix: b, Width: f.width, Height: f.height, Stride: f.stride, Format: name, Orientation: 1}
		return Plan{Format: name, Width: f.width, Height: f.height, Orientation: 1, image: whole}, nil
	}
	return f.planConversion(b), nil
}

func (f Raw) planConversion(b []byte) Plan {
	p := newPlan(f.width, f.height, 0, f.least()*f.height, 1, func(t *task) (Image, error) {
		p := newImage(f.width, f.height)
		return p, t.rows(p, f.least()+3*f.width, f.converter(b))
	})
	p.Format = layouts[f.layout].name
	return p
}

// converter returns what converts row y of b to RGB.
func (f Raw) converter(b []byte) func(pix []byte, y int) {
	row := func(y int) []byte { return b[y*f.stride:][:f.least()] }
	chroma := b[f.stride*f.height:]
	half, pair := f.stride/2, f.width/2
	k := &coefficients[f.matrix][0]
	if f.full {
		k = &coefficients[f.matrix][1]
	}
	switch f.layout {
	case bgr24:
		return func(pix []byte, y int) {
			for row := row(y); len(row) >= 3 && len(pix) >= 3; row, pix = row[3:], pix[3:] {
				pix[0], pix[1], pix[2] = row[2], row[1], row[0]
			}
		}
	case gray8:
		return func(pix []byte, y int) {
			for i, v := range row(y) {
				pix[3*i], pix[3*i+1], pix[3*i+2] = v, v, v
			}
		}
	case nv12:
		return func(pix []byte, y int) {
			row, uv := row(y), chroma[y/2*f.stride:][:f.width]
			for i := 0; i+1 < len(row) && i+1 < len(uv); i += 2 {
				k.pixels((*[6]byte)(pix[3*i:]), row[i], row[i+1], uv[i], uv[i+1])
			}
		}
	case i420:
		return func(pix []byte, y int) {
			row, u := row(y), chroma[y/2*half:][:pair]
			v := chroma[f.height/2*half+y/2*half:][:pair]
			for i := range min(len(u), len(v)) {
				k.pixels((*[6]byte)(pix[6*i:]), row[2*i], row[2*i+1], u[i], v[i])
			}
		}
	default: // yuyv
		return func(pix []byte, y int) {
			for row := row(y); len(row) >= 4 && len(pix) >= 6; row, pix = row[4:], pix[6:] {
				k.pixels((*[6]byte)(pix), row[0], row[2], row[1], row[3])
			}
		}
	}
}

// yuv has the contribution of each value of a sample to R, G and B, in fixed point: what is added up for a pixel, shifted
// by yuvBits, is the formula's value rounded to the nearest integer.
type yuv struct {
	y              [256]int // with the half that rounds
	rv, gu, gv, bu [256]int
}

const yuvBits = 40

// coefficients are those of Rec. ITU-R BT.601-7 and BT.709-6, each for limited range (Y from 16 to 235, U and V from 16 to
// 240, about 128) and for full range (0 to 255, as in JFIF). With the matrix's weights Kr and Kb of red and blue, Kg = 1-Kr-Kb,
// and Y, U, V scaled to 0..255 and -127.5..127.5:
//
//	R = Y + 2(1-Kr) V,  G = Y - 2(1-Kb)Kb/Kg U - 2(1-Kr)Kr/Kg V,  B = Y + 2(1-Kb) U
//
// A chroma sample counts for the two or four pixels that share it, without interpolation, as with FFmpeg's default
// conversion and OpenCV's. It lies between them then, as in JPEG; for video that has it above the left ones the error is
// a quarter of a chroma sample.
var coefficients = func() (all [2][2]yuv) {
	for m, weights := range [...]struct{ r, b float64 }{{0.299, 0.114}, {0.2126, 0.0722}} {
		g := 1 - weights.r - weights.b
		for r, levels := range [...]struct{ black, y, c float64 }{{16, 219, 224}, {0, 255, 255}} {
			k := &all[m][r]
			for i := range 256 {
				fixed := func(v float64) int { return int(math.Round(v * (1 << yuvBits))) }
				c := 255 * (float64(i) - 128) / levels.c
				k.y[i] = fixed(255*(float64(i)-levels.black)/levels.y) + 1<<(yuvBits-1)
				k.rv[i] = fixed(2 * (1 - weights.r) * c)
				k.gu[i] = fixed(-2 * (1 - weights.b) * weights.b / g * c)
				k.gv[i] = fixed(-2 * (1 - weights.r) * weights.r / g * c)
				k.bu[i] = fixed(2 * (1 - weights.b) * c)
			}
		}
	}
	return all
}()

// pixels converts two pixels with the same chroma.
func (k *yuv) pixels(pix *[6]byte, y0, y1, u, v byte) {
	r, g, b := k.rv[v], k.gu[u]+k.gv[v], k.bu[u]
	a := k.y[y0]
	pix[0], pix[1], pix[2] = clamp(a+r), clamp(a+g), clamp(a+b)
	a = k.y[y1]
	pix[3], pix[4], pix[5] = clamp(a+r), clamp(a+g), clamp(a+b)
}

// clamp is the integer part of v, in fixed point, or the nearest of 0 and 255.
func clamp(v int) byte { return byte(min(max(v>>yuvBits, 0), 255)) }
