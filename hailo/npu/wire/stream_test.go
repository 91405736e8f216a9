package wire

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"hailoclip/hailo/internal/assert"
)

func quantised(format, features uint32) *Stream {
	s := &Stream{Height: 1, Width: 2, Features: features, Format: format, Scale: 0.5, ZeroPoint: 10}
	s.FrameBytes = 2 * features * uint32(elementBytes(format))
	return s
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name   string
		stream *Stream
		row    []byte
		want   []float32
	}{
		{"uint8", quantised(FormatUint8, 4), []byte{0, 10, 11, 255}, []float32{-5, 0, 0.5, 122.5}},
		{"uint16", quantised(FormatUint16, 3), []byte{0, 0, 12, 0, 0xff, 0xff}, []float32{-5, 1, 32762.5}},
		{"float32", quantised(FormatFloat32, 2), []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}, []float32{1, -2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Must(t, tt.stream.Validate("", 2, int(tt.stream.Features)))
			got := make([]float32, len(tt.want))
			tt.stream.Decode(got, tt.row)
			assert.Diff(t, tt.want, got)
			back := make([]byte, len(tt.row))
			tt.stream.Encode(back, got)
			assert.True(t, bytes.Equal(back, tt.row), "encoded again: %v, want %v", back, tt.row)
		})
	}
}

func TestEncodeClamps(t *testing.T) {
	s := quantised(FormatUint8, 5)
	row := make([]byte, 5)
	s.Encode(row, []float32{-1000, 1000, 0.26, float32(math.Inf(1)), float32(math.NaN())})
	assert.True(t, bytes.Equal(row[:4], []byte{0, 255, 11, 255}), "%v", row)
}

func TestStreamValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Stream)
	}{
		{"other width", func(s *Stream) { s.Width = 3 }},
		{"other features", func(s *Stream) { s.Features = 5 }},
		{"product overflows", func(s *Stream) { s.Height, s.Width = 1<<31, 4 }},
		{"no format", func(s *Stream) { s.Format = FormatNative }},
		{"unknown format", func(s *Stream) { s.Format = 4 }},
		{"other size", func(s *Stream) { s.FrameBytes++ }},
		{"scale 0", func(s *Stream) { s.Scale = 0 }},
		{"scale below 0", func(s *Stream) { s.Scale = -1 }},
		{"scale not a number", func(s *Stream) { s.Scale = float32(math.NaN()) }},
		{"scale infinite", func(s *Stream) { s.Scale = float32(math.Inf(1)) }},
		{"zero point not a number", func(s *Stream) { s.ZeroPoint = float32(math.NaN()) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := quantised(FormatUint8, 4)
			check := func() error { return errors.Join(s.Validate("", 2, 4), s.Convertible("")) }
			assert.Must(t, check())
			if tt.change(s); check() == nil {
				t.Error("accepted")
			}
		})
	}
}
