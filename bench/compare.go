package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Compare prints for every load that both reports have (the first service of each) the metrics
// and their ratios b/a. It returns an error when they have no load in common.
func Compare(w io.Writer, a, b *Report) error {
	if a.Machine.CPU != b.Machine.CPU || a.Machine.Cores != b.Machine.Cores {
		fmt.Fprintf(w, "These are different machines:\n  a: %s\n  b: %s\n", printable(a.Machine.String()), printable(b.Machine.String()))
	}
	if a.Request != b.Request {
		fmt.Fprintf(w, "These are different requests:\n  a: %s\n  b: %s\n", printable(a.Request), printable(b.Request))
	}
	found := false
	for i := range a.Steps {
		s := &a.Steps[i]
		other := b.step(b.Steps[0].Target, s.Load)
		if s.Target == sides[1] || other == nil || a.step(s.Target, s.Load) != s {
			continue
		}
		if found {
			fmt.Fprintln(w)
		}
		found = true
		writeRatios(w, s.Load, s, other)
	}
	if !found {
		return errors.New("the reports have no load in common")
	}
	return nil
}

// writeSides compares the two services of one run.
func (r *Report) writeSides(w io.Writer) {
	for i := range r.Steps {
		a := &r.Steps[i]
		b := r.step(sides[1], a.Load)
		if a.Target != sides[0] || b == nil {
			continue
		}
		writeRatios(w, a.Load, a, b)
		if ratios := turnRatios(a, b); len(ratios) > 0 {
			fmt.Fprintf(w, "rate B/A in %d pairs of turns: median %.3f, from %.3f to %.3f\n",
				len(ratios), ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
		}
	}
}

// turnRatios are the ratios of neighbouring turns, sorted: how far they lie apart says how much
// the ratio of the whole is worth.
func turnRatios(a, b *Step) []float64 {
	var ratios []float64
	for i := range min(len(a.Turns), len(b.Turns)) {
		if a.Turns[i] > 0 {
			ratios = append(ratios, b.Turns[i]/a.Turns[i])
		}
	}
	slices.Sort(ratios)
	return ratios
}

func writeRatios(w io.Writer, title string, a, b *Step) {
	rows := [][]string{{printable(title), "a", "b", "b/a", ""}}
	for _, m := range metrics {
		va, okA := m.value(a)
		vb, okB := m.value(b)
		if !okA && !okB {
			continue
		}
		ratio, verdict := "-", ""
		if okA && okB && va > 0 {
			ratio = fmt.Sprintf("%.3f", vb/va)
			// Differences of less than 2 % are not called any.
			if vb > 1.02*va || vb < 0.98*va {
				verdict = map[bool]string{true: "better", false: "worse"}[(vb > va) == m.higher]
			}
		}
		rows = append(rows, []string{m.name, m.of(a), m.of(b), ratio, verdict})
	}
	writeRows(w, rows)
}
