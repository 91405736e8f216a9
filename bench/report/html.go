package report

import (
	_ "embed"
	"html/template"
	"io"
	"math"
	"strings"
)

//go:embed report.html
var pageText string

//go:embed page.css
var pageCSS string

//go:embed report.js
var script string

// uPlot 1.6.32 (MIT) as the npm package uplot has it in dist/, with its licence beside it.
var (
	//go:embed uplot/uPlot.iife.min.js
	uPlotJS string
	//go:embed uplot/uPlot.min.css
	uPlotCSS string
)

var page = template.Must(template.New("report").Parse(pageText))

// tile is a number in large type.
type tile struct{ Value, Name string }

// WriteHTML writes one page with everything in it: no other file, no network.
func (r *Report) WriteHTML(w io.Writer) error {
	main := r.Main()
	data := struct {
		*Report
		MainLoad      string
		Tiles         []tile
		Figures       []figure
		Stages        []stageBar
		Device        string
		Tables        []table
		Line          string
		UPlot, Script template.JS
		Style         template.CSS
	}{Report: r, MainLoad: main.Name(), Figures: r.figures(), Stages: r.stageBars(), Device: deviceNote(main), Tables: r.sides(),
		Line: strings.Join(r.Command, " "), UPlot: template.JS(uPlotJS), Script: template.JS(script), Style: template.CSS(uPlotCSS + pageCSS)}
	for _, t := range []tile{
		{"rate", "good answers a second"}, {"p50", "latency p50"}, {"p99", "latency p99"}, {"errors", "requests failed"},
		{"cpu", "CPU of the service for an answer"}, {"rss", "memory of the service"}, {"batch", "images in a batch"}, {"cache_hits", "prompts known"},
	} {
		if m := metricNamed(t.Value); !math.IsNaN(m.value(main)) {
			data.Tiles = append(data.Tiles, tile{m.of(main), t.Name})
		}
	}
	for i := range data.Tables {
		t := &data.Tables[i]
		t.Title = strings.TrimSuffix("A and B at "+t.Rows[0][0]+"; "+t.Title, "; ")
	}
	data.Tables = append(data.Tables, r.numbers())
	if len(main.Stages) > 0 {
		data.Tables = append(data.Tables, stages(main))
	}
	return page.Execute(w, data)
}

// numbers has a column for each step.
func (r *Report) numbers() table {
	t := table{"All numbers", [][]string{{""}}}
	for _, s := range r.Steps {
		t.Rows[0] = append(t.Rows[0], s.Name())
	}
	row := func(name string, cell func(*Step) string) {
		cells, known := []string{name}, false
		for i, s := range r.Steps {
			cells = append(cells, cell(s))
			known = known || cells[i+1] != "-"
		}
		if known {
			t.Rows = append(t.Rows, cells)
		}
	}
	for i := range metrics {
		row(metrics[i].name, metrics[i].of)
	}
	row("errors by code", errorsOf)
	return t
}
