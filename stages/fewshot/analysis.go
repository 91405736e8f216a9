package fewshot

import (
	"errors"
	"fmt"
)

// leastSpread is the least tr(Σ) that is worth the name: the squared distance of an example from the mean of its class, which is
// 0.05 to 0.5 where images differ, 0.001 between frames of a still camera, and below 1e-12 for copies.
const leastSpread = 1e-5

// analysis is a discriminant analysis: of Fit's classes, all counts are of those that have examples.
type analysis struct {
	dim     int
	text    [][]float64 // of all of Fit's classes
	of      []int       // by class: its number among all
	x       [][]float32 // examples, class by class
	class   []int       // of each example
	ownText []bool      // by class: Text was given, not made of the examples
	count   []int       // examples by class
	mean    [][]float64 // by class
	score   []linear    // by class
	centre  linear      // of a class whose mean is the mean of all
	inv     *ridge      // x -> ((n-1)·Σ + tr(Σ)·I)⁻¹·x
}

// linear is a score w·x + b.
type linear struct {
	w []float64
	b float64
}

func analyse(classes []Class) (*analysis, error) {
	dim, err := check(classes)
	if err != nil {
		return nil, err
	}
	a := &analysis{dim: dim}
	for i, c := range classes {
		text := make([]float64, dim)
		if c.Text != nil {
			add(text, c.Text)
		}
		a.text = append(a.text, text)
		if len(c.Examples) == 0 {
			continue
		}
		mean := make([]float64, dim)
		for _, x := range c.Examples {
			add(mean, x)
			a.x, a.class = append(a.x, x), append(a.class, len(a.mean))
		}
		if c.Text == nil {
			if copy(text, mean); !normalise(text) {
				return nil, fmt.Errorf("class %d: the examples cancel each other out", i)
			}
		}
		for j := range mean {
			mean[j] /= float64(len(c.Examples))
		}
		a.of, a.count, a.mean = append(a.of, i), append(a.count, len(c.Examples)), append(a.mean, mean)
		a.ownText = append(a.ownText, c.Text != nil)
	}
	if len(a.mean) < 2 || len(a.x) == len(a.mean) {
		return nil, errors.New("want examples of two classes or more, and two of one of them")
	}
	spread, v := 0.0, make([]float64, dim)
	for i := range a.x {
		a.centred(i, v)
		spread += dot(v, v)
	}
	spread /= float64(len(a.x) - 1)
	if spread < leastSpread {
		return nil, ErrSame
	}
	if a.inv, err = newRidge(len(a.x), dim, spread, a.centred); err != nil {
		return nil, err
	}
	mean := make([]float64, dim)
	for _, m := range a.mean {
		a.score = append(a.score, a.scoreOf(m))
		axpy(mean, 1/float64(len(a.mean)), m)
	}
	a.centre = a.scoreOf(mean)
	return a, nil
}

// centred sets v to example i less the mean of its class.
func (a *analysis) centred(i int, v []float64) {
	mean := a.mean[a.class[i]]
	for j, x := range a.x[i] {
		v[j] = float64(x) - mean[j]
	}
}

// scoreOf is the score of a class of that mean, without log(1/K), which is the same for all.
func (a *analysis) scoreOf(mean []float64) linear {
	w := a.inv.solve(mean)
	for j := range w {
		w[j] *= float64(a.dim)
	}
	return linear{w, -dot(mean, w) / 2}
}
