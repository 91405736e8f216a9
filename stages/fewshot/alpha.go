package fewshot

import (
	"math"
	"slices"
)

// Alphas are the weights of the examples that Fit chooses from.
var Alphas = [...]float64{0.01, 0.1, 1, 10}

// mostLeftOut is how many examples are left out to choose a weight. Of more, as many are taken at even distances.
const mostLeftOut = 512

// tie is how far apart two losses, in nats, must be to tell.
const tie = 0.01

// chooseAlpha returns the weight with the least loss; of equal ones the smallest, since a larger weight makes answers surer.
func (a *analysis) chooseAlpha(scale float64) float64 {
	loss := a.losses(scale)
	for n := range loss {
		if loss[n] < slices.Min(loss[:])+tie {
			return Alphas[n]
		}
	}
	return Alphas[0]
}

// losses returns, for each of Alphas, the mean of -log(probability of the right class) over the examples, each left out of the
// fit that it is tested with, at the temperature that suits the weight best. (At temperature 1, one sure and wrong answer to
// few examples outweighs that all others become right.)
func (a *analysis) losses(scale float64) (best [len(Alphas)]float64) {
	const coldest, temperatures = 1.0 / 16, 13 // each twice the last
	var sums [len(Alphas)][temperatures]float64
	logits := make([]float64, len(a.text))
	count, candidates := 0.0, min(len(a.x), mostLeftOut)
	for c := range candidates {
		i := c * len(a.x) / candidates
		if a.count[a.class[i]] < 2 {
			continue // without it, the class is empty
		}
		count++
		cosine, score := a.leaveOut(i)
		truth := a.of[a.class[i]]
		for n, alpha := range Alphas {
			for k := range logits {
				logits[k] = scale*cosine[k] + alpha*score[k]
			}
			for t := range sums[n] {
				sums[n][t] += surprise(logits, truth, coldest*float64(int(1)<<t))
			}
		}
	}
	for n := range best {
		best[n] = slices.Min(sums[n][:]) / max(count, 1)
	}
	return best
}

// leaveOut returns, for example i and each of Fit's classes, the cosine with its text and (w - w̄)·x + b - b̄, as they are
// without the example. The weight of I in the matrix stays what it is with it, as in the leave-one-out of ridge regression.
//
// Without x of a class of m, v = x - μ: the mean is μ - v/(m-1), and VᵀV is less by m/(m-1)·vvᵀ, so that with P the inverse,
// u = P·v, and γ = m/(m-1) / (1 - m/(m-1)·u·v), the inverse is P + γ·uuᵀ (Sherman and Morrison).
func (a *analysis) leaveOut(i int) (cosine, score []float64) {
	x, v := make([]float64, a.dim), make([]float64, a.dim)
	add(x, a.x[i])
	a.centred(i, v)
	class, m, d := a.class[i], float64(a.count[a.class[i]]), float64(a.dim)
	u := a.inv.solve(v)
	uv, ux := dot(u, v), dot(u, x)
	gamma := m / (m - 1) / (1 - m/(m-1)*uv)
	without := func(s linear, shift float64) float64 { // of the mean less shift·v
		um := dot(s.w, v) / d
		px := dot(s.w, x)/d - shift*ux
		pm := -2*s.b/d - 2*shift*um + shift*shift*uv
		um -= shift * uv
		return d * (px + gamma*um*ux - (pm+gamma*um*um)/2)
	}
	cosine, score = make([]float64, len(a.text)), make([]float64, len(a.text))
	centre := without(a.centre, 1/(m-1)/float64(len(a.mean)))
	for k, s := range a.score {
		shift := 0.0
		if k == class {
			shift = 1 / (m - 1)
		}
		score[a.of[k]] = without(s, shift) - centre
	}
	for k, text := range a.text {
		cosine[k] = dot(text, x)
	}
	if a.ownText[class] {
		return cosine, score
	}
	rest := make([]float64, a.dim) // the prototype of the others
	for j, mu := range a.mean[class] {
		rest[j] = m*mu - x[j]
	}
	cosine[a.of[class]] = 0
	if normalise(rest) {
		cosine[a.of[class]] = dot(rest, x)
	}
	return cosine, score
}

// surprise is -log(probability of the truth).
func surprise(logits []float64, truth int, temperature float64) float64 {
	top, sum := slices.Max(logits), 0.0
	for _, x := range logits {
		sum += math.Exp((x - top) / temperature)
	}
	return math.Log(sum) - (logits[truth]-top)/temperature
}
