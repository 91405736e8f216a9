package clip

import (
	"errors"
	"fmt"
	"slices"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/stages"
	"hailoclip/stages/fewshot"
)

// setLabel is a label of a version of a set.
type setLabel struct {
	sets.Entry
	threshold *sets.Threshold
	vectors   [][]float32 // of Examples, of unit length, by the image encoder in use

	encoder   string    // whose rows are in rows: its digest
	rows      []float32 // the normalised mean of the texts of each row; nil: not encoded yet, or there are no texts
	truncated int       // texts of which the model has read the beginning only
}

// where names the label in a message.
func (l *setLabel) where() string {
	what := "label"
	switch l.Role {
	case sets.Negation:
		what = "the negation of label"
	case sets.Negative:
		what = "the negative"
	}
	return fmt.Sprintf("%s %.64q", what, l.Name)
}

// texts counts them.
func (l *setLabel) texts() (n int) {
	for _, group := range l.Groups {
		n += len(group)
	}
	return n
}

// row is the number of the row that the texts of a group go into.
func (l *setLabel) row(group int) int {
	if l.Max {
		return group
	}
	return 0
}

var kinds = map[sets.Role]stages.Kind{
	sets.Ordinary: stages.Ordinary, sets.Negative: stages.Negative, sets.Negation: stages.Negation,
}

// text is the label's one text vector, nil without texts.
func (l *setLabel) text(dim int) ([]float32, error) {
	if len(l.rows) <= dim {
		return l.rows, nil
	}
	sum := make([]float32, dim)
	for i, x := range l.rows {
		sum[i%dim] += x
	}
	if err := hailo.Normalize(sum, sum); err != nil {
		return nil, fmt.Errorf("%s: its prompts cancel each other out: %w", l.where(), err)
	}
	return sum, nil
}

// Values of PromptSet.ScoreSource.
const (
	fromText      = "text"
	fromPrototype = "prototype"
	fromGDA       = "gda"
)

// instead says what is done where examples cannot be used as the definition wants it.
var instead = map[string]string{fromText: "texts alone count", fromPrototype: "prototypes are used"}

// scoreSource says how examples are used, and why not as mode demands, "" when they are. Gaussian discriminant analysis
// needs two ordinary labels or more, each with two examples or more.
func scoreSource(mode string, labels []setLabel) (source, why string) {
	most, least, ordinary := 0, -1, 0 // examples, examples of an ordinary label, ordinary labels
	var short string
	for i := range labels {
		n := len(labels[i].vectors)
		most = max(most, n)
		if labels[i].Role != sets.Ordinary {
			continue
		}
		if ordinary++; least < 0 || n < least {
			least, short = n, labels[i].where()
		}
	}
	switch gda := ordinary >= 2 && least >= 2; {
	case mode == "off", most == 0:
		source = fromText
	case mode != "prototype" && gda:
		return fromGDA, ""
	default:
		source = fromPrototype
	}
	switch {
	case mode != "gda":
	case ordinary < 2:
		why = "fewshot.mode: gda needs two labels"
	default:
		why = fmt.Sprintf("fewshot.mode: gda needs two examples of every label, and %s has %d", short, least)
	}
	return source, why
}

// compiled is what images are compared with, and how it has come to that.
type compiled struct {
	stages.Labels
	source   string   // text, prototype or gda
	alpha    float64  // weight of the examples, with gda
	warnings []string // of what is not as the definition wants it
}

// compile makes rows of labels whose texts and examples are encoded, and with gda the rows and the bias that stand for logits.
// fit is fewshot.Fit for one model and weight, or what remembers its results.
func compile(
	labels []setLabel, dim int, mode string, fit func([]fewshot.Class) (*fewshot.Discriminant, error),
) (l compiled, err error) {
	source, why := scoreSource(mode, labels)
	if why != "" {
		l.warnings = append(l.warnings, why+": "+instead[source])
	}
	if source == fromGDA {
		var d *fewshot.Discriminant
		classes, err := classesOf(labels, dim)
		if err == nil {
			d, err = fit(classes)
		}
		switch {
		case errors.Is(err, fewshot.ErrSame):
			source = fromPrototype
			l.warnings = append(l.warnings, err.Error()+": "+instead[source])
		case err != nil:
			return l, err
		default:
			l.Logits, l.Bias, l.alpha = d.Rows, d.Bias, d.Alpha
		}
	}
	l.source, l.N, l.Kinds = source, len(labels), make([]stages.Kind, len(labels))
	single := true
	for i := range labels {
		rows, err := labels[i].compared(source, dim)
		if err != nil {
			return l, err
		}
		single = single && len(rows) == dim
		for range len(rows) / dim {
			l.Of = append(l.Of, int32(i))
		}
		l.Rows = append(l.Rows, rows...)
		l.Kinds[i] = kinds[labels[i].Role]
		if labels[i].Role == sets.Negation {
			if l.Negations == nil {
				l.Negations = slices.Repeat([]int32{-1}, len(labels))
			}
			l.Negations[labels[i].Against] = int32(i)
		}
	}
	if single {
		l.Of = nil
	}
	l.Rows = append(make([]float32, 0, len(l.Rows)), l.Rows...) // no more memory than they need
	return l, nil
}

// compared returns the rows whose cosine is the label's. With examples that is one: of a label without texts it always is
// their mean.
func (l *setLabel) compared(source string, dim int) ([]float32, error) {
	if len(l.vectors) == 0 || source == fromText && l.rows != nil {
		return l.rows, nil
	}
	text, err := l.text(dim)
	if err != nil {
		return nil, err
	}
	row, err := fewshot.Prototype(text, l.vectors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.where(), err)
	}
	return row, nil
}

// classesOf is what the discriminant is fitted to: a class a label. Examples of a label that is not ordinary count from two on;
// one alone is as good as a text.
func classesOf(labels []setLabel, dim int) ([]fewshot.Class, error) {
	classes := make([]fewshot.Class, len(labels))
	for i := range labels {
		l := &labels[i]
		var err error
		if len(l.vectors) == 1 {
			classes[i].Text, err = l.compared(fromPrototype, dim)
		} else {
			classes[i].Examples = l.vectors
			classes[i].Text, err = l.text(dim)
		}
		if err != nil {
			return nil, err
		}
	}
	return classes, nil
}

const (
	tooClose    = 0.9     // cosine of a negative label and another from which on it takes images of that
	comparisons = 1 << 20 // that closeNegatives makes at most: half a second with rows of 512 numbers
	maxWarnings = 20      // of one kind
)

// closeNegatives warns of negative labels that mean nearly the same as an ordinary one. A label of very many rows is
// judged by its first ones.
func closeNegatives(labels []setLabel, l *stages.Labels, dim int) (warnings []string) {
	of := func(row int) int {
		if l.Of == nil {
			return row
		}
		return int(l.Of[row])
	}
	rows, left := len(l.Rows)/dim, comparisons
	type pair struct{ negative, label int }
	closest := map[pair]float64{}
	var order []pair
	for n := range rows {
		if labels[of(n)].Role != sets.Negative {
			continue
		}
		for i := 0; i < rows && left > 0; i++ {
			if labels[of(i)].Role != sets.Ordinary {
				continue
			}
			left--
			cosine := hailo.Dot(l.Rows[n*dim:][:dim], l.Rows[i*dim:][:dim])
			at := pair{of(n), of(i)}
			if before, ok := closest[at]; cosine > tooClose && cosine > before {
				if closest[at] = cosine; !ok {
					order = append(order, at)
				}
			}
		}
	}
	for _, at := range order {
		n, i := &labels[at.negative], &labels[at.label]
		warnings = append(warnings, fmt.Sprintf("%s is close to %s (cosine %.2f) and may take its images",
			n.where(), i.where(), closest[at]))
	}
	return some(warnings)
}

// cutTexts warns of texts that are longer than the model reads.
func cutTexts(labels []setLabel) (warnings []string) {
	for i := range labels {
		if n := labels[i].truncated; n > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %d texts are longer than the model reads and are cut", labels[i].where(), n))
		}
	}
	return some(warnings)
}

// some cuts a list of warnings.
func some(warnings []string) []string {
	if n := len(warnings) - maxWarnings; n > 0 {
		warnings = append(warnings[:maxWarnings], fmt.Sprintf("and %d more like the last one", n))
	}
	return warnings
}
