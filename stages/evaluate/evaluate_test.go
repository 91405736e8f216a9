package evaluate

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// logits of probabilities, at temperature 1.
func logits(p ...float64) []float64 {
	l := make([]float64, len(p))
	for i := range p {
		l[i] = math.Log(p[i])
	}
	return l
}

func near(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if !(math.Abs(got-want) <= by) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestEvaluate(t *testing.T) {
	images := []Image{
		{Truth: 0, Logits: logits(0.80, 0.10, 0.05, 0.05), Matched: true},
		{Truth: 0, Logits: logits(0.30, 0.50, 0.10, 0.10), Matched: true},
		{Truth: 1, Logits: logits(0.10, 0.70, 0.10, 0.10), Matched: true},
		{Truth: 1, Logits: logits(0.05, 0.40, 0.05, 0.50)},
		{Truth: None, Logits: logits(0.10, 0.20, 0.10, 0.60)},
		{Truth: None, Logits: logits(0.60, 0.20, 0.10, 0.10), Matched: true},
	}
	r, err := Evaluate(images, Options{Labels: 3, Temperature: 1, Precision: 0.75})
	if err != nil {
		t.Fatal(err)
	}
	f := func(v float64) *float64 { return &v }
	half := f(0.5)
	want := &Report{
		Accuracy:   0.5,
		Confusion:  [][]int{{1, 1, 0, 0}, {0, 1, 0, 1}, {0, 0, 0, 0}, {1, 0, 0, 1}},
		Recall:     []*float64{half, half, nil},
		Precision:  []*float64{half, half, nil},
		Reason:     "6 images can be used to fit a temperature, 20 are needed",
		Thresholds: []*Threshold{{0.8, 1, 0.5}, {0.7, 1, 0.5}, nil},
	}
	// bins of 1/15: {0.8}, {0.5 wrong, 0.5 wrong}, {0.7}, {0.6 right, 0.6 wrong}
	near(t, "the calibration error", r.Before, (0.2+1.0+0.3+0.2)/6, 1e-12)
	r.Before = 0
	for k, threshold := range r.Thresholds {
		if threshold != nil {
			near(t, "a threshold", threshold.Score, want.Thresholds[k].Score, 1e-12)
			threshold.Score = want.Thresholds[k].Score
		}
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("the report is\n%+v, want\n%+v", r, want)
	}
}

// labelled makes images whose truths are drawn with the probabilities that their logits have at a temperature.
func labelled(r *rand.Rand, n, labels, negative int, temperature float64) (images []Image) {
	for len(images) < n {
		image := Image{Logits: make([]float64, labels+negative), Matched: true, Truth: None}
		for k := range image.Logits {
			image.Logits[k] = 6 * r.NormFloat64()
		}
		p := probabilities(image.Logits, Options{Labels: labels}, temperature)
		at := r.Float64()
		for k := range p {
			if at -= p[k]; at < 0 {
				if k < labels {
					image.Truth = k
				}
				break
			}
		}
		images = append(images, image)
	}
	return images
}

func TestTemperature(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		labels, negative int
		truth, now       float64
	}{{5, 0, 2.5, 1}, {3, 4, 0.4, 1}, {2, 1, 6, 3}, {1, 2, 1.5, 0.2}} {
		images := labelled(r, 2000, c.labels, c.negative, c.truth)
		report, err := Evaluate(images, Options{Labels: c.labels, Temperature: c.now, Precision: 0.9})
		if err != nil || report.Temperature == nil {
			t.Fatal(err, report.Reason)
		}
		near(t, "the temperature", *report.Temperature, c.truth, 0.15*c.truth)
		if *report.After > 0.03 || *report.After >= report.Before {
			t.Errorf("%+v: the calibration error is %v before and %v after", c, report.Before, *report.After)
		}
		// No other temperature fits better, and thresholds are of scores at this one.
		loss := func(temperature float64) (sum float64) {
			for _, image := range images {
				sum += surprise(image, Options{Labels: c.labels}, temperature)
			}
			return sum
		}
		for other := coldest; other < hottest; other *= 1.05 {
			if loss(other) < loss(*report.Temperature)-1e-6 {
				t.Fatalf("%+v: %v fits better than %v", c, other, *report.Temperature)
			}
		}
		if c.labels > 1 {
			near(t, "the precision above a threshold", report.Thresholds[0].Precision, 0.9, 0.01)
			near(t, "the share that is right near it", share(images, report.Thresholds[0].Score, *report.Temperature, c.labels), report.Thresholds[0].Score, 0.2)
		}
	}
}

// share is how many of the images with a score of label 0 near this one show it.
func share(images []Image, score, temperature float64, labels int) float64 {
	right, all := 0.0, 0.0
	for _, image := range images {
		if p := probabilities(image.Logits, Options{Labels: labels}, temperature); math.Abs(p[0]-score) < 0.1 {
			if all++; image.Truth == 0 {
				right++
			}
		}
	}
	return right / all
}

func TestTemperatureOfIndependentLabels(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var images []Image
	for range 4000 {
		image := Image{Truth: None, Logits: []float64{8 * r.NormFloat64()}}
		if r.Float64() < 1/(1+math.Exp(-image.Logits[0]/3)) {
			image.Truth = 0
		}
		images = append(images, image)
	}
	report, err := Evaluate(images, Options{Labels: 1, Independent: true, Temperature: 1, Precision: 0.95})
	if err != nil || report.Temperature == nil {
		t.Fatal(err, report.Reason)
	}
	near(t, "the temperature", *report.Temperature, 3, 0.4)
}

// TestTemperatureOfOdds has logits that depend on the temperature: what is said of the fitted one is what comes of it.
func TestTemperatureOfOdds(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	images, odds := make([]Image, 60), make([]func(float64) []float64, 60)
	for i := range images {
		raw := make([]float64, 2+30) // labels, and what stands against them
		for k := range raw {
			raw[k] = 2 * r.NormFloat64()
		}
		images[i].Truth = r.IntN(3) - 1
		if images[i].Truth >= 0 && i%4 > 0 {
			raw[images[i].Truth] += 9
		}
		odds[i] = func(temperature float64) []float64 {
			against := temperature * logSumExp(raw[2:], temperature)
			return []float64{raw[0] - against, raw[1] - against}
		}
		images[i].At, images[i].Logits = odds[i], odds[i](1)
	}
	o := Options{Labels: 2, Independent: true, Temperature: 1, Precision: 0.5}
	first, err := Evaluate(images, o)
	if err != nil || first.Temperature == nil {
		t.Fatalf("%+v: %v", first, err)
	}
	o.Temperature = *first.Temperature
	for i := range images {
		images[i].Logits = odds[i](o.Temperature)
	}
	again, err := Evaluate(images, o)
	if err != nil || again.Temperature == nil {
		t.Fatalf("%+v: %v", again, err)
	}
	near(t, "the calibration error", again.Before, *first.After, 1e-12)
	near(t, "the temperature", *again.Temperature, o.Temperature, 1e-4)
	if !reflect.DeepEqual(again.Thresholds, first.Thresholds) || math.Abs(o.Temperature-1) < 0.1 {
		t.Errorf("thresholds %+v, were %+v, at %v", again.Thresholds, first.Thresholds, o.Temperature)
	}
}

func TestNoTemperature(t *testing.T) {
	right := func(n int) (images []Image) {
		for i := range n {
			l := []float64{0, 0, 0}
			l[i%2] = 5
			images = append(images, Image{Truth: i % 2, Logits: l, Matched: true})
		}
		return images
	}
	wrong := right(30)
	for i := range wrong {
		wrong[i].Truth = 1 - wrong[i].Truth
	}
	none := right(30)
	for i := range none[5:] {
		none[5+i].Truth = None
	}
	single := right(30)
	for i := range single {
		single[i].Logits, single[i].Truth = single[i].Logits[:1], 0
	}
	for _, c := range []struct {
		images []Image
		labels int
		reason string
	}{
		{right(19), 2, "19 images can be used"},
		{right(20), 2, "however sure"},
		{wrong, 3, "too little"},
		{none, 3, "5 images can be used"}, // without negative labels no answer is right for the others
		{single, 1, "single label"},
	} {
		report, err := Evaluate(c.images, Options{Labels: c.labels, Temperature: 1, Precision: 0.9})
		if err != nil {
			t.Fatal(err)
		}
		if report.Temperature != nil || report.After != nil || !strings.Contains(report.Reason, c.reason) {
			t.Errorf("temperature %v, reason %q, want %q", report.Temperature, report.Reason, c.reason)
		}
	}
}

// The threshold is the lowest of all scores that is precise enough, by trying each.
func TestThreshold(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	found := 0
	for range 300 {
		images, scores := make([]Image, 1+r.IntN(30)), [][]float64(nil)
		for i := range images {
			images[i].Truth = r.IntN(3) - 1
			scores = append(scores, []float64{float64(r.IntN(8)) + 3*float64(images[i].Truth), 0}) // with ties
		}
		var want *Threshold
		for i := range images {
			score, right, above, shown := scores[i][0], 0.0, 0.0, 0.0
			for n := range images {
				if images[n].Truth == 1 {
					shown++
				}
				if scores[n][0] >= score {
					if above++; images[n].Truth == 1 {
						right++
					}
				}
			}
			if right > 0 && right/above >= 0.8 && (want == nil || score < want.Score) {
				want = &Threshold{below(score), right / above, right / shown}
			}
		}
		for i := range scores {
			scores[i][1] = scores[i][0]
		}
		if got := threshold(images, scores, 1, 0.8); !reflect.DeepEqual(got, want) {
			t.Fatalf("the threshold is %+v, want %+v", got, want)
		}
		if want != nil {
			found++
		}
	}
	if found < 50 || found > 250 {
		t.Errorf("%d of 300 have a threshold", found)
	}
}

func TestScoresGiven(t *testing.T) {
	images := []Image{
		{Truth: 0, Logits: []float64{0, 0}, Scores: []float64{0.31, 0.1}, Matched: true},
		{Truth: 1, Logits: []float64{0, 0}, Scores: []float64{0.29, 0.2}, Matched: true},
	}
	r, err := Evaluate(images, Options{Labels: 2, Temperature: 1, Precision: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := []*Threshold{{below(0.31), 1, 1}, {below(0.2), 1, 1}}; !reflect.DeepEqual(r.Thresholds, want) {
		t.Errorf("thresholds are %+v %+v", r.Thresholds[0], r.Thresholds[1])
	}
}

func TestEvaluateRefuses(t *testing.T) {
	good := Options{Labels: 2, Temperature: 1, Precision: 0.9}
	image := Image{Truth: 0, Logits: []float64{1, 2, 3}}
	with := func(change func(*Image, *Options)) error {
		i, o := image, good
		change(&i, &o)
		_, err := Evaluate([]Image{image, i}, o)
		return err
	}
	for want, change := range map[string]func(*Image, *Options){
		"no labels":                    func(_ *Image, o *Options) { o.Labels = 0 },
		"temperature is 0":             func(_ *Image, o *Options) { o.Temperature = 0 },
		"temperature is NaN":           func(_ *Image, o *Options) { o.Temperature = math.NaN() },
		"precision is 1.5":             func(_ *Image, o *Options) { o.Precision = 1.5 },
		"precision is NaN":             func(_ *Image, o *Options) { o.Precision = math.NaN() },
		"image 1: there is no label 2": func(i *Image, _ *Options) { i.Truth = 2 },
		"there is no label -2":         func(i *Image, _ *Options) { i.Truth = -2 },
		"2 logits, want 3":             func(i *Image, _ *Options) { i.Logits = i.Logits[:2] },
		"image 0: 3 logits, want 4":    func(_ *Image, o *Options) { o.Labels = 4 },
		"1 scores, want 2":             func(i *Image, _ *Options) { i.Scores = []float64{1} },
		"score is NaN":                 func(i *Image, _ *Options) { i.Logits = []float64{1, math.NaN(), 1} },
		"score is +Inf":                func(i *Image, _ *Options) { i.Scores = []float64{1, math.Inf(1)} },
	} {
		if err := with(change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
	if _, err := Evaluate(nil, good); err == nil {
		t.Error("no images are evaluated")
	}
}

// Whatever logits are, nothing is NaN.
func TestExtremes(t *testing.T) {
	for _, independent := range []bool{false, true} {
		var images []Image
		for i := range 40 {
			images = append(images, Image{Truth: i%3 - 1, Logits: []float64{1e300 * float64(i%2), -1e300, float64(i), 5}, Matched: i%2 == 0})
		}
		r, err := Evaluate(images, Options{Labels: 2, Independent: independent, Temperature: 1e-3, Precision: 1})
		if err != nil {
			t.Fatal(err)
		}
		if math.IsNaN(r.Before) || r.Temperature != nil && math.IsNaN(*r.Temperature+*r.After) {
			t.Errorf("%+v", r)
		}
	}
}
