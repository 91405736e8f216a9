package clip

import (
	"math"
	"testing"

	"hailoclip/stages"
)

// TestLogitsOfPairs: what stands against a label is what it is at the temperature that is tried.
func TestLogitsOfPairs(t *testing.T) {
	s := newSubject(&PromptSet{
		Labels:  stages.Labels{N: 3, Kinds: []stages.Kind{stages.Ordinary, stages.Negative, stages.Negative}},
		Scoring: stages.Scoring{Activation: stages.Pair, Temperature: 0.5},
	})
	image := s.image(0, stages.Result{Logits: []float64{3, 1, 2}})
	for _, temperature := range []float64{4, 0.5} {
		want := 3 - temperature*math.Log(math.Exp(1/temperature)+math.Exp(2/temperature))
		got := image.At(temperature)
		if len(got) != 1 || math.Abs(got[0]-want) > 1e-12 {
			t.Errorf("at %v: %v, want %v", temperature, got, want)
		}
	}
	if now := image.At(0.5)[0]; len(image.Logits) != 1 || image.Logits[0] != now {
		t.Errorf("%v, want %v", image.Logits, now)
	}
	image.At(4)
	if image.Logits[0] != image.At(0.5)[0] {
		t.Error("another temperature changes what was")
	}
}
