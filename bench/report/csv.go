package report

import (
	"encoding/csv"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
)

// WriteCSV writes a line for each step: target, load, then every metric by its name, in ms, bytes and
// shares of 1; then, where any step has them, error:CODE, the requests that failed so;
// stage:NAME:mean, :p50 and :p99 in ms, and outside; batch:N, the runs with N images. A cell
// is empty where a number is not known.
func (r *Report) WriteCSV(w io.Writer) error {
	head := append([]string{"target", "load"}, MetricNames()...)
	codes, batches := map[string]int64{}, 0
	var stages []string
	for i := range r.Steps {
		s := &r.Steps[i]
		maps.Copy(codes, s.Errors)
		for _, t := range s.Stages {
			if !slices.Contains(stages, t.Stage) {
				stages = append(stages, t.Stage)
			}
		}
		if s.Service != nil {
			batches = max(batches, len(s.Service.Batches))
		}
	}
	errors := slices.Sorted(maps.Keys(codes))
	for _, code := range errors {
		head = append(head, "error:"+code)
	}
	for _, name := range stages {
		head = append(head, "stage:"+name+":mean", "stage:"+name+":p50", "stage:"+name+":p99")
	}
	if len(stages) > 0 {
		head = append(head, "outside")
	}
	for n := 1; n < batches; n++ {
		head = append(head, "batch:"+strconv.Itoa(n))
	}

	out := csv.NewWriter(w)
	_ = out.Write(head) // Error tells
	for i := range r.Steps {
		s := &r.Steps[i]
		line := []string{s.Target, s.Load}
		add := func(known bool, values ...float64) {
			for _, v := range values {
				cell := ""
				if known && !math.IsNaN(v) {
					cell = strconv.FormatFloat(v, 'g', 8, 64)
				}
				line = append(line, cell)
			}
		}
		for _, m := range metrics {
			add(true, m.value(s))
		}
		for _, code := range errors {
			add(true, float64(s.Errors[code]))
		}
		for _, name := range stages {
			var t StageLatency
			at := slices.IndexFunc(s.Stages, func(t StageLatency) bool { return t.Stage == name })
			if at >= 0 {
				t = s.Stages[at]
			}
			add(at >= 0, t.Mean, t.P50, t.P99)
		}
		if len(stages) > 0 {
			add(len(s.Stages) > 0, s.Outside)
		}
		for n := 1; n < batches; n++ {
			known := s.Service != nil && n < len(s.Service.Batches)
			count := uint64(0)
			if known {
				count = s.Service.Batches[n]
			}
			add(known, float64(count))
		}
		_ = out.Write(line)
	}
	out.Flush()
	return out.Error()
}
