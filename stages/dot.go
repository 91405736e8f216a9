package stages

// Every processor has a function dot(a, b []float32) float32, the scalar product of two vectors of the same
// length, which may be 0. It is dotGo or assembly that adds in another order:
//   - The result is within 1e-5 of the sum of the absolute products (up to 1,024 values).
//   - The same vectors give the same bits every time on the same machine, wherever they lie: so equal
//     prompts have equal scores.
//   - Infinities and NaN go the way of IEEE 754, unless finite products overflow float32 on their own.

// Cosine is the cosine similarity of two vectors of unit length, as Match.Cosine has it.
func Cosine(a, b []float32) float64 { return min(max(float64(dot(a, b)), -1), 1) }

// dotGo is dot in Go. Eight sums run side by side: that hides the latency of the additions and
// keeps the rounding error small.
func dotGo(a, b []float32) float32 {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	for len(a) >= 8 && len(b) >= 8 {
		x, y := a[:8], b[:8]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
		s4 += x[4] * y[4]
		s5 += x[5] * y[5]
		s6 += x[6] * y[6]
		s7 += x[7] * y[7]
		a, b = a[8:], b[8:]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
}
