package stages

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// unit returns a random vector of unit length.
func unit(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	sum := 0.0
	for i := range v {
		v[i] = float32(r.NormFloat64())
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// plain are ordinary labels of a row each.
func plain(rows []float32, dim int) *Labels { return &Labels{N: len(rows) / dim, Rows: rows} }

func TestRank(t *testing.T) {
	image := []float32{1, 0}
	near, far, opposite := []float32{0.8, 0.6}, []float32{0.6, 0.8}, []float32{-1, 0}
	join := func(vs ...[]float32) (m []float32) {
		for _, v := range vs {
			m = append(m, v...)
		}
		return m
	}
	p := func(a, b float64) float64 { return 1 / (1 + math.Exp(b-a)) } // softmax of two
	cases := []struct {
		name    string
		prompts []float32
		s       Scoring
		order   []int
		scores  []float64
	}{
		{"two", join(far, near), Scoring{LogitScale: 10, TopK: 3}, []int{1, 0}, []float64{p(8, 6), p(6, 8)}},
		{"one, negative, and no threshold", opposite, Scoring{LogitScale: 10, TopK: 3}, []int{0}, []float64{-1}},
		{"one is the cosine", far, Scoring{LogitScale: 10, TopK: 3}, []int{0}, []float64{0.6}},
		{"no softmax", join(opposite, near), Scoring{Activation: None, LogitScale: 10, TopK: 3}, []int{1, 0}, []float64{0.8, -1}},
		{"a threshold drops negative cosines", join(opposite, near), Scoring{Activation: None, LogitScale: 10, TopK: 3, Cut: true}, []int{1}, []float64{0.8}},
		{"top_k", join(far, near, far), Scoring{LogitScale: 0, TopK: 1}, []int{1}, []float64{1.0 / 3}},
		{"equal scores by cosine, then in input order", join(far, near, opposite, near), Scoring{LogitScale: 0, TopK: 4}, []int{1, 3, 0, 2}, []float64{0.25, 0.25, 0.25, 0.25}},
		{"ties in input order", join(near, far, near, far), Scoring{Activation: None, TopK: 9}, []int{0, 2, 1, 3}, []float64{0.8, 0.8, 0.6, 0.6}},
		{"threshold is inclusive", join(near, far), Scoring{Activation: None, TopK: 9, Cut: true, Threshold: float64(float32(0.8))}, []int{0}, []float64{0.8}},
		{"threshold of all", join(near, far), Scoring{Activation: None, TopK: 9, Cut: true, Threshold: 0.9}, []int{}, []float64{}},
		{"huge scale", join(near, far), Scoring{LogitScale: 1e308, TopK: 9}, []int{0, 1}, []float64{1, 0}},
		{"probabilities of 0 by cosine, then in input order", join(far, opposite, near, far), Scoring{LogitScale: 1e6, TopK: 4}, []int{2, 0, 3, 1}, []float64{1, 0, 0, 0}},
		{"of those the first", join(far, opposite, near, far), Scoring{LogitScale: 1e6, TopK: 2}, []int{2, 0}, []float64{1, 0}},
		{"no prompts", nil, Scoring{Activation: None, TopK: 9}, []int{}, []float64{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, reason := Rank(image, plain(c.prompts, 2), c.s, nil)
			if reason != "" {
				t.Errorf("reason %q", reason)
			}
			if len(got) != len(c.order) {
				t.Fatalf("%d matches: %+v, want %d", len(got), got, len(c.order))
			}
			for i, m := range got {
				if m.Label != c.order[i] || math.Abs(m.Score-c.scores[i]) > 1e-6 {
					t.Errorf("match %d is %+v, want prompt %d score %v", i, m, c.order[i], c.scores[i])
				}
			}
		})
	}
}

// TestRankAgainstDefinition compares with the formulas written out in float64. A prompt given again scores the same to the
// last bit.
func TestRankAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, dim := range []int{1, 7, 8, 13, 31, 77, 512} {
		image := unit(r, dim)
		var prompts []float32
		for range 50 {
			prompts = append(prompts, unit(r, dim)...)
		}
		again := slices.Clone(prompts)
		for i := 0; i < 50; i += 2 { // wherever it lies
			copy(again[i*dim:], prompts[13*dim:14*dim])
		}
		same := map[[2]float64]int{}
		matches, _ := Rank(image, plain(again, dim), Scoring{LogitScale: 100, TopK: 50}, nil)
		for _, m := range matches {
			if m.Label%2 == 0 {
				same[[2]float64{m.Score, m.Cosine}]++
			}
		}
		if len(same) != 1 {
			t.Errorf("dimension %d: a prompt given again has other scores: %v", dim, same)
		}
		got, _ := Rank(image, plain(prompts, dim), Scoring{LogitScale: 100, TopK: 50}, nil)
		total, last := 0.0, math.Inf(1)
		var z float64
		logits := make([]float64, 50)
		for i := range logits {
			for k := range dim {
				logits[i] += 100 * float64(image[k]) * float64(prompts[i*dim+k])
			}
			z += math.Exp(logits[i])
		}
		for _, m := range got {
			want := math.Exp(logits[m.Label]) / z
			if math.Abs(m.Probability-want) > 1e-4*want+1e-12 || math.Abs(m.Cosine*100-logits[m.Label]) > 1e-4 {
				t.Fatalf("dimension %d: %+v, want probability %v, cosine %v", dim, m, want, logits[m.Label]/100)
			}
			if m.Score > last {
				t.Fatalf("not ordered: %v after %v", m.Score, last)
			}
			last = m.Score
			total += m.Probability
		}
		if len(got) != 50 || math.Abs(total-1) > 1e-9 {
			t.Errorf("%d matches, probabilities sum to %v", len(got), total)
		}
	}
}

// TestRankSelection compares with sorting everything: rising, falling and equal scores, prompts that occur
// again, NaN, every top_k. The vectors have one dimension, so that scores are known exactly.
func TestRankSelection(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	nan := float32(math.NaN())
	value := map[string]func(i int) float32{
		"rising":      func(i int) float32 { return float32(i) / 100 },
		"falling":     func(i int) float32 { return float32(100-i) / 100 },
		"equal":       func(int) float32 { return 0.5 },
		"few values":  func(int) float32 { return float32(r.IntN(5)-1) / 4 },
		"random":      func(int) float32 { return r.Float32()*2 - 1 },
		"NaN between": func(i int) float32 { return []float32{nan, 0.25, 0.5}[r.IntN(3)] },
	}
	for name, f := range value {
		for _, n := range []int{1, 2, 5, 100} {
			prompts := make([]float32, n)
			for i := range prompts {
				prompts[i] = f(i)
			}
			for _, threshold := range []float64{-1, 0.25, 2} {
				var all []int
				for i, p := range prompts {
					if float64(p) >= threshold {
						all = append(all, i)
					}
				}
				sort.SliceStable(all, func(i, j int) bool { return prompts[all[i]] > prompts[all[j]] })
				for _, topK := range []int{0, 1, 2, 3, 49, 50, 99, 100, math.MaxInt} {
					got, _ := Rank([]float32{1}, plain(prompts, 1), Scoring{Activation: None, TopK: topK, Cut: threshold > -1, Threshold: threshold}, nil)
					want := all[:min(len(all), topK)]
					same := len(got) == len(want)
					for i := 0; same && i < len(got); i++ {
						same = got[i].Label == want[i] && got[i].Cosine == float64(prompts[want[i]]) && got[i].Score == got[i].Cosine
					}
					if !same {
						t.Fatalf("%s, %d prompts, top %d, threshold %v: %+v, want prompts %v", name, n, topK, threshold, got, want)
					}
				}
			}
		}
	}
}

func BenchmarkRank(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	image := unit(r, 512)
	for _, c := range []struct {
		name string
		n    int
	}{{"4prompts", 4}, {"20prompts", 20}, {"1000prompts", 1000}} {
		var prompts []float32
		for range c.n {
			prompts = append(prompts, unit(r, 512)...)
		}
		labels := plain(prompts, 512)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Rank(image, labels, Scoring{LogitScale: 100, TopK: 3}, nil)
			}
		})
	}
}
