package evaluate

import (
	"fmt"
	"math"
)

// Temperatures are looked for within these bounds, with fewest images or more.
const (
	coldest, hottest = 0.01, 100
	fewest           = 20
)

// bins of the expected calibration error, of equal width.
const bins = 15

// calibrationError is the expected calibration error of Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
// Networks", ICML 2017 (arXiv 1706.04599), section 2: the images are put into bins by the probability of the most likely
// answer; it is the mean over the images of the distance, in their bin, between the mean of these probabilities and the share
// that is right. With negative labels, that none of the labels is there is an answer, too, as likely as all of them together.
func calibrationError(images []Image, o Options, temperature float64) float64 {
	var excess [bins]float64 // sum over the images of probability less 1 if right
	for _, image := range images {
		p := probabilities(image.at(temperature), o, temperature)
		answer := best(p[:o.Labels])
		confidence := p[answer]
		if none := sum(p[o.Labels:]); none > confidence {
			answer, confidence = None, none
		}
		bin := min(int(confidence*bins), bins-1)
		if excess[bin] += confidence; answer == image.Truth {
			excess[bin]--
		}
	}
	e := 0.0
	for _, x := range excess {
		e += math.Abs(x) / float64(len(images))
	}
	return e
}

// fitTemperature returns the temperature with the least mean of -log(probability of the truth), or says why there is none. For a
// softmax without negative labels the loss is convex in 1/T; otherwise the best one near the best of a grid is returned.
func fitTemperature(images []Image, o Options) (temperature float64, reason string) {
	var usable []Image
	for _, image := range images {
		if image.Truth != None || o.Independent || len(image.Logits) > o.Labels {
			usable = append(usable, image)
		}
	}
	if len(usable) < fewest {
		return 0, fmt.Sprintf("%d images can be used to fit a temperature, %d are needed", len(usable), fewest)
	}
	if !o.Independent && len(usable[0].Logits) == 1 {
		return 0, "with a single label, the probability is always 1"
	}
	loss := func(logT float64) (sum float64) {
		for _, image := range usable {
			sum += surprise(image, o, math.Exp(logT))
		}
		return sum
	}
	low, high := math.Log(coldest), math.Log(float64(hottest))
	const steps = 24
	at := func(i int) float64 { return low + (high-low)*float64(i)/steps }
	least, lowest := 0, loss(at(0))
	for i := 1; i <= steps; i++ {
		if l := loss(at(i)); l < lowest {
			least, lowest = i, l
		}
	}
	switch least {
	case 0:
		return 0, "the answers are right however sure they are: no temperature can be fitted"
	case steps:
		return 0, "the answers say too little of what the images show: no temperature can be fitted"
	}
	a, b := at(least-1), at(least+1)
	for range 24 { // golden section: five digits
		step := (b - a) * (math.Sqrt(5) - 1) / 2
		if loss(b-step) < loss(a+step) {
			b = a + step
		} else {
			a = b - step
		}
	}
	return math.Exp((a + b) / 2), ""
}

// surprise is -log(probability of the truth). Independent labels are as many yes/no questions, of which the mean is taken.
func surprise(image Image, o Options, temperature float64) (s float64) {
	logits := image.at(temperature)
	if o.Independent {
		for k, logit := range logits[:o.Labels] {
			if k != image.Truth {
				logit = -logit
			}
			s += softplus(-logit/temperature) / float64(o.Labels)
		}
		return s
	}
	truth := logits[o.Labels:]
	if image.Truth != None {
		truth = logits[image.Truth:][:1]
	}
	return logSumExp(logits, temperature) - logSumExp(truth, temperature)
}

// probabilities of all labels, the negative ones behind the others; of independent ones, those that may be answers.
func probabilities(logits []float64, o Options, temperature float64) []float64 {
	if o.Independent {
		logits = logits[:o.Labels]
	}
	p := make([]float64, len(logits))
	all := logSumExp(logits, temperature)
	for k, logit := range logits {
		if p[k] = math.Exp(logit/temperature - all); o.Independent {
			p[k] = math.Exp(-softplus(-logit / temperature))
		}
	}
	return p
}

// logSumExp is log(Σ exp(x/temperature)).
func logSumExp(x []float64, temperature float64) float64 {
	top, sum := x[best(x)], 0.0
	for _, v := range x {
		sum += math.Exp((v - top) / temperature)
	}
	return top/temperature + math.Log(sum)
}

// softplus is log(1 + exp(x)).
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func sum(x []float64) (s float64) {
	for _, v := range x {
		s += v
	}
	return s
}
