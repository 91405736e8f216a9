// Package evaluate says how well a set of labels answers, from labelled images, and what temperature and thresholds suit it. It is
// arithmetic on logits; it reads no image and keeps nothing.
package evaluate

import (
	"errors"
	"fmt"
	"math"
)

// None is the truth of an image that shows none of the labels.
const None = -1

// Image is one labelled image and how it was scored.
type Image struct {
	Truth   int                                 // the label that it shows, by number, or None
	Logits  []float64                           // of the labels that may be answers, then of the negative ones, not divided by a temperature
	At      func(temperature float64) []float64 // Logits at that temperature, to be read until the next call; nil: they are the same at all
	Scores  []float64                           // what thresholds are compared with, of the labels that may be answers; nil: their probabilities
	Matched bool                                // whether a label was said to fit; the one with the highest logit is then the answer
}

func (i *Image) at(temperature float64) []float64 {
	if i.At == nil {
		return i.Logits
	}
	return i.At(temperature)
}

// Options say how the images were scored, and what is wanted.
type Options struct {
	Labels      int     // labels that may be answers: the first of Image.Logits
	Independent bool    // a probability is the sigmoid of its logit (activations sigmoid and pair), not the softmax of all
	Temperature float64 // that the set divides its logits by now
	Precision   float64 // that thresholds must reach, above 0 and at most 1
}

// Report is what came of the images. A ratio with nothing below it is nil.
type Report struct {
	Accuracy    float64      // share of the images that were answered with their label, or not matched if they show none
	Confusion   [][]int      // images by [truth][answer], Labels+1 of each: the last row shows none of the labels, the last column was not matched
	Recall      []*float64   // by label: share of its images that were answered with it
	Precision   []*float64   // by label: share of its answers that were right
	Temperature *float64     // the best one; nil: see Reason
	Reason      string       // why there is no Temperature
	Before      float64      // expected calibration error at Options.Temperature
	After       *float64     // expected calibration error at Temperature
	Thresholds  []*Threshold // by label, of scores at Temperature, or at Options.Temperature without one; nil: none is precise enough
}

// Threshold is the lowest score that is precise enough. It was chosen on the same images, so that others are a little worse.
type Threshold struct {
	Score     float64 `json:"score"`     // an image shows the label if its score is this or more
	Precision float64 `json:"precision"` // share of the images with such a score that do show it
	Recall    float64 `json:"recall"`    // share of the label's images that have such a score
}

// Evaluate makes the report of one image or more. It is safe for concurrent use. Errors name the image by number.
func Evaluate(images []Image, o Options) (*Report, error) {
	if err := check(images, o); err != nil {
		return nil, err
	}
	r := &Report{Recall: make([]*float64, o.Labels), Precision: make([]*float64, o.Labels), Thresholds: make([]*Threshold, o.Labels)}
	for range o.Labels + 1 {
		r.Confusion = append(r.Confusion, make([]int, o.Labels+1))
	}
	right := 0
	for _, image := range images {
		truth, answer := image.Truth, o.Labels
		if truth == None {
			truth = o.Labels
		}
		if image.Matched {
			answer = best(image.Logits[:o.Labels])
		}
		r.Confusion[truth][answer]++
		if truth == answer {
			right++
		}
	}
	r.Accuracy = float64(right) / float64(len(images))
	for k := range o.Labels {
		shown, answered := 0, 0
		for i := range r.Confusion {
			shown += r.Confusion[k][i]
			answered += r.Confusion[i][k]
		}
		r.Recall[k], r.Precision[k] = ratio(r.Confusion[k][k], shown), ratio(r.Confusion[k][k], answered)
	}
	temperature := o.Temperature
	r.Before = calibrationError(images, o, temperature)
	if t, reason := fitTemperature(images, o); reason != "" {
		r.Reason = reason
	} else {
		after := calibrationError(images, o, t)
		r.Temperature, r.After, temperature = &t, &after, t
	}
	scores := make([][]float64, len(images))
	for i, image := range images {
		if scores[i] = image.Scores; scores[i] == nil {
			scores[i] = probabilities(image.at(temperature), o, temperature)
		}
	}
	for k := range o.Labels {
		r.Thresholds[k] = threshold(images, scores, k, o.Precision)
	}
	return r, nil
}

func check(images []Image, o Options) error {
	switch {
	case len(images) == 0:
		return errors.New("there are no images to evaluate")
	case o.Labels < 1:
		return errors.New("there are no labels that may be answers")
	case !(o.Temperature > 0) || math.IsInf(o.Temperature, 1):
		return fmt.Errorf("the temperature is %v", o.Temperature)
	case !(o.Precision > 0 && o.Precision <= 1):
		return fmt.Errorf("the wanted precision is %v, which is not above 0 and at most 1", o.Precision)
	}
	for i, image := range images {
		if image.Truth != None && (image.Truth < 0 || image.Truth >= o.Labels) {
			return fmt.Errorf("image %d: there is no label %d", i, image.Truth)
		}
		if n := len(image.Logits); n < o.Labels || n != len(images[0].Logits) {
			return fmt.Errorf("image %d: %d logits, want %d", i, n, max(o.Labels, len(images[0].Logits)))
		}
		if n := len(image.Scores); image.Scores != nil && n != o.Labels {
			return fmt.Errorf("image %d: %d scores, want %d", i, n, o.Labels)
		}
		for _, x := range append(image.Logits[:len(image.Logits):len(image.Logits)], image.Scores...) {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return fmt.Errorf("image %d: a logit or score is %v", i, x)
			}
		}
	}
	return nil
}

// best is the number of the highest value, of equal ones the first.
func best(values []float64) (at int) {
	for i, v := range values {
		if v > values[at] {
			at = i
		}
	}
	return at
}

func ratio(part, whole int) *float64 {
	if whole == 0 {
		return nil
	}
	r := float64(part) / float64(whole)
	return &r
}
