package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Compare prints for every load that both reports have (the first service of each) the metrics
// and their ratios b/a, and first where both searched the same the loads that each of them found. It
// returns an error when they have nothing in common.
func Compare(w io.Writer, a, b *Report) error {
	if a.Machine.CPU != b.Machine.CPU || a.Machine.Cores != b.Machine.Cores {
		fmt.Fprintf(w, "These are different machines:\n  a: %s\n  b: %s\n", printable(a.Machine.String()), printable(b.Machine.String()))
	}
	if a.Request != b.Request {
		fmt.Fprintf(w, "These are different requests:\n  a: %s\n  b: %s\n", printable(a.Request), printable(b.Request))
	}
	found := a.Searched != "" && a.Searched == b.Searched && a.best() != nil && b.best() != nil
	if found {
		best, other := a.Main(), b.Main()
		writeRatios(w, fmt.Sprintf("best of %s: %s and %s", a.Searched, best.Load, other.Load), best, other)
	}
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
		return errors.New("the reports have neither a load nor a search in common")
	}
	return nil
}

// writeSides compares the two services of one run.
func (r *Report) writeSides(w io.Writer) {
	r.eachPair(func(a, b *Step) {
		writeRatios(w, a.Load, a, b)
		if text := turnsText(a, b); text != "" {
			fmt.Fprintln(w, text)
		}
	})
}

// eachPair calls do with the steps of A and B at each load.
func (r *Report) eachPair(do func(a, b *Step)) {
	for i := range r.Steps {
		a := &r.Steps[i]
		if b := r.step(sides[1], a.Load); a.Target == sides[0] && b != nil {
			do(a, b)
		}
	}
}

// turnsText is "" where there were no turns.
func turnsText(a, b *Step) string {
	ratios := turnRatios(a, b)
	if len(ratios) == 0 {
		return ""
	}
	return fmt.Sprintf("rate B/A in %d pairs of turns: median %.3f, from %.3f to %.3f",
		len(ratios), ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
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
	writeRows(w, ratioRows(title, a, b))
}

func ratioRows(title string, a, b *Step) [][]string {
	rows := [][]string{{printable(title), "a", "b", "b/a", ""}}
	for _, m := range metrics {
		va, okA := m.value(a)
		vb, okB := m.value(b)
		if !okA && !okB {
			continue
		}
		ratio := "-"
		if okA && okB && va > 0 {
			ratio = fmt.Sprintf("%.3f", vb/va)
		}
		rows = append(rows, []string{m.name, m.of(a), m.of(b), ratio, m.verdict(a, b)})
	}
	return rows
}

// verdict is "better" or "worse" of b, or "" where there is none. Differences of less than 2 % are not
// called any.
func (m metric) verdict(a, b *Step) string {
	switch m.name {
	case "requests":
		return "" // more for a longer window
	case "errors": // likewise
		m, _ = metricNamed("error_ratio")
	}
	va, okA := m.value(a)
	vb, okB := m.value(b)
	if !okA || !okB || vb <= 1.02*va && vb >= 0.98*va {
		return ""
	}
	return map[bool]string{true: "better", false: "worse"}[(vb > va) == m.higher]
}
