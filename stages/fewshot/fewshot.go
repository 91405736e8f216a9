// Package fewshot turns a few example images of each label into rows that recognise more of them. It is arithmetic on vectors, in
// float64 inside; it reads no image and keeps nothing.
//
// Fit is the training-free classifier of Wang, Liang, Sheng, He, Wang and Tan, "A Hard-to-Beat Baseline for Training-free
// CLIP-Based Adaptation", ICLR 2024 (arXiv 2402.04087): Gaussian discriminant analysis with one covariance for all classes,
// added to CLIP's own logits.
package fewshot

import (
	"errors"
	"fmt"
	"math"
)

// ErrSame says that the examples of each class are the same but for noise, so that they have no covariance to speak of. A Prototype
// still serves.
var ErrSame = errors.New("the examples of each label are all the same")

// Class is what is known of one label. All vectors of a call have one dimension and unit length.
type Class struct {
	Text     []float32   // of its prompts; nil: the normalised mean of Examples takes its place
	Examples [][]float32 // embeddings of images; none: the class has no part in the fit, and its row is Text's alone
}

// Discriminant has a row and a bias for each class: its logit for an image is Rows[k]·embedding + Bias[k].
type Discriminant struct {
	Rows  []float32 // classes x dimension, row-major
	Bias  []float32 // classes
	Alpha float64   // weight of the examples, as given or as chosen
}

// Fit makes the rows of classes, two or more of which have examples, and one of these at least two. scale is the logit scale of the
// model; alpha is the weight of the examples, with 0 the best of Alphas by leave-one-out.
//
// With x an example, μ_k the mean of class k, K classes with examples, n examples, d dimensions, and Σ the unbiased covariance
// (division by n-1) of all x less the mean of their class:
//
//	inv = d·((n-1)·Σ + tr(Σ)·I)⁻¹    w_k = inv·μ_k    b_k = log(1/K) - ½·μ_kᵀ·inv·μ_k
//	row_k = scale·text_k + alpha·(w_k - w̄)    bias_k = alpha·(b_k - b̄)
//
// w̄ and b̄ are w and b of a class whose mean is the mean of all μ_k. The softmax over the K classes is the same without them.
// They are what a class without examples (a negative label, say) is taken to be: its row is scale·text and its bias 0, and it
// wins where an image is nearer to what all classes have in common than to any of them. And float32 loses nothing to what they
// have in common.
//
// Fit keeps no vector of classes and is safe for concurrent use. It takes milliseconds for 10 classes of 16 examples and a few
// seconds for 1,000. Errors name the class and the example by number; ErrSame is one.
func Fit(classes []Class, scale, alpha float64) (*Discriminant, error) {
	if !(alpha >= 0) || math.IsInf(alpha, 1) || math.IsNaN(scale) || math.IsInf(scale, 0) {
		return nil, fmt.Errorf("alpha is %v and scale is %v, want finite numbers, alpha not below 0", alpha, scale)
	}
	g, err := analyse(classes)
	if err != nil {
		return nil, err
	}
	if alpha == 0 {
		alpha = g.chooseAlpha(scale)
	}
	d := &Discriminant{Rows: make([]float32, len(classes)*g.dim), Bias: make([]float32, len(classes)), Alpha: alpha}
	k := 0
	for i, c := range classes {
		row := d.Rows[i*g.dim:][:g.dim]
		for j, x := range g.text[i] {
			row[j] = float32(scale * x)
		}
		if len(c.Examples) == 0 {
			continue
		}
		for j, x := range g.text[i] {
			row[j] = float32(scale*x + alpha*(g.score[k].w[j]-g.centre.w[j]))
		}
		d.Bias[i] = float32(alpha * (g.score[k].b - g.centre.b))
		k++
	}
	return d, nil
}

// Prototype is the normalised mean of text and of the normalised mean of examples; one of them may be nil. Vectors have one
// dimension and unit length.
func Prototype(text []float32, examples [][]float32) ([]float32, error) {
	dim, err := check([]Class{{text, examples}})
	if err != nil {
		return nil, err
	}
	sum := make([]float64, dim)
	for _, x := range examples {
		add(sum, x)
	}
	if len(examples) > 0 && !normalise(sum) {
		return nil, errors.New("the examples cancel each other out")
	}
	if text != nil {
		add(sum, text)
		if !normalise(sum) {
			return nil, errors.New("the text and the examples cancel each other out")
		}
	}
	p := make([]float32, dim)
	for j, x := range sum {
		p[j] = float32(x)
	}
	return p, nil
}

// check returns the dimension of all vectors of classes, or what is wrong with them.
func check(classes []Class) (dim int, err error) {
	vector := func(v []float32) error {
		if dim == 0 {
			dim = len(v)
		}
		if len(v) == 0 || len(v) != dim {
			return fmt.Errorf("dimension %d, want %d", len(v), dim)
		}
		for j, x := range v {
			if !(math.Abs(float64(x)) <= 2) {
				return fmt.Errorf("element %d is %v in a vector of unit length", j, x)
			}
		}
		return nil
	}
	for i, c := range classes {
		if c.Text == nil && len(c.Examples) == 0 {
			return 0, fmt.Errorf("class %d has neither text nor examples", i)
		}
		if c.Text != nil {
			if err := vector(c.Text); err != nil {
				return 0, fmt.Errorf("class %d, text: %w", i, err)
			}
		}
		for e, x := range c.Examples {
			if err := vector(x); err != nil {
				return 0, fmt.Errorf("class %d, example %d: %w", i, e, err)
			}
		}
	}
	return dim, nil
}

// add adds x to sum.
func add(sum []float64, x []float32) {
	for j := range x {
		sum[j] += float64(x[j])
	}
}

// normalise gives v unit length, and reports whether it has a direction.
func normalise(v []float64) bool {
	length := math.Sqrt(dot(v, v))
	if length < 1e-6 {
		return false
	}
	for j := range v {
		v[j] /= length
	}
	return true
}
