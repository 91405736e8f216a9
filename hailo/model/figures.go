package model

import (
	"errors"
	"fmt"
)

// Parameters are the numbers of parameters of the encoders; 0: not known.
type Parameters struct {
	Image int64 `json:"image,omitempty"`
	Text  int64 `json:"text,omitempty"`
}

// Rates are how many images and texts a Hailo-10H encodes per second.
type Rates struct {
	Image  *Rate  `json:"image,omitempty"` // nil: not published
	Text   *Rate  `json:"text,omitempty"`
	Source string `json:"source"`
}

// Rate is how many items per second an encoder takes in runs of one and of eight.
type Rate struct {
	Batch1 float64 `json:"batch_1"`
	Batch8 float64 `json:"batch_8"`
}

// Benchmark is a measurement of a model, in percent.
type Benchmark struct {
	What   string  `json:"what"`
	Float  float64 `json:"float,omitempty"` // with the weights as they were trained; 0: not known
	Chip   float64 `json:"chip,omitempty"`  // on a Hailo-10H; 0: not known
	Source string  `json:"source"`
}

// validateFigures checks what people choose by.
func (m Manifest) validateFigures() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, n := range []int64{m.Parameters.Image, m.Parameters.Text} {
		check(n >= 0 && n <= 1e12, "parameters: %d, want 0 to 10^12", n)
	}
	if r := m.Rates; r != nil {
		check(r.Source != "", "rates: no source")
		for i, rate := range []*Rate{r.Image, r.Text} {
			if rate != nil { // a run of eight takes no less than one, and no more than eight of them
				field := []string{"image", "text"}[i]
				check(rate.Batch1 > 0 && rate.Batch1 <= 1e6, "rates.%s.batch_1 is %v, want above 0, at most 10^6", field, rate.Batch1)
				check(rate.Batch8 >= rate.Batch1 && rate.Batch8 <= 8*rate.Batch1,
					"rates.%s.batch_8 is %v, want 1 to 8 times the %v of batch_1", field, rate.Batch8, rate.Batch1)
			}
		}
	}
	check(len(m.Benchmarks) <= maxBenchmarks, "%d benchmarks, at most %d", len(m.Benchmarks), maxBenchmarks)
	for i, b := range m.Benchmarks[:min(len(m.Benchmarks), maxBenchmarks)] {
		check(b.What != "" && b.Source != "", "benchmarks[%d]: want what and source", i)
		check(b.Float >= 0 && b.Float <= 100 && b.Chip >= 0 && b.Chip <= 100,
			"benchmarks[%d]: float %v and chip %v, want 0 to 100", i, b.Float, b.Chip)
	}
	return errors.Join(errs...)
}
