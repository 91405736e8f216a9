package report

import (
	"strings"
	"testing"
)

func TestCosts(t *testing.T) {
	step := func(cpu float64) *Step { return &Step{Service: &ServiceUse{CPU: cpu}} }
	known := Cost{Body: "raw", Size: "224x224", Bytes: 150_528}
	for _, c := range [][2]float64{{0.3, 0.1}, {0.2, 0.15}, {0.25, 0.1}, {0.21, 0.2}} {
		known.Add(step(c[0]), step(c[1]))
	}
	silent := Cost{Body: "json", Size: "1x1", Bytes: 90}
	silent.Add(step(0.3), &Step{})
	var b strings.Builder
	WriteCosts(&b, []Cost{known, silent})
	for _, want := range []string{"raw  224x224  150.5", "0.230 (0.200 to 0.300)", "0.125 (0.100 to 0.200)", "0.100 (0.010 to 0.200)", "0.1  0.300 (0.300 to 0.300)", "0.300)                       -                       -"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &b)
		}
	}
}
