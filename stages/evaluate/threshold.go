package evaluate

import (
	"cmp"
	"math"
	"slices"
)

// below is a score that is less by more than rounding: who computes the score of the same image in another way, as package stages
// does, is to find it at or above the threshold.
func below(score float64) float64 { return score - 1e-12*math.Abs(score) }

// threshold is (just below) the lowest score from which on at least the wanted share of the images show label k; nil if there is none.
func threshold(images []Image, scores [][]float64, k int, wanted float64) (t *Threshold) {
	shown, order := 0, make([]int, len(images))
	for i, image := range images {
		if order[i] = i; image.Truth == k {
			shown++
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(scores[b][k], scores[a][k]) })
	right := 0
	for n, i := range order {
		if images[i].Truth == k {
			right++
		}
		if n+1 < len(order) && scores[order[n+1]][k] == scores[i][k] {
			continue // a score has all images that have it on its side
		}
		if precision := float64(right) / float64(n+1); right > 0 && precision >= wanted {
			t = &Threshold{Score: below(scores[i][k]), Precision: precision, Recall: float64(right) / float64(shown)}
		}
	}
	return t
}
