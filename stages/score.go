package stages

import (
	"cmp"
	"math"
	"slices"
)

// Rank turns an image embedding and the embeddings of n prompts (n x dimension, row-major) into
// matches, as s says. All vectors have unit length. With one prompt the score is the cosine,
// because a softmax of one is always 1.
//
// The formula is CLIP's: probability = softmax(logit scale * cosine) over all prompts. The
// maximum is subtracted first, so that no exponential overflows.
func Rank(embedding, prompts []float32, s Scoring) []Match {
	n := len(prompts) / len(embedding)
	if n == 0 {
		return nil
	}
	matches := make([]Match, n)
	top := math.Inf(-1)
	for i := range matches {
		c := float64(dot(embedding, prompts[i*len(embedding):][:len(embedding)]))
		matches[i] = Match{Prompt: i, Cosine: min(max(c, -1), 1)}
		top = max(top, matches[i].Cosine)
	}
	sum := 0.0
	for i := range matches {
		matches[i].Probability = math.Exp(s.LogitScale * (matches[i].Cosine - top))
		sum += matches[i].Probability
	}
	// The best are gathered at the front of matches: whenever there are twice as many as are wanted, the
	// worse half goes, and nothing below the others is looked at any more.
	topK, least := min(s.TopK, n), math.Inf(-1)
	if s.Cut {
		least = s.Threshold
	}
	best := matches[:0]
	for _, m := range matches {
		m.Probability /= sum
		m.Score = m.Cosine
		if s.Softmax && n > 1 {
			m.Score = m.Probability
		}
		if !(m.Score >= least) { // NaN, too
			continue
		}
		best = append(best, m)
		if len(best) == 2*topK {
			slices.SortFunc(best, byScore)
			best = best[:topK]
			least = best[topK-1].Score
		}
	}
	slices.SortFunc(best, byScore)
	return best[:min(len(best), topK)]
}

// byScore orders matches by falling score, equal scores by falling cosine (far below the best,
// probabilities are all 0), then as their prompts.
func byScore(a, b Match) int {
	return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.Cosine, a.Cosine), cmp.Compare(a.Prompt, b.Prompt))
}
