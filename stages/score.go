package stages

import (
	"cmp"
	"math"
	"slices"

	"hailoclip/pipeline"
)

// Rank turns an image embedding and the embeddings of n prompts (n x dimension, row-major) into
// matches, as s says. All vectors have unit length. With one prompt the score is the cosine,
// because a softmax of one is always 1.
//
// The formula is CLIP's: probability = softmax(logit scale * cosine) over all prompts. The
// maximum is subtracted first, so that no exponential overflows.
func Rank(embedding, prompts []float32, s pipeline.Scoring) []pipeline.Match {
	n := len(prompts) / len(embedding)
	if n == 0 {
		return nil
	}
	matches := make([]pipeline.Match, n)
	top := math.Inf(-1)
	for i := range matches {
		c := dot(embedding, prompts[i*len(embedding):][:len(embedding)])
		matches[i] = pipeline.Match{Prompt: i, Cosine: min(max(c, -1), 1)}
		top = max(top, matches[i].Cosine)
	}
	sum := 0.0
	for i := range matches {
		matches[i].Probability = math.Exp(s.LogitScale * (matches[i].Cosine - top))
		sum += matches[i].Probability
	}
	for i := range matches {
		m := &matches[i]
		m.Probability /= sum
		m.Score = m.Cosine
		if s.Softmax && n > 1 {
			m.Score = m.Probability
		}
	}
	slices.SortStableFunc(matches, func(a, b pipeline.Match) int { return cmp.Compare(b.Score, a.Score) })
	keep, _ := slices.BinarySearchFunc(matches, s.Threshold, func(m pipeline.Match, threshold float64) int {
		if m.Score >= threshold {
			return -1
		}
		return 1
	})
	return matches[:min(keep, s.TopK)]
}

// dot is the scalar product of two vectors of the same length. Eight sums run side by side:
// that hides the latency of the additions and keeps the rounding error small.
func dot(a, b []float32) float64 {
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
	return float64(s0) + float64(s1) + float64(s2) + float64(s3) + float64(s4) + float64(s5) + float64(s6) + float64(s7)
}
