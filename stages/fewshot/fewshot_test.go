package fewshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// golden is a case of testdata/golden.py, which computes in another language what this package does.
type golden struct {
	Name     string
	Scale    float64
	Text     [][]float32
	Labels   []int
	Examples [][]float32
	W        [][]float64
	B        []float64
	Centre   float64 // b of a class whose mean is the mean of all
	Losses   [len(Alphas)]float64
}

func (g golden) classes() []Class {
	classes := make([]Class, len(g.Text))
	for k, text := range g.Text {
		classes[k].Text = text
	}
	for i, k := range g.Labels {
		classes[k].Examples = append(classes[k].Examples, g.Examples[i])
	}
	return classes
}

func goldens(t *testing.T) (cases []golden) {
	data, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(data, &cases)
	}
	if err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	return cases
}

// near fails the test if got differs from want by more than by, or in a number that is none.
func near(t *testing.T, what string, got, want, by float64) float64 {
	t.Helper()
	if !(math.Abs(got-want) <= by) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
	return math.Abs(got - want)
}

func TestGolden(t *testing.T) {
	const tolerance = 1e-4
	for _, c := range goldens(t) {
		t.Run(c.Name, func(t *testing.T) {
			a, err := analyse(c.classes())
			if err != nil {
				t.Fatal(err)
			}
			d, err := Fit(c.classes(), c.Scale, 0.1)
			if err != nil {
				t.Fatal(err)
			}
			k, dim := float64(len(c.Text)), len(c.Text[0])
			worst := 0.0
			for i := range c.W {
				wMean := make([]float64, dim)
				for n := range c.W {
					for j := range wMean {
						wMean[j] += c.W[n][j] / k
					}
				}
				worst = max(worst, near(t, fmt.Sprintf("b of %d", i), a.score[i].b-math.Log(k), c.B[i], tolerance),
					near(t, fmt.Sprintf("bias of %d", i), float64(d.Bias[i]), 0.1*(c.B[i]-c.Centre), tolerance))
				for j := range dim {
					row := c.Scale*float64(c.Text[i][j]) + 0.1*(c.W[i][j]-wMean[j])
					worst = max(worst, near(t, fmt.Sprintf("w of %d at %d", i, j), a.score[i].w[j], c.W[i][j], tolerance),
						near(t, fmt.Sprintf("row of %d at %d", i, j), float64(d.Rows[i*dim+j]), row, tolerance))
				}
			}
			for n, loss := range a.losses(c.Scale) {
				near(t, fmt.Sprintf("loss of alpha %v", Alphas[n]), loss, c.Losses[n], tolerance)
			}
			t.Logf("max difference %.1e", worst)
		})
	}
}

// The softmax is that of the authors' rows, and a class without examples counts as one in the middle of the others.
func TestProbabilitiesAreThoseOfTheFormula(t *testing.T) {
	const alpha = 0.1
	for _, c := range goldens(t) {
		r := rand.New(rand.NewPCG(1, 2))
		dim, neutral := len(c.Text[0]), unit(r, len(c.Text[0]))
		d, err := Fit(append(c.classes(), Class{Text: neutral}), c.Scale, alpha)
		if err != nil {
			t.Fatal(err)
		}
		x := unit(r, dim)
		got, want := make([]float64, len(c.W)+1), make([]float64, len(c.W)+1)
		for k := range got {
			got[k] = float64(d.Bias[k]) + product(d.Rows[k*dim:][:dim], x)
		}
		last := len(c.W)
		for k := range c.W {
			wx := 0.0
			for j := range x {
				wx += alpha * c.W[k][j] * float64(x[j])
			}
			want[k] = c.Scale*product(c.Text[k], x) + wx + alpha*c.B[k]
			want[last] += wx / float64(last)
		}
		want[last] += c.Scale*product(neutral, x) + alpha*c.Centre
		for k := range got {
			near(t, c.Name, surprise(got, k, 1), surprise(want, k, 1), 1e-4)
		}
	}
}

// brute is leaveOut by a fit without the example, with the inverse by elimination.
func brute(classes []Class, class, example int, ridge float64) (cosine, score []float64) {
	dim := len(classes[class].Examples[0])
	x := classes[class].Examples[example]
	var means [][]float64
	var of []int
	matrix := make([][]float64, dim)
	for j := range matrix {
		matrix[j] = make([]float64, dim)
		matrix[j][j] = ridge
	}
	cosine, score = make([]float64, len(classes)), make([]float64, len(classes))
	for k, c := range classes {
		var rest [][]float32
		for e, v := range c.Examples {
			if k != class || e != example {
				rest = append(rest, v)
			}
		}
		text := c.Text
		if text == nil {
			text, _ = Prototype(nil, rest)
		}
		cosine[k] = product(text, x)
		if len(rest) == 0 {
			continue
		}
		mean := make([]float64, dim)
		for _, v := range rest {
			for j := range v {
				mean[j] += float64(v[j]) / float64(len(rest))
			}
		}
		means, of = append(means, mean), append(of, k)
		for _, v := range rest {
			for i := range v {
				for j := range v {
					matrix[i][j] += (float64(v[i]) - mean[i]) * (float64(v[j]) - mean[j])
				}
			}
		}
	}
	centre := make([]float64, dim)
	for _, mean := range means {
		for j := range mean {
			centre[j] += mean[j] / float64(len(means))
		}
	}
	of = append(of, -1)
	neutral := 0.0
	for n, mean := range append(means, centre) {
		w, sum := eliminate(matrix, mean), 0.0
		for j := range w {
			sum += float64(dim) * w[j] * (float64(x[j]) - mean[j]/2)
		}
		if neutral = sum; of[n] >= 0 {
			score[of[n]] = sum
		}
	}
	for _, k := range of[:len(means)] {
		score[k] -= neutral
	}
	return cosine, score
}

// eliminate solves m·y = x for a positive definite m (Gauss and Jordan).
func eliminate(m [][]float64, x []float64) []float64 {
	rows := make([][]float64, len(m))
	for i := range m {
		rows[i] = append(append([]float64(nil), m[i]...), x[i])
	}
	for i := range rows {
		for j := len(x); j >= i; j-- {
			rows[i][j] /= rows[i][i]
		}
		for k := range rows {
			if k != i {
				for j := len(x); j >= i; j-- {
					rows[k][j] -= rows[k][i] * rows[i][j]
				}
			}
		}
	}
	y := make([]float64, len(x))
	for i := range y {
		y[i] = rows[i][len(x)]
	}
	return y
}

func TestLeaveOneOut(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, dim := range []int{5, 9, 40} {
		classes := made(r, dim, []int{3, 2, 0, 4, 1}, 0.5)
		classes[3].Text = nil // its prototype must not have seen the example either
		a, err := analyse(classes)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for k, c := range classes {
			for e := range c.Examples {
				if len(c.Examples) > 1 {
					cosine, score := a.leaveOut(i)
					wantCosine, wantScore := brute(classes, k, e, a.inv.t)
					for n := range classes {
						near(t, fmt.Sprintf("%d dimensions, cosine of %d without %d", dim, n, i), cosine[n], wantCosine[n], 1e-6)
						near(t, fmt.Sprintf("%d dimensions, score of %d without %d", dim, n, i), score[n], wantScore[n], 1e-6)
					}
				}
				i++
			}
		}
	}
}

func TestAlpha(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	right := made(r, 64, []int{8, 8, 8}, 0.3)
	wrong := made(r, 64, []int{8, 8, 8}, 0.3)
	wrong[0].Text, wrong[1].Text, wrong[2].Text = wrong[1].Text, wrong[2].Text, wrong[0].Text
	noise := made(r, 64, []int{2, 2, 2}, 0.3)
	for k := range noise { // examples that say nothing of the class
		noise[k].Examples = [][]float32{unit(r, 64), unit(r, 64)}
	}
	alpha := func(classes []Class, scale, alpha float64) float64 {
		t.Helper()
		d, err := Fit(classes, scale, alpha)
		if err != nil {
			t.Fatal(err)
		}
		return d.Alpha
	}
	if got := alpha(right, 100, 0.37); got != 0.37 {
		t.Errorf("alpha is %v, 0.37 was given", got)
	}
	if got := alpha(noise, 100, 0); got != Alphas[0] {
		t.Errorf("alpha is %v for examples that say nothing, want the least", got)
	}
	low, high := alpha(right, 100, 0), alpha(wrong, 100, 0)
	if low >= high {
		t.Errorf("alpha is %v where texts are right, and %v where they are wrong", low, high)
	}
}

// A class without examples wins the images of no class, and no others.
func TestClassWithoutExamples(t *testing.T) {
	const dim = 64
	r := rand.New(rand.NewPCG(13, 14))
	classes := append(made(r, dim, []int{6, 6, 6, 6}, 0.5), Class{Text: unit(r, dim)})
	d, err := Fit(classes, 20, 1)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(x []float32) (best int) {
		logit := func(k int) float64 { return float64(d.Bias[k]) + product(d.Rows[k*dim:][:dim], x) }
		for k := range classes {
			if logit(k) > logit(best) {
				best = k
			}
		}
		return best
	}
	right, none := 0, 0
	for i := range 100 {
		center, _ := Prototype(nil, classes[i%4].Examples)
		if answer(around(r, center, 0.5)) == i%4 {
			right++
		}
		if answer(unit(r, dim)) == 4 {
			none++
		}
	}
	if right < 95 || none < 60 {
		t.Errorf("of 100 images each, %d of a class and %d of none are answered right", right, none)
	}
}

func TestFitWantsExamplesThatDiffer(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	same := made(r, 16, []int{3, 3}, 0)
	if _, err := Fit(same, 100, 0); !errors.Is(err, ErrSame) {
		t.Errorf("copies of one image: %v", err)
	}
	same[1].Examples[2] = unit(r, 16)
	if _, err := Fit(same, 100, 0); err != nil {
		t.Errorf("one example differs: %v", err)
	}
}

func TestFitRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	nan := float32(math.NaN())
	cases := []struct {
		want   string
		change func(c []Class) []Class
	}{
		{"two classes", func(c []Class) []Class { return c[:1] }},
		{"two classes", func(c []Class) []Class { return nil }},
		{"two classes", func(c []Class) []Class { c[0].Examples = nil; return c }},
		{"two of one", func(c []Class) []Class { c[0].Examples, c[1].Examples = c[0].Examples[:1], c[1].Examples[:1]; return c }},
		{"class 1, example 2: element 3 is NaN", func(c []Class) []Class { c[1].Examples[2][3] = nan; return c }},
		{"class 0, text: element 0 is +Inf", func(c []Class) []Class { c[0].Text[0] = float32(math.Inf(1)); return c }},
		{"element 1 is 3e+38", func(c []Class) []Class { c[0].Examples[0][1] = 3e38; return c }},
		{"class 1, text: dimension 7, want 8", func(c []Class) []Class { c[1].Text = c[1].Text[:7]; return c }},
		{"class 0, example 1: dimension 0", func(c []Class) []Class { c[0].Examples[1] = nil; return c }},
		{"class 2 has neither", func(c []Class) []Class { return append(c, Class{}) }},
		{"cancel", func(c []Class) []Class {
			x, y := unit(r, 8), make([]float32, 8)
			for j := range x {
				y[j] = -x[j]
			}
			c[0] = Class{Examples: [][]float32{x, y}}
			return c
		}},
	}
	for _, c := range cases {
		if _, err := Fit(c.change(made(r, 8, []int{3, 3}, 0.5)), 100, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("the error is %v, want %q", err, c.want)
		}
	}
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := Fit(made(r, 8, []int{3, 3}, 0.5), 100, bad); err == nil {
			t.Errorf("alpha %v is taken", bad)
		}
	}
	if _, err := Fit(made(r, 8, []int{3, 3}, 0.5), math.NaN(), 1); err == nil {
		t.Error("a scale that is no number is taken")
	}
}

// Two examples a class are the least that Fit is made for; more classes than dimensions, and vectors of zeros, do no harm.
func TestFitIsFinite(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	many := made(r, 2, make([]int, 50), 0.5)
	for k := range many {
		many[k].Examples = [][]float32{unit(r, 2), unit(r, 2)}
	}
	zeros := made(r, 8, []int{2, 2}, 0.5)
	zeros[0].Examples[0], zeros[1].Text = make([]float32, 8), make([]float32, 8)
	for _, classes := range [][]Class{many, zeros, made(r, 512, []int{2, 2}, 0.5), made(r, 1, []int{2, 3}, 3)} {
		d, err := Fit(classes, 100, 0)
		if err != nil && !errors.Is(err, ErrSame) {
			t.Error(err)
		}
		if err != nil {
			continue
		}
		for _, x := range append(d.Rows, d.Bias...) {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Fatalf("an element is %v", x)
			}
		}
	}
}

func TestPrototype(t *testing.T) {
	text, x, y := []float32{1, 0, 0}, []float32{0, 1, 0}, []float32{0, 0, 1}
	h := float32(math.Sqrt(0.5))
	cases := []struct {
		text     []float32
		examples [][]float32
		want     []float32
	}{
		{text, nil, text},
		{nil, [][]float32{x}, x},
		{nil, [][]float32{x, y}, []float32{0, h, h}},
		{text, [][]float32{x}, []float32{h, h, 0}},
		{text, [][]float32{x, y}, []float32{h, 0.5, 0.5}},
	}
	for _, c := range cases {
		got, err := Prototype(c.text, c.examples)
		if err != nil {
			t.Fatal(err)
		}
		for j := range got {
			near(t, fmt.Sprint(c), float64(got[j]), float64(c.want[j]), 1e-7)
		}
	}
	for _, bad := range [][][]float32{nil, {{-1, 0, 0}}, {{1, 0}}} {
		if _, err := Prototype(text[:3*min(1, len(bad))], bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

// made returns classes of the given numbers of examples, around centers that their texts are near to.
func made(r *rand.Rand, dim int, counts []int, noise float64) []Class {
	classes := make([]Class, len(counts))
	for k, n := range counts {
		center := unit(r, dim)
		classes[k].Text = around(r, center, 0.5)
		for range n {
			classes[k].Examples = append(classes[k].Examples, around(r, center, noise))
		}
	}
	return classes
}

// around returns a vector of unit length near center: noise is the length of what is added.
func around(r *rand.Rand, center []float32, noise float64) []float32 {
	v := make([]float64, len(center))
	for j, x := range unit(r, len(center)) {
		v[j] = float64(center[j]) + noise*float64(x)
	}
	return normalised(v)
}

func unit(r *rand.Rand, dim int) []float32 {
	v := make([]float64, dim)
	for j := range v {
		v[j] = r.NormFloat64()
	}
	return normalised(v)
}

func normalised(v []float64) []float32 {
	normalise(v)
	out := make([]float32, len(v))
	for j := range v {
		out[j] = float32(v[j])
	}
	return out
}

func product(a, b []float32) (sum float64) {
	for j := range a {
		sum += float64(a[j]) * float64(b[j])
	}
	return sum
}

func BenchmarkFit(b *testing.B) {
	for _, size := range []struct{ classes, examples, dim int }{{10, 2, 512}, {10, 16, 512}, {40, 16, 512}, {1000, 16, 512}, {10, 16, 768}} {
		r := rand.New(rand.NewPCG(1, 1))
		counts := make([]int, size.classes)
		for k := range counts {
			counts[k] = size.examples
		}
		classes := made(r, size.dim, counts, 0.5)
		b.Run(fmt.Sprintf("%dx%d,%d-d", size.classes, size.examples, size.dim), func(b *testing.B) {
			for b.Loop() {
				if _, err := Fit(classes, 100, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
