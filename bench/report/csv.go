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
	lines := [][]string{{"target", "load"}}
	for _, s := range r.Steps {
		lines = append(lines, []string{s.Target, s.Load})
	}
	for _, m := range append(slices.Clone(metrics), r.details()...) {
		lines[0] = append(lines[0], m.name)
		for i, s := range r.Steps {
			cell := ""
			if v := m.value(s); !math.IsNaN(v) {
				cell = strconv.FormatFloat(v, 'g', 8, 64)
			}
			lines[i+1] = append(lines[i+1], cell)
		}
	}
	return csv.NewWriter(w).WriteAll(lines)
}

// details are the errors, stages and batches of all steps, as metrics.
func (r *Report) details() (list []metric) {
	add := func(name string, value func(*Step) float64) { list = append(list, metric{name: name, value: value}) }
	codes, batches := map[string]int64{}, 0
	var stages []string
	for _, s := range r.Steps {
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
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		add("error:"+code, func(s *Step) float64 { return float64(s.Errors[code]) })
	}
	for _, name := range stages {
		for n, part := range []string{"mean", "p50", "p99"} {
			add("stage:"+name+":"+part, func(s *Step) float64 {
				i := slices.IndexFunc(s.Stages, func(t StageLatency) bool { return t.Stage == name })
				if i < 0 {
					return math.NaN()
				}
				return [...]float64{s.Stages[i].Mean, s.Stages[i].P50, s.Stages[i].P99}[n]
			})
		}
	}
	if len(stages) > 0 {
		add("outside", func(s *Step) float64 { return knownIf(len(s.Stages) > 0, s.Outside) })
	}
	for n := 1; n < batches; n++ {
		add("batch:"+strconv.Itoa(n), func(s *Step) float64 {
			if s.Service == nil || n >= len(s.Service.Batches) {
				return math.NaN()
			}
			return float64(s.Service.Batches[n])
		})
	}
	return list
}
