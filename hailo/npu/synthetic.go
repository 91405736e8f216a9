package npu

// SyntheticText is a Text for a simulated chip, where the vendor's table and projection are not
// there: the embedding of a token spells its number in 16 numbers of -1 or 1, over and over,
// and there is no projection. TokenOf reads it back.
func SyntheticText(vocabulary, contextLength, dimension int, end, pad int32) *Text {
	return &Text{
		HEF: "synthetic", ContextLength: contextLength, Width: dimension, Vocabulary: min(vocabulary, 1<<16),
		EndToken: end, PadToken: pad,
		Row: func(token int32) []float32 {
			row := make([]float32, dimension)
			for i := range row {
				row[i] = float32(token>>(i%16)&1)*2 - 1
			}
			return row
		},
	}
}

// TokenOf is the token whose row SyntheticText gave; only the first 16 numbers count.
func TokenOf(row []float32) int32 {
	token := int32(0)
	for i, v := range row[:min(16, len(row))] {
		if v > 0 {
			token |= 1 << i
		}
	}
	return token
}

// Encode and Decode turn rows of a stream into numbers and back, for a simulated chip. See the
// package comment on quantisation; len(values) is Features.
func (s *Stream) Encode(row []byte, values []float32) { s.encode(row, values) }
func (s *Stream) Decode(values []float32, row []byte) { s.decode(values, row) }
