package stages

import (
	"cmp"
	"math"
	"slices"
)

// Rank compares an image's embedding of unit length with labels, and says which fit: the matches, as s orders and cuts
// them, and why none fits, "" when the best one does. logits, of length l.N, gets the logit of each label, to which the
// temperature is not applied; nil: it is not wanted. All is computed in float64.
//
// Formulas: cosine = row·embedding; logit = LogitScale x cosine (+ LogitBias with Sigmoid), or that of l.Logits;
// probability as the activation says, of logit / Temperature. With Softmax that is CLIP's. A label whose cosine or logit
// is not finite takes part in nothing.
func Rank(embedding []float32, l *Labels, s Scoring, logits []float64) ([]Match, Reason) {
	return rank(embedding, l, &s, logits, nil)
}

// rank is Rank in the memory of matches, as far as that is enough.
func rank(embedding []float32, l *Labels, scoring *Scoring, logits []float64, matches []Match) ([]Match, Reason) {
	if l.N == 0 {
		return nil, ""
	}
	s := *scoring
	matches = resized(matches, l.N) // probability: first the logit, NaN where a label takes part in nothing
	ordinary, negative := l.compare(embedding, matches, &s)
	for i := range logits {
		logits[i] = matches[i].Probability
	}
	sum := l.activate(matches, &s, max(ordinary, negative), nil)
	return l.choose(matches, &s, sum, negative > ordinary)
}

// Judge is the second half of Rank for all labels: matches, one for each in order, have its cosine and, as the probability, its
// logit, and get probability and score. It says why no label fits, "" when the best one does. A label that takes part in nothing
// has a logit that is NaN. odds is room for as many numbers, needed with Pair only. It allocates nothing.
func (l *Labels) Judge(matches []Match, s *Scoring, odds []float64) Reason {
	ordinary, negative := math.Inf(-1), math.Inf(-1)
	for i := range matches {
		switch logit := matches[i].Probability; {
		case l.kind(i) == Ordinary && logit > ordinary:
			ordinary = logit
		case l.kind(i) == Negative && logit > negative:
			negative = logit
		}
	}
	sum, byCosine, v := l.activate(matches, s, max(ordinary, negative), odds), l.ByCosine(s.Activation), verdict{}
	for i := range matches {
		m := &matches[i]
		m.Label, m.Probability = i, m.Probability/sum
		if m.Score = m.Probability; byCosine {
			m.Score = m.Cosine
		}
		v.see(*m, l.kind(i), s.Activation)
	}
	if l.Kinds == nil && s.MinCosine == nil && s.MinMargin == nil {
		return ""
	}
	return v.reason(s, negative > ordinary)
}

// activate turns logits, of which top is the largest, into probabilities times the sum that it returns. odds, with Pair, is room
// for as many numbers; nil: it makes some.
func (l *Labels) activate(matches []Match, s *Scoring, top float64, odds []float64) (sum float64) {
	temperature := cmp.Or(s.Temperature, 1)
	switch s.Activation {
	case Sigmoid:
		for i := range matches {
			matches[i].Probability = sigmoid(matches[i].Probability / temperature)
		}
	case Pair:
		if odds == nil {
			odds = make([]float64, len(matches))
		}
		for i := range odds {
			odds[i] = matches[i].Probability
		}
		l.Odds(odds, temperature)
		for i := range odds {
			matches[i].Probability = sigmoid(odds[i] / temperature)
		}
	default:
		return l.exponentials(matches, temperature, top)
	}
	return 1
}

// compare sets of each label the cosine, and as its probability its logit. It returns the largest logits of ordinary and
// of negative labels, -Inf where there is none.
func (l *Labels) compare(embedding []float32, matches []Match, s *Scoring) (ordinary, negative float64) {
	dim, bias := len(embedding), 0.0
	if s.Activation == Sigmoid {
		bias = s.LogitBias
	}
	ordinary, negative = math.Inf(-1), math.Inf(-1)
	rows, of := l.Rows, l.Of
	if of == nil && l.Logits == nil && l.Kinds == nil { // plain prompts: the same in fewer steps
		for i := range matches {
			m := &matches[i]
			m.Cosine = min(max(float64(dot(embedding, rows[i*dim:][:dim])), -1), 1)
			if m.Probability = s.LogitScale*m.Cosine + bias; m.Probability > ordinary {
				ordinary = m.Probability
			}
		}
		return ordinary, negative
	}
	for i := range matches {
		cosine := float64(dot(embedding, rows[:dim]))
		for rows = rows[dim:]; len(of) > 1; rows = rows[dim:] {
			if of = of[1:]; int(of[0]) != i {
				break
			}
			cosine = max(cosine, float64(dot(embedding, rows[:dim]))) // NaN if one is
		}
		cosine = min(max(cosine, -1), 1)
		logit := s.LogitScale*cosine + bias
		if l.Logits != nil {
			logit = float64(dot(embedding, l.Logits[i*dim:][:dim])) + float64(l.Bias[i])
			if cosine != cosine || logit-logit != 0 { // NaN, or an infinity less itself
				cosine, logit = math.NaN(), math.NaN()
			}
		}
		matches[i].Cosine, matches[i].Probability = cosine, logit
		switch kind := l.kind(i); { // no comparison with NaN is true
		case kind == Ordinary && logit > ordinary:
			ordinary = logit
		case kind == Negative && logit > negative:
			negative = logit
		}
	}
	return ordinary, negative
}

// exponentials turns logits into what probabilities are proportional to, and returns the sum of that over all labels
// that compete. top, the largest logit, is subtracted first, so that nothing overflows.
func (l *Labels) exponentials(matches []Match, temperature, top float64) (sum float64) {
	inverse := 1 / temperature
	kinds := l.Kinds
	for i := range matches {
		p := math.Exp((matches[i].Probability - top) * inverse)
		matches[i].Probability = p
		if p == p && (kinds == nil || kinds[i] != Negation) {
			sum += p
		}
	}
	return sum
}

// Odds makes of the logits of ordinary labels, with Pair, in place that of which, divided by the temperature, a probability
// is the sigmoid: the logit less that of the label's negation, or less the temperature times log-sum-exp of those of all
// negative labels. It is infinite where nothing stands against the label.
func (l *Labels) Odds(logits []float64, temperature float64) {
	top, sum := math.Inf(-1), 0.0
	for i, logit := range logits {
		if l.kind(i) == Negative && logit > top { // no comparison with NaN is true
			top = logit
		}
	}
	for i, logit := range logits {
		if l.kind(i) == Negative && logit == logit {
			sum += math.Exp((logit - top) / temperature)
		}
	}
	background := top + temperature*math.Log(sum)
	for i := range logits {
		switch {
		case l.kind(i) != Ordinary:
		case l.Negations != nil && l.Negations[i] >= 0:
			logits[i] -= logits[l.Negations[i]]
		default:
			logits[i] -= background
		}
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// choose orders and cuts the ordinary labels, in the memory of matches, and says why the best one does not fit. The
// probabilities of matches are still to be divided by sum. negative says that a negative label has the largest logit.
func (l *Labels) choose(matches []Match, s *Scoring, sum float64, negative bool) ([]Match, Reason) {
	byCosine := l.ByCosine(s.Activation)
	// The best are gathered at the front of matches: whenever there are twice as many as are wanted, the
	// worse half goes, and nothing below the others is looked at any more.
	topK, least := min(s.TopK, len(matches)), math.Inf(-1)
	if s.Cut {
		least = s.Threshold
	}
	best := matches[:0]
	v, judged := verdict{}, l.Kinds != nil || s.MinCosine != nil || s.MinMargin != nil
	for i := range matches {
		m := Match{Label: i, Cosine: matches[i].Cosine, Probability: matches[i].Probability / sum}
		if m.Score = m.Probability; byCosine {
			m.Score = m.Cosine
		}
		if judged {
			if v.see(m, l.kind(i), s.Activation); l.kind(i) != Ordinary {
				continue
			}
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
	return best[:min(len(best), topK)], v.reason(s, negative)
}

// verdict is what says whether the best label fits.
type verdict struct {
	any  bool    // best is set
	best Match   // the first one in the order of matches
	next float64 // the largest probability but for that of best
}

func (v *verdict) see(m Match, kind Kind, a Activation) {
	switch {
	case kind == Ordinary && m.Score == m.Score && (!v.any || byScore(m, v.best) < 0):
		v.next = max(v.next, v.best.Probability)
		v.any, v.best = true, m
	case (kind == Ordinary || kind == Negative && a != Pair) && m.Probability > v.next:
		v.next = m.Probability
	}
}

func (v *verdict) reason(s *Scoring, negative bool) Reason {
	if s.Activation == Pair && v.any {
		negative, v.next = v.best.Probability < 0.5, max(v.next, 1-v.best.Probability)
	}
	switch {
	case negative:
		return BecauseNegative
	case !v.any:
		return ""
	case s.MinCosine != nil && v.best.Cosine < *s.MinCosine:
		return BecauseMinCosine
	case s.MinMargin != nil && v.best.Probability-v.next < *s.MinMargin:
		return BecauseMinMargin
	}
	return ""
}

// byScore orders matches by falling score, equal scores by falling cosine (far below the best,
// probabilities are all 0), then as their labels.
func byScore(a, b Match) int {
	return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.Cosine, a.Cosine), cmp.Compare(a.Label, b.Label))
}
