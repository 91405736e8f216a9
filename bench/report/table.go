package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"
)

// table is rows of cells, the first of which is the head, on a terminal or in the page.
type table struct {
	Title string
	Rows  [][]string
}

// write prints the rows for a terminal: the first column and one of errors to the left, others to the right.
func (t table) write(w io.Writer) {
	widths := make([]int, len(t.Rows[0]))
	for _, row := range t.Rows {
		for i, cell := range row {
			widths[i] = max(widths[i], runewidth.StringWidth(cell))
		}
	}
	for _, row := range t.Rows {
		var line strings.Builder
		for i, cell := range row {
			if i == 0 || t.Rows[0][i] == "errors" {
				line.WriteString(runewidth.FillRight(cell, widths[i]) + "  ")
			} else {
				line.WriteString(runewidth.FillLeft(cell, widths[i]) + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// WriteTable prints the report for a terminal.
func (r *Report) WriteTable(w io.Writer) {
	fmt.Fprintf(w, "%s\n%s\n%s\n\n", r.Machine, strings.Join(r.Named(), "\n"), r.Request)
	r.steps().write(w)
	switch {
	case r.Unfinished:
		fmt.Fprintln(w, "\nThe run was ended before its last step.")
	case r.Goal != "" && r.Best == "":
		fmt.Fprintf(w, "\nNo load meets %s.\n", r.Goal)
	case r.Goal != "":
		fmt.Fprintf(w, "\nThe highest rate that meets %s: %s/s, at %s.\n", r.Goal, significant(r.Main().Rate), r.Best)
	}
	r.writeDetails(w)
	if len(r.Services) == 2 {
		fmt.Fprintln(w)
		for _, t := range r.sides() {
			t.write(w)
			if t.Title != "" {
				fmt.Fprintln(w, t.Title)
			}
		}
	}
}

// columns of the table of steps, with other names than their metrics' where those say too little.
var columns = [][2]string{{"rate", "answers/s"}, {"requests"}, {"p50"}, {"p90"}, {"p99"}, {"p99.9"}, {"max"},
	{"cpu", "cpu/answer"}, {"rss", "memory"}, {"batch", "mean batch"}, {"cache_hits", "cache hits"}}

// steps has a row for each step.
func (r *Report) steps() table {
	head := []string{"load"}
	for _, c := range columns {
		head = append(head, c[min(1, len(c[1]))])
	}
	t := table{Rows: [][]string{append(head, "errors")}}
	for _, s := range r.Steps {
		row := []string{s.Name()}
		for _, c := range columns {
			row = append(row, metricNamed(c[0]).of(s))
		}
		errors := errorsOf(s)
		if s.Met != nil && !*s.Met {
			errors += "  misses the goal"
		}
		t.Rows = append(t.Rows, append(row, errors))
	}
	return t
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

// stages has a row for each stage of a step.
func stages(s *Step) table {
	t := table{"Time in each stage at " + s.Name(), [][]string{{"stage", "mean", "p50", "p99"}}}
	for _, x := range s.Stages {
		t.Rows = append(t.Rows, []string{x.Stage, ms(x.Mean), ms(x.P50), ms(x.P99)})
	}
	t.Rows = append(t.Rows, []string{"HTTP, network, client", ms(s.Outside), "", ""})
	return t
}

// writeDetails prints what is known of the inside of the service for the main step.
func (r *Report) writeDetails(w io.Writer) {
	s := r.Main()
	if len(s.Stages) > 0 {
		t := stages(s)
		fmt.Fprintf(w, "\n%s:\n", t.Title)
		t.write(w)
	}
	if u := s.Service; u != nil && u.Batch > 0 {
		var parts []string
		for size, n := range u.Batches {
			if n > 0 {
				parts = append(parts, fmt.Sprintf("%d: %s%%", size, significant(100*float64(n)/u.runs())))
			}
		}
		fmt.Fprintf(w, "\nImages in a batch at %s: %s\n", s.Load, strings.Join(parts, "  "))
	}
	if note := deviceNote(s); note != "" {
		fmt.Fprintln(w, note)
	}
	var parts []string
	for _, x := range [][2]string{{"lag_p50", "lag as the service says p50"}, {"lag_p99", "p99"}, {"lag_max", "at most"}, {"share_min", "answers of the stream with the fewest"},
		{"share_max", "with the most"}, {"reused", "answers that needed no encoder"}, {"memory_growth", "growth of the memory"}, {"cores", "cores busy with the service"}, {"gc", "garbage collection's share of its CPU"}, {"heap", "heap"},
		{"allocated", "allocated for each answer"}, {"mallocs", "in so many objects"},
		{"client_cpu", "CPU of this load generator for each request"}, {"lag", "the schedule's own lateness p99"}} {
		if m := metricNamed(x[0]); !math.IsNaN(m.value(s)) {
			parts = append(parts, x[1]+" "+m.of(s))
		}
	}
	fmt.Fprintf(w, "\nAt %s: %s\n", s.Load, strings.Join(parts, ", "))
}

// runs is the number of runs of all sizes.
func (u *ServiceUse) runs() float64 {
	total := uint64(0)
	for _, n := range u.Batches {
		total += n
	}
	return float64(total)
}

// deviceNote tells the time of the device from that in its queue, which a stage that hands it all
// images cannot; "" where the device does not tell.
func deviceNote(s *Step) string {
	if s.Service == nil || s.Service.Device <= 0 {
		return ""
	}
	return fmt.Sprintf("A run of the device takes %s; encode is that and the wait in the device's own queue.", ms(s.Service.Device))
}

// Path is the way of one image through the pipeline, measured without HTTP: one at a time, so
// without waiting for others. Times are milliseconds.
type Path struct {
	Name      string
	Bytes     int // compressed
	Images    int64
	Stages    []StageLatency
	Latency   Latency // of the whole way, hand-over between the stages included
	CPU       float64 // of this process for an image, user and system
	Allocated float64 // bytes
	Mallocs   float64
}

// WritePaths prints the paths as tables for a terminal.
func WritePaths(w io.Writer, paths []Path) {
	for i, p := range paths {
		if i > 0 {
			fmt.Fprintln(w)
		}
		t := table{Rows: [][]string{{p.Name, "mean", "p50", "p99"}}}
		for _, s := range append(p.Stages, StageLatency{"whole way", p.Latency.Mean, p.Latency.P50, p.Latency.P99}) {
			t.Rows = append(t.Rows, []string{"  " + s.Stage, ms(s.Mean), ms(s.P50), ms(s.P99)})
		}
		t.write(w)
		fmt.Fprintf(w, "  %d images of %s kB; each: %s CPU, %s kB in %s objects allocated\n",
			p.Images, significant(float64(p.Bytes)/1000), ms(p.CPU), significant(p.Allocated/1000), significant(p.Mallocs))
	}
}
