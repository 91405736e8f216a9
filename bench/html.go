package bench

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
)

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Parse(pageText))

// tile is a number in large type.
type tile struct{ Value, Name string }

// WriteHTML writes one page with everything in it: no script, no other file, no network.
func (r *Report) WriteHTML(w io.Writer) error {
	main := r.Main()
	data := struct {
		*Report
		MainLoad string
		Tiles    []tile
		Figures  []figure
		Tables   []htmlTable
		Line     string
	}{Report: r, MainLoad: nameOf(main), Line: strings.Join(r.Command, " ")}
	for _, t := range []struct{ metric, name string }{
		{"rate", "good answers a second"}, {"p50", "latency p50"}, {"p99", "latency p99"}, {"errors", "requests failed"},
		{"cpu", "CPU of the service for an answer"}, {"rss", "memory of the service"}, {"batch", "images in a batch"}, {"cache_hits", "prompts known"},
	} {
		m, _ := metricNamed(t.metric)
		if _, ok := m.value(main); ok {
			data.Tiles = append(data.Tiles, tile{m.of(main), t.name})
		}
	}
	data.Figures = append(data.Figures, cdfFigure(r.Steps))
	if len(r.Steps) > 1 {
		data.Figures = append(data.Figures, loadFigure(r))
	}
	if len(main.Stages) > 0 {
		data.Figures = append(data.Figures, stageFigure(r.Steps))
	}
	data.Figures = append(data.Figures, timeFigures(r.Steps)...)
	if main.Service != nil && main.Service.Batch > 0 {
		data.Figures = append(data.Figures, batchFigure(main))
	}
	data.Tables = append(data.Tables, r.ratioTables()...)
	data.Tables = append(data.Tables, r.stepTable())
	if len(main.Stages) > 0 {
		data.Tables = append(data.Tables, stageTable(main))
	}
	return page.Execute(w, data)
}

type htmlTable struct {
	Title string
	Head  []string
	Rows  [][]string
}

// stepTable has a column for each step.
func (r *Report) stepTable() htmlTable {
	t := htmlTable{Title: "All numbers", Head: []string{""}}
	for i := range r.Steps {
		t.Head = append(t.Head, nameOf(&r.Steps[i]))
	}
	row := func(name string, cell func(*Step) string) {
		cells, known := []string{name}, false
		for i := range r.Steps {
			cells = append(cells, cell(&r.Steps[i]))
			known = known || cells[i+1] != "-"
		}
		if known {
			t.Rows = append(t.Rows, cells)
		}
	}
	for _, m := range metrics {
		row(m.name, m.of)
	}
	row("errors by code", errorsOf)
	return t
}

// ratioTables compare the two services of one run, load by load.
func (r *Report) ratioTables() []htmlTable {
	var list []htmlTable
	r.eachPair(func(a, b *Step) {
		rows := ratioRows("", a, b)
		t := htmlTable{Title: "A and B at " + a.Load, Head: []string{"", "A", "B", "B/A", ""}, Rows: rows[1:]}
		if text := turnsText(a, b); text != "" {
			t.Title += "; " + text
		}
		list = append(list, t)
	})
	return list
}

func stageTable(s *Step) htmlTable {
	t := htmlTable{Title: "Time in each stage at " + nameOf(s), Head: []string{"stage", "mean", "p50", "p99"}}
	for _, x := range s.Stages {
		t.Rows = append(t.Rows, []string{x.Stage, significant(x.Mean) + " ms", significant(x.P50) + " ms", significant(x.P99) + " ms"})
	}
	t.Rows = append(t.Rows, []string{"outside (HTTP, network, client)", significant(s.Outside) + " ms", "", ""})
	return t
}
