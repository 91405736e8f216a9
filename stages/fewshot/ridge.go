package fewshot

import (
	"errors"
	"math"
)

// ridge solves (VᵀV + t·I)·y = x for a matrix V of rows x dim and t > 0. It holds the Cholesky factor of the smaller one of VᵀV
// + t·I and VVᵀ + t·I; for fewer rows than dimensions, y = (x - Vᵀ·(VVᵀ + t·I)⁻¹·V·x) / t (Woodbury).
type ridge struct {
	t     float64
	v     []float64 // rows x dim; nil unless rows < dim
	size  int
	lower []float64 // size x size, row-major; only j <= i is set
}

// newRidge reads V row by row: row sets its second argument to the row of that number.
func newRidge(rows, dim int, t float64, row func(int, []float64)) (*ridge, error) {
	r := &ridge{t: t, size: min(rows, dim)}
	r.lower = make([]float64, r.size*r.size)
	if rows < dim {
		r.v = make([]float64, rows*dim)
		for i := range rows {
			row(i, r.v[i*dim:][:dim])
		}
		r.addGram(r.v, dim)
	} else {
		// VᵀV is the sum of what blocks of rows contribute, each of which fits into a processor's cache.
		const block = 256
		v, columns := make([]float64, dim), make([]float64, dim*block)
		for first := 0; first < rows; first += block {
			clear(columns)
			for i := range min(block, rows-first) {
				row(first+i, v)
				for j, x := range v {
					columns[j*block+i] = x
				}
			}
			r.addGram(columns, block)
		}
	}
	for i := range r.size {
		r.lower[i*r.size+i] += t
	}
	return r, r.factor()
}

// addGram adds the product of each two rows of m, size x width.
func (r *ridge) addGram(m []float64, width int) {
	for i := range r.size {
		a := m[i*width:][:width]
		for j := range i + 1 {
			r.lower[i*r.size+j] += dot(a, m[j*width:][:width])
		}
	}
}

// factor replaces the matrix by its Cholesky factor.
func (r *ridge) factor() error {
	for i := range r.size {
		row := r.lower[i*r.size:][:r.size]
		for j := range i {
			other := r.lower[j*r.size:][:r.size]
			row[j] = (row[j] - dot(row[:j], other[:j])) / other[j]
		}
		pivot := row[i] - dot(row[:i], row[:i])
		if !(pivot > 0) {
			return errors.New("the covariance of the examples is not positive definite")
		}
		row[i] = math.Sqrt(pivot)
	}
	return nil
}

// solve returns y for x.
func (r *ridge) solve(x []float64) []float64 {
	y := append([]float64(nil), x...)
	if r.v == nil {
		r.substitute(y)
		return y
	}
	z := make([]float64, r.size)
	for i := range z {
		z[i] = dot(r.v[i*len(x):][:len(x)], x)
	}
	r.substitute(z)
	for i, s := range z {
		axpy(y, -s, r.v[i*len(x):][:len(x)])
	}
	for j := range y {
		y[j] /= r.t
	}
	return y
}

// substitute solves with the factor, in place.
func (r *ridge) substitute(y []float64) {
	for i := range y {
		row := r.lower[i*r.size:][:r.size]
		y[i] = (y[i] - dot(row[:i], y[:i])) / row[i]
	}
	for i := len(y) - 1; i >= 0; i-- {
		row := r.lower[i*r.size:][:r.size]
		y[i] /= row[i]
		axpy(y[:i], -y[i], row[:i])
	}
}

// dot is the scalar product of two vectors of one length. Four sums let the processor overlap the additions.
func dot(a, b []float64) float64 {
	var s0, s1, s2, s3 float64
	b = b[:len(a)]
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + (s2 + s3)
}

// axpy adds s·x to y.
func axpy(y []float64, s float64, x []float64) {
	x = x[:len(y)]
	for i := range y {
		y[i] += s * x[i]
	}
}
