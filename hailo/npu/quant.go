package npu

import (
	"encoding/binary"
	"fmt"
	"math"

	"hailoclip/hailo"
)

// elementBytes is the size of a number in a stream; 0 for a format that is not known.
func elementBytes(format uint32) int {
	switch format {
	case FormatUint8:
		return 1
	case FormatUint16:
		return 2
	case FormatFloat32:
		return 4
	}
	return 0
}

// validate checks what a worker says about a stream against what the host needs: rows rows of
// features numbers.
func (s *Stream) validate(rows, features int) error {
	// In 64 bits nothing overflows after the first two checks.
	h, w := uint64(s.Height), uint64(s.Width)
	switch {
	case h > 1<<16 || w > 1<<16 || h*w != uint64(rows) || s.Features != uint32(features):
		return fmt.Errorf("shape %dx%dx%d, want %d rows of %d", s.Height, s.Width, s.Features, rows, features)
	case elementBytes(s.Format) == 0:
		return fmt.Errorf("format %d is unknown", s.Format)
	case int64(s.FrameBytes) != int64(rows)*int64(features)*int64(elementBytes(s.Format)):
		return fmt.Errorf("frames of %d bytes do not fit %dx%dx%d in format %d",
			s.FrameBytes, s.Height, s.Width, s.Features, s.Format)
	}
	return nil
}

// convertible says whether decode and encode can be used.
func (s *Stream) convertible() error {
	scale, zero := float64(s.Scale), float64(s.ZeroPoint)
	if s.Format != FormatFloat32 && (!(scale > 0) || math.IsInf(scale, 0) || math.IsNaN(zero) || math.IsInf(zero, 0)) {
		return fmt.Errorf("quantisation with scale %v, zero point %v", scale, zero)
	}
	return nil
}

// rowBytes is the size of one row: the features of one position.
func (s *Stream) rowBytes() int { return int(s.Features) * elementBytes(s.Format) }

// decode turns a row of the stream into numbers: scale * (q - zero point).
// len(dst) is Features, len(row) is rowBytes.
func (s *Stream) decode(dst []float32, row []byte) {
	if s.Format == FormatFloat32 {
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(row[4*i:]))
		}
		return
	}
	scale, zero := float64(s.Scale), float64(s.ZeroPoint)
	for i := range dst {
		var q float64
		if s.Format == FormatUint8 {
			q = float64(row[i])
		} else {
			q = float64(binary.LittleEndian.Uint16(row[2*i:]))
		}
		dst[i] = float32(scale * (q - zero))
	}
}

// encode turns numbers into a row of the stream, rounded to the nearest step and clamped to
// what the format holds. The sizes are those of decode.
func (s *Stream) encode(row []byte, values []float32) {
	scale, zero := float64(s.Scale), float64(s.ZeroPoint)
	for i, v := range values {
		switch s.Format {
		case FormatFloat32:
			binary.LittleEndian.PutUint32(row[4*i:], math.Float32bits(v))
			continue
		}
		q := math.RoundToEven(float64(v)/scale + zero)
		if s.Format == FormatUint8 {
			row[i] = uint8(min(max(q, 0), math.MaxUint8))
		} else {
			binary.LittleEndian.PutUint16(row[2*i:], uint16(min(max(q, 0), math.MaxUint16)))
		}
	}
}

// normalize makes v unit length (L2, summed in float64). ErrEncode when it has no direction:
// all zero, or not finite.
func normalize(v []float32) error {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		return fmt.Errorf("%w: the device returned a vector without a direction (squared length %v)", hailo.ErrEncode, sum)
	}
	inverse := 1 / math.Sqrt(sum)
	for i, x := range v {
		v[i] = float32(float64(x) * inverse)
	}
	return nil
}
