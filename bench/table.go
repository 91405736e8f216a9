package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// columns of the table of steps.
var columns = []string{"rate", "requests", "p50", "p90", "p99", "p99.9", "max", "cpu", "rss", "batch", "cache_hits"}

var titles = map[string]string{
	"rate": "answers/s", "cpu": "cpu/answer", "rss": "memory", "cache_hits": "cache hits", "batch": "mean batch",
}

// WriteTable prints the report for a terminal.
func (r *Report) WriteTable(w io.Writer) {
	fmt.Fprintf(w, "%s\n", r.Machine)
	for _, s := range r.Named() {
		fmt.Fprintf(w, "%s\n", s)
	}
	fmt.Fprintf(w, "%s\n\n", r.Request)
	r.writeSteps(w)
	if r.Unfinished {
		fmt.Fprintln(w, "\nThe run was ended before its last step.")
	}
	if r.Goal != "" && !r.Unfinished {
		if r.Best == "" {
			fmt.Fprintf(w, "\nNo load meets %s.\n", r.Goal)
		} else {
			fmt.Fprintf(w, "\nThe highest rate that meets %s: %s/s, at %s.\n", r.Goal, significant(r.Main().Rate), r.Best)
		}
	}
	r.writeDetails(w)
	if len(r.Services) == 2 {
		fmt.Fprintln(w)
		r.writeSides(w)
	}
}

func (r *Report) writeSteps(w io.Writer) {
	rows := [][]string{{"load"}}
	for _, name := range columns {
		title := titles[name]
		if title == "" {
			title = name
		}
		rows[0] = append(rows[0], title)
	}
	rows[0] = append(rows[0], "errors")
	for i := range r.Steps {
		s := &r.Steps[i]
		row := []string{strings.TrimSpace(s.Target + " " + s.Load)}
		for _, name := range columns {
			m, _ := metricNamed(name)
			row = append(row, m.of(s))
		}
		errors := errorsOf(s)
		if s.Met != nil && !*s.Met {
			errors += "  misses the goal"
		}
		rows = append(rows, append(row, errors))
	}
	writeRows(w, rows)
}

// errorsOf lists errors by their code, "0" where there is none.
func errorsOf(s *Step) string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(s.Errors)) {
		parts = append(parts, fmt.Sprintf("%d x %s", s.Errors[code], code))
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// writeDetails prints what is known of the inside of the service for the main step.
func (r *Report) writeDetails(w io.Writer) {
	s := r.Main()
	if len(s.Stages) > 0 {
		fmt.Fprintf(w, "\nTime in each stage at %s:\n", s.Load)
		rows := [][]string{{"stage", "mean", "p50", "p99"}}
		for _, t := range s.Stages {
			rows = append(rows, []string{t.Stage, significant(t.Mean) + " ms", significant(t.P50) + " ms", significant(t.P99) + " ms"})
		}
		rows = append(rows, []string{"HTTP, network, client", significant(s.Outside) + " ms", "", ""})
		writeRows(w, rows)
	}
	if u := s.Service; u != nil && u.Batch > 0 {
		fmt.Fprintf(w, "\nImages in a batch at %s: ", s.Load)
		total := uint64(0)
		for _, n := range u.Batches {
			total += n
		}
		var parts []string
		for size, n := range u.Batches {
			if n > 0 {
				parts = append(parts, fmt.Sprintf("%d: %s%%", size, significant(100*float64(n)/float64(total))))
			}
		}
		fmt.Fprintln(w, strings.Join(parts, "  "))
		if note := deviceNote(s); note != "" {
			fmt.Fprintln(w, note)
		}
	}
	rest := []string{"cores", "gc", "heap", "allocated", "mallocs", "client_cpu", "lag"}
	var parts []string
	for _, name := range rest {
		m, _ := metricNamed(name)
		if _, ok := m.value(s); ok {
			parts = append(parts, longNames[name]+" "+m.of(s))
		}
	}
	fmt.Fprintf(w, "\nAt %s: %s\n", s.Load, strings.Join(parts, ", "))
}

// deviceNote tells the time of the device from that in its queue, which a stage that hands it all
// images cannot; "" where the device does not tell.
func deviceNote(s *Step) string {
	if s.Service == nil || s.Service.Device <= 0 {
		return ""
	}
	return fmt.Sprintf("A run of the device takes %s ms; encode is that and the wait in the device's own queue.", significant(s.Service.Device))
}

// longNames say what the metrics that no column shows are.
var longNames = map[string]string{
	"cores": "cores busy with the service", "gc": "garbage collection's share of its CPU",
	"heap": "heap", "allocated": "allocated for each answer", "mallocs": "in so many objects",
	"client_cpu": "CPU of this load generator for each request", "lag": "the schedule's own lateness p99",
}

// writeRows prints the first column to the left and the others, but for a last one of text, to the right.
func writeRows(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	text := len(rows[0]) - 1
	if rows[0][text] != "errors" {
		text = 0
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || i == text {
				line += cell + space + "  "
			} else {
				line += space + cell + "  "
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}
