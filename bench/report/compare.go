package report

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
		fmt.Fprintf(w, "These are different machines:\n  a: %s\n  b: %s\n", Printable(a.Machine.String()), Printable(b.Machine.String()))
	}
	if a.Request != b.Request {
		fmt.Fprintf(w, "These are different requests:\n  a: %s\n  b: %s\n", Printable(a.Request), Printable(b.Request))
	}
	found := a.Searched != "" && a.Searched == b.Searched && a.best() != nil && b.best() != nil
	if found {
		best, other := a.Main(), b.Main()
		ratios(fmt.Sprintf("best of %s: %s and %s", a.Searched, best.Load, other.Load), best, other).write(w)
	}
	for _, s := range a.Steps {
		other := b.Step(b.Steps[0].Target, s.Load)
		if s.Target == SideB || other == nil || a.Step(s.Target, s.Load) != s {
			continue
		}
		if found {
			fmt.Fprintln(w)
		}
		found = true
		ratios(s.Load, s, other).write(w)
	}
	if !found {
		return errors.New("the reports have neither a load nor a search in common")
	}
	return nil
}

// ratios compares two steps; its title is the first cell.
func ratios(title string, a, b *Step) table {
	rows := [][]string{{Printable(title), "a", "b", "b/a", ""}}
	for i := range metrics {
		m := &metrics[i]
		va, vb := m.of(a), m.of(b)
		if va == "-" && vb == "-" {
			continue
		}
		ratio := "-"
		if m.value(a) > 0 && vb != "-" {
			ratio = fmt.Sprintf("%.3f", m.value(b)/m.value(a))
		}
		rows = append(rows, []string{m.name, va, vb, ratio, m.verdict(a, b)})
	}
	return table{Rows: rows}
}

// verdict is "better" or "worse" of b, or "" where there is none. Differences of less than 2 % are not
// called any.
func (m *metric) verdict(a, b *Step) string {
	switch m.name {
	case "requests":
		return "" // more for a longer window
	case "errors": // likewise
		m = metricNamed("error_ratio")
	}
	va, vb := m.value(a), m.value(b)
	switch more := vb > 1.02*va; {
	case !more && !(vb < 0.98*va): // or one is not known
		return ""
	case more == m.higher:
		return "better"
	}
	return "worse"
}

// sides compares the two services of one run at each load. The title says how the turns went.
func (r *Report) sides() []table {
	var list []table
	for _, a := range r.Steps {
		b := r.Step(SideB, a.Load)
		if a.Target != SideA || b == nil {
			continue
		}
		t := ratios(a.Load, a, b)
		t.Title = turns(a, b)
		list = append(list, t)
	}
	return list
}

// turns sums up the ratios of neighbouring turns, "" where there were none: how far they lie apart
// says how much the ratio of the whole is worth.
func turns(a, b *Step) string {
	var ratios []float64
	for i := range min(len(a.Turns), len(b.Turns)) {
		if a.Turns[i] > 0 {
			ratios = append(ratios, b.Turns[i]/a.Turns[i])
		}
	}
	if len(ratios) == 0 {
		return ""
	}
	slices.Sort(ratios)
	return fmt.Sprintf("rate B/A in %d pairs of turns: median %.3f, from %.3f to %.3f",
		len(ratios), ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
}
