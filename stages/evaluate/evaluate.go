// Package evaluate says how well a set of labels answers, from labelled images. All of it is arithmetic on logits.
package evaluate

// None is the truth of an image that shows none of the labels.
const None = -1

// Image is one labelled image and how it was scored.
type Image struct {
	Truth   int       // the label that it shows, by number, or None
	Logits  []float64 // of the labels that may be answers and then of the negative ones, at temperature 1
	Scores  []float64 // what thresholds are compared with, of the labels that may be answers; nil: their probabilities
	Matched bool      // whether a label was said to fit
}

// Options say how the images were scored and what is wanted.
type Options struct {
	Labels      int     // that may be answers: the first of Logits
	Independent bool    // a probability is the sigmoid of its logit (activations sigmoid and pair), not the softmax of all
	Temperature float64 // of the set as it is
	Precision   float64 // that thresholds are to have, above 0 and at most 1
}

// Report is the answer. Ratios without a single image behind them are nil.
type Report struct {
	Images      int
	Accuracy    float64      // the share of images that were answered as they should; of None: not matched
	Confusion   [][]int      // [truth][answer]; the last row is None, the last column "not matched"
	Recall      []*float64   // by label
	Precision   []*float64   // by label
	Thresholds  []*Threshold // by label, for the temperature After if there is one; nil: no score has the precision
	Before      float64      // expected calibration error at Options.Temperature
	After       *float64     // at Temperature
	Temperature *float64     // that fits the images best; nil: see Reason
	Reason      string       // why there is no Temperature
}

// Threshold is the lowest score from which on a label is right often enough.
type Threshold struct {
	Score     float64 // at or above it
	Precision float64 // share of the images at or above Score that show the label
	Recall    float64 // share of the images of the label that are at or above Score
}

// Evaluate makes the report. Errors name the first image that does not fit the options.
func Evaluate(images []Image, o Options) (*Report, error) { panic("to be built") }
