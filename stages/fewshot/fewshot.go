// Package fewshot makes of a few example images what new images of the same labels are recognised by. All of it is
// arithmetic on vectors in float64; it reads no image and keeps nothing.
package fewshot

import "errors"

// ErrSame says that the examples of each class are one image but for noise, so that they have no covariance: a prototype serves.
var ErrSame = errors.New("the examples of each label are all alike")

// Class is what is known of one label. All vectors of a call have the same dimension and unit length.
type Class struct {
	Text     []float32   // of its prompts; nil: none, and the normalised mean of the examples takes its place
	Examples [][]float32 // of images; empty, with Text: the class has no part in the fit and gets a neutral row
}

// Discriminant is one row and one bias a class: the logit of class k for an image is Rows[k]·embedding + Bias[k].
type Discriminant struct {
	Rows  []float32 // classes x dimension, row-major
	Bias  []float32 // classes
	Alpha float64   // weight of the examples, as given or as chosen
}

// Fit is Gaussian discriminant analysis. scale is the model's logit scale; alpha 0 has the weight of the examples chosen.
// It wants two classes or more with examples. It does not keep classes, and is safe for concurrent use.
func Fit(classes []Class, scale, alpha float64) (*Discriminant, error) { panic("to be built") }

// Prototype is the normalised mean of a text vector and the normalised mean of the examples; text may be nil.
func Prototype(text []float32, examples [][]float32) ([]float32, error) { panic("to be built") }
