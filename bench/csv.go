package bench

import (
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strconv"
)

// WriteCSV writes a line for each step: target, load, then every metric by its name, in ms, bytes and
// shares of 1; then, where any step has them, error:CODE, the requests that failed so;
// stage:NAME:mean, :p50 and :p99 in ms, and outside; batch:N, the runs with N images. A cell
// is empty where a number is not known.
func (r *Report) WriteCSV(w io.Writer) error {
	columns := r.csvColumns()
	lines := [][]string{{"target", "load"}}
	for i := range r.Steps {
		lines = append(lines, []string{r.Steps[i].Target, r.Steps[i].Load})
	}
	for _, c := range columns {
		lines[0] = append(lines[0], c.name)
		for i := range r.Steps {
			cell := ""
			if v, ok := c.value(&r.Steps[i]); ok {
				cell = strconv.FormatFloat(v, 'g', 8, 64)
			}
			lines[i+1] = append(lines[i+1], cell)
		}
	}
	return csv.NewWriter(w).WriteAll(lines)
}

type csvColumn struct {
	name  string
	value func(*Step) (float64, bool)
}

func (r *Report) csvColumns() []csvColumn {
	var list []csvColumn
	add := func(name string, value func(*Step) (float64, bool)) { list = append(list, csvColumn{name, value}) }
	for _, m := range metrics {
		add(m.name, m.value)
	}
	codes, batches := map[string]bool{}, 0
	var stages []string
	for i := range r.Steps {
		s := &r.Steps[i]
		for code := range s.Errors {
			codes[code] = true
		}
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
		add("error:"+code, func(s *Step) (float64, bool) { return float64(s.Errors[code]), true })
	}
	for _, name := range stages {
		stage := func(of func(StageLatency) float64) func(*Step) (float64, bool) {
			return func(s *Step) (float64, bool) {
				i := slices.IndexFunc(s.Stages, func(t StageLatency) bool { return t.Stage == name })
				if i < 0 {
					return 0, false
				}
				return of(s.Stages[i]), true
			}
		}
		add("stage:"+name+":mean", stage(func(t StageLatency) float64 { return t.Mean }))
		add("stage:"+name+":p50", stage(func(t StageLatency) float64 { return t.P50 }))
		add("stage:"+name+":p99", stage(func(t StageLatency) float64 { return t.P99 }))
	}
	if len(stages) > 0 {
		add("outside", func(s *Step) (float64, bool) { return s.Outside, len(s.Stages) > 0 })
	}
	for n := 1; n < batches; n++ {
		add("batch:"+strconv.Itoa(n), func(s *Step) (float64, bool) {
			if s.Service == nil || n >= len(s.Service.Batches) {
				return 0, false
			}
			return float64(s.Service.Batches[n]), true
		})
	}
	return list
}
