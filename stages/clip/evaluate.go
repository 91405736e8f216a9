package clip

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"hailoclip/cache/sets"
	"hailoclip/stages"
	"hailoclip/stages/evaluate"
)

// Background stands for none of the labels, as the label of an image, unless a label has that name.
const Background = "background"

// Trial is labelled images that a prompt set is to classify.
type Trial struct {
	// Labels are those that the images show. "", Background and the name of a negative label say that an image shows none.
	Labels    []string
	Open      func(i int) ([]byte, error) // image i, as Batch.Open
	Precision float64                     // that thresholds are to reach, above 0 and at most 1
}

// Evaluation says how well a prompt set answers.
type Evaluation struct {
	Set    *PromptSet // the version that has answered
	Labels []string   // those that may be answers; numbers of labels in Report count these
	*evaluate.Report
	Images int       // of which Report tells
	Failed []Failure // images that it does not tell of
}

// Failure is why an image could not be classified.
type Failure struct {
	Image int
	Err   error
}

// Evaluate has the set r.PromptSet classify images whose labels are known. They enter as those of ClassifyBatch do; one that
// fails is left out. All are classified by the same version of the set. It blocks until that is done or ctx ends.
//
// Errors: sets.Fault for a label that the set has not, those of PromptSets.Ready, the first image's where none could
// be classified, the cause of ctx when that has ended.
func (e *Engine) Evaluate(ctx context.Context, r Request, t Trial) (*Evaluation, error) {
	set, err := e.PromptSets().Ready(r.PromptSet)
	if err != nil {
		return nil, err
	}
	s := newSubject(set)
	truths, err := s.truths(t.Labels)
	if err != nil {
		return nil, err
	}
	v := &Evaluation{Set: set, Labels: set.Names[:s.answers]}
	images, errs := make([]evaluate.Image, len(truths)), make([]error, len(truths))
	err = e.each(ctx, r, Batch{
		Len: len(truths), Open: t.Open,
		Done: func(i int, result Result, err error) {
			if errs[i] = err; err == nil {
				images[i] = s.image(truths[i], result.Result)
			}
		},
	}, func(r *Request) (Result, error) {
		return e.run(ctx, r, stages.Request{Labels: &set.Labels, Scoring: s.scoring, Logits: true})
	})
	if err != nil {
		return nil, late(ctx, err)
	}
	var usable []evaluate.Image
	for i, image := range images {
		if errs[i] != nil {
			v.Failed = append(v.Failed, Failure{i, errs[i]})
		} else {
			usable = append(usable, image)
		}
	}
	if v.Images = len(usable); v.Images == 0 && len(v.Failed) > 0 {
		return nil, fmt.Errorf("none of the images can be classified: image %d: %w", v.Failed[0].Image, v.Failed[0].Err)
	}
	v.Report, err = evaluate.Evaluate(usable, evaluate.Options{
		Labels: s.answers, Independent: s.independent(), Temperature: s.scoring.Temperature, Precision: t.Precision,
	})
	return v, err
}

// Calibration is what PromptSets.Calibrate stores of v: thresholds of the labels that have one, and the temperature that fits
// best, 0 where none does. A label stops to hold where it begins to, unless the set has it stop lower. One for which no
// threshold was found keeps what it has unless the temperature changes, and with it all scores.
func (v *Evaluation) Calibration() (thresholds map[string]*sets.Threshold, temperature float64) {
	if v.Temperature != nil {
		temperature = *v.Temperature
	}
	thresholds = map[string]*sets.Threshold{}
	for i, t := range v.Thresholds {
		if t == nil {
			if temperature > 0 && temperature != cmp.Or(v.Set.Scoring.Temperature, 1) {
				thresholds[v.Labels[i]] = nil
			}
			continue
		}
		at := &sets.Threshold{Enter: t.Score, Exit: t.Score}
		if now := v.Set.Thresholds[i]; now != nil {
			at.Exit = min(at.Exit, now.Exit)
		}
		thresholds[v.Labels[i]] = at
	}
	return thresholds, temperature
}

// subject is a set that is evaluated. Its labels are first those that may be answers, then the negative ones.
type subject struct {
	*PromptSet
	scoring           stages.Scoring // with all matches and a temperature
	answers, negative int            // how many of each
}

func newSubject(set *PromptSet) *subject {
	s := &subject{PromptSet: set, scoring: set.Scoring, answers: set.Labels.N}
	s.scoring.TopK, s.scoring.Temperature = set.Labels.N, cmp.Or(s.scoring.Temperature, 1)
	for _, kind := range set.Labels.Kinds {
		if kind != stages.Ordinary {
			s.answers--
		}
		if kind == stages.Negative {
			s.negative++
		}
	}
	return s
}

// truths returns the numbers of labels, as package evaluate has them.
func (s *subject) truths(labels []string) ([]int, error) {
	numbers := map[string]int{"": evaluate.None, Background: evaluate.None}
	for i := s.answers + s.negative - 1; i >= 0; i-- { // a label that may be an answer may have the name of another
		if numbers[s.Names[i]] = i; i >= s.answers {
			numbers[s.Names[i]] = evaluate.None
		}
	}
	truths := make([]int, len(labels))
	for i, label := range labels {
		n, ok := numbers[label]
		if !ok {
			return nil, sets.Fault{Problem: fmt.Sprintf("image %d has the label %.64q, which is none of the set's", i, label)}
		}
		truths[i] = n
	}
	return truths, nil
}

// independent says that a probability is the sigmoid of a logit.
func (s *subject) independent() bool {
	return s.scoring.Activation == stages.Sigmoid || s.scoring.Activation == stages.Pair
}

// image is what package evaluate wants to know of an image.
func (s *subject) image(truth int, r stages.Result) evaluate.Image {
	compared := s.answers
	if !s.independent() {
		compared += s.negative
	}
	image := evaluate.Image{Truth: truth, Matched: r.Reason == "", Logits: r.Logits[:compared]}
	if s.scoring.Activation == stages.Pair { // how much several negative labels weigh together depends on the temperature
		odds := make([]float64, len(r.Logits))
		image.At = func(temperature float64) []float64 {
			copy(odds, r.Logits)
			s.Labels.Odds(odds, temperature)
			return odds[:compared]
		}
		image.Logits = slices.Clone(image.At(s.scoring.Temperature))
	}
	if s.Labels.ByCosine(s.scoring.Activation) {
		image.Scores = make([]float64, s.answers)
		for _, m := range r.Matches {
			image.Scores[m.Label] = m.Score
		}
	}
	return image
}
