package fleet

import (
	"encoding/binary"
	"math"
)

// appendVector adds a vector as it travels: float32, little-endian.
func appendVector(b []byte, vector []float32) []byte {
	for _, x := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// readVector reads whole numbers of appendVector, of which the caller has bounded how many. square is the squared length, NaN where a
// number is.
func readVector(b []byte) (vector []float32, square float64) {
	vector = make([]float32, len(b)/4)
	for i := range vector {
		vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		square += float64(vector[i]) * float64(vector[i])
	}
	return vector, square
}
