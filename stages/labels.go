package stages

import "fmt"

// Labels is what an image is compared with. Immutable while a request has it; shared between requests.
type Labels struct {
	N    int       // labels
	Rows []float32 // rows x dimension, row-major, of unit length

	// Of is the label of each row, rising; nil: row i is that of label i. The cosine of a label is the largest of its rows',
	// of which it has one at least.
	Of []int32

	// Logits and Bias, N x dimension and N, make Logits[i]·embedding + Bias[i] the logit of label i, instead of what
	// Scoring makes of its cosine; nil: they do not.
	Logits, Bias []float32

	// Kinds says what each label is for; nil: all are ordinary.
	Kinds []Kind

	// Negations is, with the activation Pair, the label of kind Negation that stands against each; -1 for none: then all
	// negative labels together stand against it. nil: -1 for all.
	Negations []int32
}

// fit says what does not fit embeddings of a dimension. The labels that Of and Negations name are not looked at.
func (l *Labels) fit(dim int) error {
	rows := l.N
	if l.Of != nil {
		rows = len(l.Of)
	}
	for _, list := range []struct {
		name      string
		got, want int
		optional  bool
	}{
		{"Rows", len(l.Rows), rows * dim, false},
		{"Logits", len(l.Logits), l.N * dim, l.Logits == nil && l.Bias == nil},
		{"Bias", len(l.Bias), l.N, l.Logits == nil && l.Bias == nil},
		{"Kinds", len(l.Kinds), l.N, l.Kinds == nil},
		{"Negations", len(l.Negations), l.N, l.Negations == nil},
	} {
		if list.got != list.want && !list.optional {
			return fmt.Errorf("%d %s of labels, want %d for embeddings of %d", list.got, list.name, list.want, dim)
		}
	}
	return nil
}

func (l *Labels) kind(i int) Kind {
	if l.Kinds == nil {
		return Ordinary
	}
	return l.Kinds[i]
}

// Ordinary says whether there is a label i, and it may be an answer.
func (l *Labels) Ordinary(i int) bool { return i < l.N && l.kind(i) == Ordinary }

// ByCosine says that the score of a label is its cosine, and not its probability.
func (l *Labels) ByCosine(a Activation) bool {
	competing := l.N
	for _, k := range l.Kinds {
		if k == Negation {
			competing--
		}
	}
	return a == None || a == Softmax && competing == 1
}

// Kind is what a label is for.
type Kind uint8

// Kinds of labels.
const (
	Ordinary Kind = iota // may be an answer
	Negative             // joins the softmax and is never in the matches
	Negation             // stands against one label, with the activation Pair; takes part in nothing else
)

// Activation says how logits become probabilities.
type Activation uint8

// Activations.
const (
	Softmax Activation = iota // over all labels, negative ones included; the score is the probability, of one label alone the cosine
	Sigmoid                   // of each label by itself; the score is the probability
	Pair                      // softmax of each label and what stands against it, two by two; the score is the probability
	None                      // as Softmax, but the score is the cosine
)

// Reason says why no label fits.
type Reason string

// Reasons; "" says that one does.
const (
	BecauseNegative  Reason = "negative"   // a negative label, or what stands against the best label, is more likely than it
	BecauseMinCosine Reason = "min_cosine" // the best label's cosine is below Scoring.MinCosine
	BecauseMinMargin Reason = "min_margin" // the best label's probability is not Scoring.MinMargin above the next one's
)
