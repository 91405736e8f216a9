package batch

import (
	"math"
	"os"
	"slices"
	"testing"
	"time"
)

// TestLoads puts the batcher under the loads of the model, by a simulated clock, with the rule and without. With it the mean is
// never much worse than the best of all fixed waits, each measured against starting at once, and open loads lose nothing.
//
//	HAILO_TEST_LONG=1 go test -run TestLoads -v ./stages/batch   # all loads, a minute of each, as a table
func TestLoads(t *testing.T) {
	short := []string{"closed 1, think 2", "closed 2, think 2", "closed 4, think 2", "closed 8, think 2", "closed 12, think 2",
		"closed 8, think 7", "4 clients of 2 images", "streams 2, 2 in flight", "poisson 120", "poisson 300", "cameras 4x30",
		"closed 4 + poisson 50", "1.2n: closed 8, think 2", "text: closed 4", "one key: closed 4 + poisson 50", "closed 8, new key after 1", "even 120, pool lifo"}
	until := 10 * time.Second
	long := os.Getenv("HAILO_TEST_LONG") != ""
	if long {
		until = time.Minute
	}
	model := readModel(t)
	t.Logf("%-38s %22s %22s %8s | model: %6s %6s", "rate/s, mean, p99 ms of", "at once", "the rule", "of best", "best", "rule")
	for _, l := range loads() {
		if !long && !slices.Contains(short, l.name) {
			continue
		}
		m := model[l.name]
		off, on := simulate(t, l, false, until, 1), simulate(t, l, true, until, 1)
		if m.atOnce.mean == 0 {
			m = modelled{atOnce: off, rule: on, bestMean: math.NaN()}
		}
		of := m.bestMean / m.atOnce.mean / (on.mean / off.mean)
		t.Logf("%-38s %6.0f %6.1f %7.1f %6.0f %6.1f %7.1f %8.3f | %14.3f %6.3f", l.name, off.rate, off.mean, off.p99,
			on.rate, on.mean, on.p99, of, m.bestMean/m.atOnce.mean, m.rule.mean/m.atOnce.mean)
		open := !slices.ContainsFunc(l.sources, func(s source) bool { return s.kind == "closed" || s.kind == "stream" })
		switch l.name {
		case "one key: closed 4 + poisson 50": // by one connection for several requests at a time nobody is told from others
		case "cameras 4x30, pool lifo": // whose frames come by the connection that was used last, soon after its answer
		default:
			if of < 0.94 || on.mean > 1.05*off.mean || open && (on.mean > 1.02*off.mean || on.p99 > 1.05*off.p99) {
				t.Errorf("%s: mean %.1f, p99 %.1f ms with the rule, %.1f and %.1f without: %.3f of the best fixed wait",
					l.name, on.mean, on.p99, off.mean, off.p99, of)
			}
		}
	}
}
