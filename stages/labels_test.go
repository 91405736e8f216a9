package stages

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// TestRankLabels has labels of one dimension or two, so that all numbers can be followed by hand.
func TestRankLabels(t *testing.T) {
	p := func(logits ...float64) float64 { // softmax: the share of the first
		sum := 0.0
		for _, l := range logits {
			sum += math.Exp(l)
		}
		return math.Exp(logits[0]) / sum
	}
	value := func(x float64) *float64 { return &x }
	nan := float32(math.NaN())
	kinds := func(k ...Kind) []Kind { return k }
	const o, n, neg = Ordinary, Negative, Negation
	type want struct {
		order  []int
		scores []float64
		reason Reason
	}
	cases := []struct {
		name string
		l    Labels
		s    Scoring
		want
	}{
		{"a negative joins the softmax and is not listed", Labels{N: 3, Rows: []float32{0.5, 0.25, 0.125}, Kinds: kinds(o, n, o)},
			Scoring{LogitScale: 8}, want{[]int{0, 2}, []float64{p(4, 2, 1), p(1, 4, 2)}, ""}},
		{"a negative is the best", Labels{N: 3, Rows: []float32{0.25, 0.5, 0.125}, Kinds: kinds(o, n, o)},
			Scoring{LogitScale: 8}, want{[]int{0, 2}, []float64{p(2, 4, 1), p(1, 4, 2)}, BecauseNegative}},
		{"a negative is as good", Labels{N: 2, Rows: []float32{0.5, 0.5}, Kinds: kinds(n, o)},
			Scoring{LogitScale: 8}, want{[]int{1}, []float64{0.5}, ""}},
		{"one label and a negative are two", Labels{N: 2, Rows: []float32{0.5, 0.25}, Kinds: kinds(o, n)},
			Scoring{LogitScale: 8}, want{[]int{0}, []float64{p(4, 2)}, ""}},
		{"one label and a negation are one", Labels{N: 2, Rows: []float32{0.5, 0.75}, Kinds: kinds(o, neg)},
			Scoring{LogitScale: 8}, want{[]int{0}, []float64{0.5}, ""}},
		{"a negation is nothing to the others", Labels{N: 3, Rows: []float32{0.5, 0.25, 1}, Kinds: kinds(o, o, neg)},
			Scoring{LogitScale: 8}, want{[]int{0, 1}, []float64{p(4, 2), p(2, 4)}, ""}},
		{"only negatives", Labels{N: 2, Rows: []float32{0.5, 0.75}, Kinds: kinds(n, n)},
			Scoring{LogitScale: 8}, want{[]int{}, nil, BecauseNegative}},
		{"only negatives, as pairs", Labels{N: 2, Rows: []float32{0.5, 0.75}, Kinds: kinds(n, n)},
			Scoring{Activation: Pair, LogitScale: 8}, want{[]int{}, nil, BecauseNegative}},
		{"the score is the cosine", Labels{N: 3, Rows: []float32{0.25, 0.5, 0.125}, Kinds: kinds(o, n, o)},
			Scoring{Activation: None, LogitScale: 8}, want{[]int{0, 2}, []float64{0.25, 0.125}, BecauseNegative}},
		{"temperature", Labels{N: 2, Rows: []float32{0.5, 0.25}},
			Scoring{LogitScale: 8, Temperature: 4}, want{[]int{0, 1}, []float64{p(1, 0.5), p(0.5, 1)}, ""}},
		{"sigmoid", Labels{N: 3, Rows: []float32{0.5, 0.25, 0.125}, Kinds: kinds(o, o, n)},
			Scoring{Activation: Sigmoid, LogitScale: 8, LogitBias: -3, Temperature: 2}, want{[]int{0, 1}, []float64{p(0.5, 0), p(-0.5, 0)}, ""}},
		{"sigmoid of one", Labels{N: 1, Rows: []float32{0.5}},
			Scoring{Activation: Sigmoid, LogitScale: 8, LogitBias: -3}, want{[]int{0}, []float64{p(1, 0)}, ""}},
		{"sigmoid, a negative is the best", Labels{N: 2, Rows: []float32{0.5, 0.75}, Kinds: kinds(o, n)},
			Scoring{Activation: Sigmoid, LogitScale: 8, LogitBias: -3}, want{[]int{0}, []float64{p(1, 0)}, BecauseNegative}},
		{"the bias is sigmoid's", Labels{N: 2, Rows: []float32{0.5, 0.25}},
			Scoring{LogitScale: 8, LogitBias: -3}, want{[]int{0, 1}, []float64{p(4, 2), p(2, 4)}, ""}},
		{"pairs", Labels{N: 4, Rows: []float32{0.25, 0.5, 0.125, 0.75}, Kinds: kinds(o, o, neg, neg), Negations: []int32{2, 3, -1, -1}},
			Scoring{Activation: Pair, LogitScale: 8}, want{[]int{0, 1}, []float64{p(2, 1), p(4, 6)}, ""}},
		{"pairs with a temperature", Labels{N: 2, Rows: []float32{0.25, 0.5}, Kinds: kinds(neg, o), Negations: []int32{-1, 0}},
			Scoring{Activation: Pair, LogitScale: 8, Temperature: 2}, want{[]int{1}, []float64{p(2, 1)}, ""}},
		{"pairs against the background", Labels{N: 5, Rows: []float32{0.25, 0.5, 0.125, 0.375, 1}, Kinds: kinds(o, o, n, n, neg), Negations: []int32{4, -1, -1, -1, -1}},
			Scoring{Activation: Pair, LogitScale: 8}, want{[]int{1, 0}, []float64{p(4, 1, 3), p(2, 8)}, ""}},
		{"pairs of which none is there", Labels{N: 3, Rows: []float32{0.25, 0.125, 0.5}, Kinds: kinds(o, o, n)},
			Scoring{Activation: Pair, LogitScale: 8}, want{[]int{0, 1}, []float64{p(2, 4), p(1, 4)}, BecauseNegative}},
		{"a pair of equals", Labels{N: 2, Rows: []float32{0.5, 0.5}, Kinds: kinds(o, neg), Negations: []int32{1, -1}},
			Scoring{Activation: Pair, LogitScale: 8}, want{[]int{0}, []float64{0.5}, ""}},
		{"pairs of nothing", Labels{N: 2, Rows: []float32{0.25, 0.5}},
			Scoring{Activation: Pair, LogitScale: 8}, want{[]int{1, 0}, []float64{1, 1}, ""}},
		{"the largest of a label's rows", Labels{N: 2, Rows: []float32{0.25, -0.5, 0.375, 0.75, 0.125}, Of: []int32{0, 0, 0, 1, 1}},
			Scoring{LogitScale: 8}, want{[]int{1, 0}, []float64{p(6, 3), p(3, 6)}, ""}},
		{"rows for logits", Labels{N: 2, Rows: []float32{0.25, 0.5}, Logits: []float32{3, 1}, Bias: []float32{1, 2}},
			Scoring{LogitScale: 8, LogitBias: 5}, want{[]int{0, 1}, []float64{p(4, 3), p(3, 4)}, ""}},
		{"rows for logits, and the cosine as the score", Labels{N: 2, Rows: []float32{0.25, 0.5}, Logits: []float32{3, 1}, Bias: []float32{1, 2}},
			Scoring{Activation: None, LogitScale: 8}, want{[]int{1, 0}, []float64{0.5, 0.25}, ""}},
		{"min_cosine is met", Labels{N: 2, Rows: []float32{0.25, 0.5}}, Scoring{LogitScale: 8, MinCosine: value(0.5)},
			want{[]int{1, 0}, []float64{p(4, 2), p(2, 4)}, ""}},
		{"min_cosine is not met", Labels{N: 2, Rows: []float32{0.25, 0.5}}, Scoring{LogitScale: 8, MinCosine: value(0.51)},
			want{[]int{1, 0}, []float64{p(4, 2), p(2, 4)}, BecauseMinCosine}},
		{"min_cosine of 0", Labels{N: 1, Rows: []float32{-0.25}}, Scoring{LogitScale: 8, MinCosine: value(0)},
			want{[]int{0}, []float64{-0.25}, BecauseMinCosine}},
		{"min_cosine looks at the best only, though it is cut off", Labels{N: 2, Rows: []float32{0.25, 0.5}, Logits: []float32{3, 1}, Bias: []float32{1, 2}},
			Scoring{LogitScale: 8, Cut: true, Threshold: 0.99, MinCosine: value(0.3)}, want{[]int{}, nil, BecauseMinCosine}},
		{"min_margin is met", Labels{N: 2, Rows: []float32{0.5, 0.25}}, Scoring{LogitScale: 8, MinMargin: value(p(4, 2) - p(2, 4) - 1e-9)},
			want{[]int{0, 1}, []float64{p(4, 2), p(2, 4)}, ""}},
		{"min_margin is not met", Labels{N: 2, Rows: []float32{0.5, 0.25}}, Scoring{LogitScale: 8, MinMargin: value(p(4, 2) - p(2, 4) + 1e-9)},
			want{[]int{0, 1}, []float64{p(4, 2), p(2, 4)}, BecauseMinMargin}},
		{"min_margin to a negative", Labels{N: 3, Rows: []float32{0.5, 0.25, 0.375}, Kinds: kinds(o, o, n)}, Scoring{LogitScale: 8, MinMargin: value(p(4, 2, 3) - p(3, 2, 4) + 1e-9)},
			want{[]int{0, 1}, []float64{p(4, 2, 3), p(2, 4, 3)}, BecauseMinMargin}},
		{"min_margin of one label", Labels{N: 1, Rows: []float32{0.25}}, Scoring{LogitScale: 8, MinMargin: value(1)},
			want{[]int{0}, []float64{0.25}, ""}},
		{"min_margin of 0 between equals", Labels{N: 2, Rows: []float32{0.5, 0.5}}, Scoring{LogitScale: 8, MinMargin: value(0)},
			want{[]int{0, 1}, []float64{0.5, 0.5}, ""}},
		{"min_margin of a pair is to its negation", Labels{N: 2, Rows: []float32{0.5, 0.375}, Kinds: kinds(o, neg), Negations: []int32{1, -1}},
			Scoring{Activation: Pair, LogitScale: 8, MinMargin: value(p(4, 3) - p(3, 4) + 1e-9)}, want{[]int{0}, []float64{p(4, 3)}, BecauseMinMargin}},
		{"min_margin of a pair is to another label", Labels{N: 3, Rows: []float32{0.5, 0.375, 0}, Kinds: kinds(o, o, neg), Negations: []int32{2, 2, -1}},
			Scoring{Activation: Pair, LogitScale: 8, MinMargin: value(0.1)}, want{[]int{0, 1}, []float64{p(4, 0), p(3, 0)}, BecauseMinMargin}},
		{"a negative comes before min_cosine, and that before min_margin", Labels{N: 3, Rows: []float32{0.5, 0.5, 0.75}, Kinds: kinds(o, o, n)},
			Scoring{LogitScale: 8, MinCosine: value(0.9), MinMargin: value(0.9)}, want{[]int{0, 1}, []float64{p(4, 4, 6), p(4, 4, 6)}, BecauseNegative}},
		{"min_cosine before min_margin", Labels{N: 2, Rows: []float32{0.5, 0.5}},
			Scoring{LogitScale: 8, MinCosine: value(0.9), MinMargin: value(0.9)}, want{[]int{0, 1}, []float64{0.5, 0.5}, BecauseMinCosine}},
		{"a cosine that is no number", Labels{N: 3, Rows: []float32{0.5, nan, 0.25}}, Scoring{LogitScale: 8},
			want{[]int{0, 2}, []float64{p(4, 2), p(2, 4)}, ""}},
		{"a row that is no number", Labels{N: 2, Rows: []float32{0.5, nan, 0.25}, Of: []int32{0, 0, 1}}, Scoring{LogitScale: 8},
			want{[]int{1}, []float64{1}, ""}},
		{"a logit that is no number", Labels{N: 3, Rows: []float32{0.75, 0.5, 0.25}, Logits: []float32{nan, 4, 2}, Bias: []float32{0, 0, 0}}, Scoring{LogitScale: 8},
			want{[]int{1, 2}, []float64{p(4, 2), p(2, 4)}, ""}},
		{"an infinite logit", Labels{N: 3, Rows: []float32{0.75, 0.5, 0.25}, Logits: []float32{float32(math.Inf(1)), 4, 2}, Bias: []float32{0, 0, 0}},
			Scoring{Activation: None, LogitScale: 8}, want{[]int{1, 2}, []float64{0.5, 0.25}, ""}},
		{"a negative that is no number", Labels{N: 3, Rows: []float32{0.5, nan, 0.25}, Kinds: kinds(o, n, o)}, Scoring{Activation: Pair, LogitScale: 8},
			want{[]int{0, 2}, []float64{1, 1}, ""}},
		{"a negation that is no number", Labels{N: 3, Rows: []float32{0.5, nan, 0.25}, Kinds: kinds(o, neg, o), Negations: []int32{1, -1, -1}}, Scoring{Activation: Pair, LogitScale: 8},
			want{[]int{2}, []float64{1}, ""}},
		{"nothing is a number", Labels{N: 2, Rows: []float32{nan, nan}}, Scoring{LogitScale: 8, MinCosine: value(0.5)}, want{[]int{}, nil, ""}},
		{"huge logits", Labels{N: 3, Rows: []float32{1, -1, 1}, Kinds: kinds(o, o, n)}, Scoring{LogitScale: 1e308, Temperature: 1e-3},
			want{[]int{0, 1}, []float64{0.5, 0}, ""}},
		{"huge logits of pairs", Labels{N: 3, Rows: []float32{1, -1, 1}, Kinds: kinds(o, o, n)}, Scoring{Activation: Pair, LogitScale: 1e308, Temperature: 1e-3},
			want{[]int{0, 1}, []float64{0.5, 0}, ""}},
		{"huge logits of a sigmoid", Labels{N: 2, Rows: []float32{-1, 1}}, Scoring{Activation: Sigmoid, LogitScale: 1e308, Temperature: 1e-3},
			want{[]int{1, 0}, []float64{1, 0}, ""}},
		{"a high temperature", Labels{N: 2, Rows: []float32{-1, 1}}, Scoring{LogitScale: 8, Temperature: 1e300},
			want{[]int{1, 0}, []float64{0.5, 0.5}, ""}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := c.l.fit(1); err != nil {
				t.Fatal(err)
			}
			c.s.TopK = 9
			got, reason := Rank([]float32{1}, &c.l, c.s, nil)
			if len(got) != len(c.order) || reason != c.reason {
				t.Fatalf("%+v, reason %q, want %d matches, reason %q", got, reason, len(c.order), c.reason)
			}
			for i, m := range got {
				if m.Label != c.order[i] || !(math.Abs(m.Score-c.scores[i]) < 1e-12) {
					t.Errorf("match %d is %+v, want label %d, score %v", i, m, c.order[i], c.scores[i])
				}
			}
		})
	}
}

// randomLabels makes labels with everything that they can have, or a part of that.
func randomLabels(r *rand.Rand, n, dim int, pool, gda bool, kinds ...Kind) *Labels {
	l := &Labels{N: n}
	for i := range n {
		rows := 1
		if pool {
			rows += r.IntN(4)
		}
		for range rows {
			l.Rows = append(l.Rows, unit(r, dim)...)
			if pool {
				l.Of = append(l.Of, int32(i))
			}
		}
		if gda {
			for _, x := range unit(r, dim) {
				l.Logits = append(l.Logits, 30*x)
			}
			l.Bias = append(l.Bias, float32(r.NormFloat64()))
		}
		if kinds != nil {
			l.Kinds = append(l.Kinds, kinds[r.IntN(len(kinds))])
		}
	}
	if kinds != nil {
		for i, k := range l.Kinds {
			l.Negations = append(l.Negations, -1)
			if j := r.IntN(n); k == Ordinary && l.Kinds[j] == Negation {
				l.Negations[i] = int32(j)
			}
		}
	}
	return l
}

// definition is Rank by the formulas as they are written, without any care for speed, overflow or what is not finite.
func definition(x []float32, l *Labels, s Scoring) (all []Match, reason Reason, logits []float64) {
	product := func(rows []float32, i int) (sum float64) {
		for k := range x {
			sum += float64(x[k]) * float64(rows[i*len(x)+k])
		}
		return sum
	}
	t := s.Temperature
	if t == 0 {
		t = 1
	}
	kind := func(i int) Kind {
		if l.Kinds == nil {
			return Ordinary
		}
		return l.Kinds[i]
	}
	cosines, compete := make([]float64, l.N), 0
	var background, everything float64
	logits = make([]float64, l.N)
	for i := range l.N {
		cosines[i] = -1
		for row := range len(l.Rows) / len(x) {
			if l.Of == nil && row == i || l.Of != nil && l.Of[row] == int32(i) {
				cosines[i] = max(cosines[i], product(l.Rows, row))
			}
		}
		logits[i] = s.LogitScale * cosines[i]
		if s.Activation == Sigmoid {
			logits[i] += s.LogitBias
		}
		if l.Logits != nil {
			logits[i] = product(l.Logits, i) + float64(l.Bias[i])
		}
		if kind(i) == Negative {
			background += math.Exp(logits[i] / t)
		}
		if kind(i) != Negation {
			everything += math.Exp(logits[i] / t)
			compete++
		}
	}
	probability := func(i int) float64 {
		e := math.Exp(logits[i] / t)
		switch s.Activation {
		case Sigmoid:
			return e / (e + 1)
		case Pair:
			if l.Negations != nil && l.Negations[i] >= 0 {
				return e / (e + math.Exp(logits[l.Negations[i]]/t))
			}
			return e / (e + background)
		}
		return e / everything
	}
	best, second, negative := Match{Score: math.Inf(-1)}, 0.0, 0.0 // the largest probability of the other ordinary ones, and of a negative
	highest := map[Kind]float64{Ordinary: math.Inf(-1), Negative: math.Inf(-1)}
	for i := range l.N {
		m := Match{Label: i, Cosine: cosines[i], Probability: probability(i)}
		if m.Score = m.Probability; s.Activation == None || s.Activation == Softmax && compete == 1 {
			m.Score = m.Cosine
		}
		highest[kind(i)] = max(highest[kind(i)], logits[i])
		switch kind(i) {
		case Ordinary:
			all = append(all, m)
		case Negative:
			negative = max(negative, m.Probability)
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		return all[i].Score > all[j].Score || all[i].Score == all[j].Score && all[i].Cosine > all[j].Cosine
	})
	if len(all) > 0 {
		best = all[0]
		for _, m := range all[1:] {
			second = max(second, m.Probability)
		}
	}
	beaten := highest[Negative] > highest[Ordinary]
	if s.Activation == Pair {
		negative = 1 - best.Probability
		beaten = negative > best.Probability
	}
	switch {
	case beaten:
		reason = BecauseNegative
	case s.MinCosine != nil && best.Cosine < *s.MinCosine:
		reason = BecauseMinCosine
	case s.MinMargin != nil && best.Probability-max(second, negative) < *s.MinMargin:
		reason = BecauseMinMargin
	}
	return all, reason, logits
}

// TestRankLabelsAgainstDefinition takes labels and scorings at random.
func TestRankLabelsAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	seen := map[string]int{}
	for round := range 3000 {
		dim, n := 1+r.IntN(20), 1+r.IntN(30)
		kinds := [][]Kind{nil, {Ordinary, Ordinary, Negative}, {Ordinary, Negative, Negation}}[r.IntN(3)]
		l := randomLabels(r, n, dim, r.IntN(2) == 0, r.IntN(3) == 0, kinds...)
		if !slices.Contains(l.Kinds, Ordinary) && kinds != nil {
			l.Kinds[0], l.Negations[0] = Ordinary, -1
			for i := range l.Negations {
				l.Negations[i] = -1
			}
		}
		s := Scoring{Activation: Activation(r.IntN(4)), LogitScale: 1 + 40*r.Float64(), LogitBias: -10 * r.Float64(), TopK: n}
		if r.IntN(2) == 0 {
			s.Temperature = 0.3 + 3*r.Float64()
		}
		if least := r.Float64(); r.IntN(2) == 0 {
			s.MinCosine = &least
		}
		if least := r.Float64() / 2; r.IntN(2) == 0 {
			s.MinMargin = &least
		}
		x := unit(r, dim)
		want, wantReason, wantLogits := definition(x, l, s)
		logits := make([]float64, n)
		got, reason := Rank(x, l, s, logits)
		at := fmt.Sprintf("round %d, activation %d, %d labels: %+v, %+v", round, s.Activation, n, s, l.Kinds)
		for i := range logits {
			if math.Abs(logits[i]-wantLogits[i]) > 1e-4*(1+math.Abs(wantLogits[i])) {
				t.Fatalf("%s: logit %d is %v, want %v", at, i, logits[i], wantLogits[i])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %+v, want %+v", at, got, want)
		}
		byLabel := map[int]Match{}
		for _, m := range want {
			byLabel[m.Label] = m
		}
		for i, m := range got {
			w, ok := byLabel[m.Label]
			if !ok || math.Abs(m.Cosine-w.Cosine) > 1e-5 || math.Abs(m.Probability-w.Probability) > 1e-3*w.Probability+1e-6 || math.Abs(m.Score-w.Score) > 1e-3*math.Abs(w.Score)+1e-5 {
				t.Fatalf("%s: match %d is %+v, want %+v", at, i, m, w)
			}
			if i > 0 && byScore(got[i-1], m) >= 0 {
				t.Fatalf("%s: match %d is not behind the one before: %+v", at, i, got)
			}
		}
		if reason != wantReason {
			t.Fatalf("%s: reason %q, want %q of %+v", at, reason, wantReason, want)
		}
		seen[fmt.Sprint(s.Activation, " ", reason)]++

		judged := make([]Match, n)
		l.compare(x, judged, &s)
		if because := l.Judge(judged, &s, make([]float64, n)); because != reason {
			t.Fatalf("%s: Judge says %q, want %q", at, because, reason)
		}
		for _, m := range got {
			if judged[m.Label] != m {
				t.Fatalf("%s: Judge says %+v, want %+v", at, judged[m.Label], m)
			}
		}

		s.TopK, s.Cut, s.Threshold = 1+r.IntN(n), true, r.Float64()
		fewer, again := Rank(x, l, s, nil)
		kept := got[:sort.Search(len(got), func(i int) bool { return got[i].Score < s.Threshold })]
		if !slices.Equal(fewer, kept[:min(len(kept), s.TopK)]) || again != reason {
			t.Fatalf("%s: cut to %d above %v: %+v, reason %q", at, s.TopK, s.Threshold, fewer, again)
		}
	}
	for a := range None + 1 {
		for _, reason := range []Reason{"", BecauseNegative, BecauseMinCosine, BecauseMinMargin} {
			if seen[fmt.Sprint(a, " ", reason)] < 20 {
				t.Errorf("activation %d, reason %q: %d cases", a, reason, seen[fmt.Sprint(a, " ", reason)])
			}
		}
	}
}

// TestRankProperties says what holds for any labels and temperature.
func TestRankProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	order := func(matches []Match) (labels []int) {
		for _, m := range matches {
			labels = append(labels, m.Label)
		}
		return labels
	}
	for range 500 {
		n, dim := 2+r.IntN(20), 2+r.IntN(30)
		l := randomLabels(r, n, dim, r.IntN(2) == 0, r.IntN(2) == 0, Ordinary, Ordinary, Negative, Negation)
		x := unit(r, dim)
		for a := range None + 1 {
			s := Scoring{Activation: a, LogitScale: 10, TopK: n}
			cold, logits := make([]float64, n), make([]float64, n)
			matches, reason := Rank(x, l, s, logits)
			for _, m := range matches {
				if l.Kinds[m.Label] != Ordinary {
					t.Fatalf("activation %d: label %d of kind %d is listed", a, m.Label, l.Kinds[m.Label])
				}
				if !(m.Probability >= 0 && m.Probability <= 1) {
					t.Fatalf("activation %d: probability %v", a, m.Probability)
				}
			}
			s.Temperature = 0.5 + 3*r.Float64()
			tempered, again := Rank(x, l, s, cold)
			if !slices.Equal(cold, logits) {
				t.Fatalf("activation %d: a temperature changes the logits", a)
			}
			if background := slices.Contains(l.Kinds, Negative); a != Pair || !background { // log-sum-exp of several depends on it
				if !slices.Equal(order(matches), order(tempered)) || again != reason {
					t.Fatalf("activation %d, temperature %v: %v %q, before %v %q", a, s.Temperature, order(tempered), again, order(matches), reason)
				}
			}
		}

		// A softmax does not see what is added to all logits.
		if l.Logits != nil {
			moved := *l
			moved.Bias = slices.Clone(l.Bias)
			for i := range moved.Bias {
				moved.Bias[i] += 64
			}
			one, _ := Rank(x, l, Scoring{TopK: n}, nil)
			other, _ := Rank(x, &moved, Scoring{TopK: n}, nil)
			for i := range one {
				if one[i].Label != other[i].Label || math.Abs(one[i].Probability-other[i].Probability) > 1e-4 {
					t.Fatalf("%+v, with 64 added to all logits %+v", one, other)
				}
			}
		}
	}
}

// BenchmarkRankLabels is 1,000 labels with more than a row each: a second one for the logit, three of which the largest counts,
// and negatives.
func BenchmarkRankLabels(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	least := 0.1
	x := unit(r, 512)
	max3 := randomLabels(r, 1000, 512, false, false)
	for i := range int32(1000) {
		max3.Rows = append(max3.Rows, max3.Rows[:1024]...)
		max3.Of = append(max3.Of, i, i, i)
	}
	for _, c := range []struct {
		name string
		l    *Labels
		s    Scoring
	}{
		{"gda", randomLabels(r, 1000, 512, false, true), Scoring{LogitScale: 100, TopK: 3}},
		{"max3", max3, Scoring{LogitScale: 100, TopK: 3}},
		{"negatives", randomLabels(r, 1000, 512, false, false, Ordinary, Negative), Scoring{LogitScale: 100, TopK: 3, MinCosine: &least, MinMargin: &least}},
		{"pair", randomLabels(r, 1000, 512, false, false, Ordinary, Negation), Scoring{Activation: Pair, LogitScale: 100, TopK: 3}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Rank(x, c.l, c.s, nil)
			}
		})
	}
}
