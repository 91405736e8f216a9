package stages

// Labels is what an image is compared with. Immutable while a request has it; shared between requests.
type Labels struct {
	N    int       // labels
	Rows []float32 // rows x dimension, row-major, of unit length

	// Of is the label of each row, rising; nil: row i is that of label i. The cosine of a label is the largest of its rows'.
	Of []int32

	// Logits and Bias replace LogitScale x cosine as the logit of a label, by Logits[i]·embedding + Bias[i] (N x dimension, and
	// N); nil: they do not.
	Logits, Bias []float32

	// Kinds says what each label is for; nil: all are ordinary.
	Kinds []Kind

	// Negations is, with the activation Pair, the label of kind Negation that stands against each; -1 for none: then the
	// background stands against it. nil: -1 for all.
	Negations []int32
}

// Kind is what a label is for.
type Kind uint8

// Kinds of labels.
const (
	Ordinary Kind = iota // may be an answer
	Negative             // joins the softmax and is never in the matches
	Negation             // stands against one label, with the activation Pair only
)

// Activation says how logits become probabilities.
type Activation uint8

// Activations.
const (
	Softmax Activation = iota // over all labels, negative ones included; the score is the probability, with one label in all the cosine
	Sigmoid                   // of each label by itself: LogitBias is the model's
	Pair                      // softmax of each label and what stands against it, two by two
	None                      // as Softmax, but the score is the cosine
)

// Reason says why no label fits.
type Reason string

// Reasons; "" says that one does.
const (
	BecauseNegative  Reason = "negative"   // a negative label, or the negation, is more likely than the best label
	BecauseMinCosine Reason = "min_cosine" // the best label's cosine is below Scoring.MinCosine
	BecauseMinMargin Reason = "min_margin" // the best label's probability is less than Scoring.MinMargin above the next one's
)
