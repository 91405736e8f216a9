package wire

import (
	"encoding/binary"
	"fmt"
	"math"
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

// Validate checks what a worker says about a stream against what the host needs: rows rows of
// features numbers. Errors begin with its name.
func (s *Stream) Validate(name string, rows, features int) error {
	// In 64 bits nothing overflows after the first two checks.
	h, w := uint64(s.Height), uint64(s.Width)
	switch {
	case h > 1<<16 || w > 1<<16 || h*w != uint64(rows) || s.Features != uint32(features):
		return fmt.Errorf("%s: shape %dx%dx%d, want %d rows of %d", name, s.Height, s.Width, s.Features, rows, features)
	case elementBytes(s.Format) == 0:
		return fmt.Errorf("%s: format %d is unknown", name, s.Format)
	case int64(s.FrameBytes) != int64(rows)*int64(features)*int64(elementBytes(s.Format)):
		return fmt.Errorf("%s: frames of %d bytes do not fit %dx%dx%d in format %d",
			name, s.FrameBytes, s.Height, s.Width, s.Features, s.Format)
	}
	return nil
}

// Convertible says whether Decode and Encode can be used.
func (s *Stream) Convertible(name string) error {
	scale, zero := float64(s.Scale), float64(s.ZeroPoint)
	if s.Format != FormatFloat32 && (!(scale > 0) || math.IsInf(scale, 0) || math.IsNaN(zero) || math.IsInf(zero, 0)) {
		return fmt.Errorf("%s: quantisation with scale %v, zero point %v", name, scale, zero)
	}
	return nil
}

// RowBytes is the size of one row: the features of one position.
func (s *Stream) RowBytes() int { return int(s.Features) * elementBytes(s.Format) }

// Decode turns a row of the stream into numbers: scale * (q - zero point).
// len(dst) is Features, len(row) is RowBytes.
func (s *Stream) Decode(dst []float32, row []byte) {
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

// Encode turns numbers into a row of the stream, rounded to the nearest step and clamped to
// what the format holds. The sizes are those of Decode.
func (s *Stream) Encode(row []byte, values []float32) {
	scale, zero := float64(s.Scale), float64(s.ZeroPoint)
	for i, v := range values {
		if s.Format == FormatFloat32 {
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
