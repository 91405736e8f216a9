package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// figure is a plot that report.js draws.
type figure struct {
	Title string  `json:"title"`
	Note  string  `json:"note,omitempty"`
	X     axis    `json:"x"`
	Y     axis    `json:"y"`
	Lines []*line `json:"lines"`
}

// axis says what a direction means, and how its values are spread: from 0, or logarithmically.
type axis struct {
	Label string `json:"label"`
	Log   bool   `json:"log,omitempty"`
	Nines bool   `json:"nines,omitempty"` // values are nines(share) and read as percentages
	Whole bool   `json:"whole,omitempty"` // values are 1, 2, 3, ...
	Gaps  bool   `json:"gaps,omitempty"`  // lines have gaps where points are further apart than most: there was another step or turn
}

// line joins the points (x, y) of each run, with gaps between the runs.
type line struct {
	Name   string       `json:"name"`
	Colour string       `json:"colour"`          // as CSS has it
	Style  string       `json:"style,omitempty"` // "": solid; "dashed", with its points "dots" or "dashed dots"; "rings" alone; "bars"
	Points [][2]float64 `json:"points"`
	Texts  []string     `json:"texts,omitempty"` // beside the points
}

// line returns the line of that name, a new one where there is none.
func (f *figure) line(name, colour, style string) *line {
	for _, l := range f.Lines {
		if l.Name == name {
			return l
		}
	}
	l := &line{Name: name, Colour: colour, Style: style}
	f.Lines = append(f.Lines, l)
	return l
}

func (l *line) add(x, y float64) { l.Points = append(l.Points, [2]float64{x, y}) }

// palette is the colour of thing i of a few.
func palette(i int) string { return fmt.Sprintf("var(--s%d)", i%8) }

// ramp is the colour of line i of n: different ones for a few, from light to dark for many.
func ramp(i, n int) string {
	if n <= 3 {
		return palette(i)
	}
	return fmt.Sprintf("color-mix(in oklab, var(--ramp1) %d%%, var(--ramp0))", 100*i/(n-1))
}

// maxLines is how many steps one plot shows.
const maxLines = 10

// sorted are the steps from the smallest load to the largest: the clients before the fixed rates, A before B.
func (r *Report) sorted() []*Step {
	return slices.SortedStableFunc(slices.Values(r.Steps), func(a, b *Step) int {
		return cmp.Or(cmp.Compare(a.Offered, b.Offered), cmp.Compare(a.Clients, b.Clients), cmp.Compare(a.Target, b.Target))
	})
}

// some picks at most maxLines of the steps, evenly.
func (r *Report) some() []*Step {
	all := r.sorted()
	list := make([]*Step, min(len(all), maxLines))
	for i := range list {
		list[i] = all[i*(len(all)-1)/max(len(list)-1, 1)]
	}
	return list
}

// figures are those that the report has numbers for.
func (r *Report) figures() []figure {
	list := []figure{r.distributionFigure()}
	if len(r.Steps) > 1 {
		list = append(list, r.loadFigure())
	}
	list = append(list, r.timeFigures()...)
	if u := r.Main().Service; u != nil && u.Batch > 0 {
		f := figure{Title: "Batch sizes at " + r.Main().Load, X: axis{Label: "images in a batch", Whole: true}, Y: axis{Label: "batches (%)"},
			Note: fmt.Sprintf("Images that the encoder ran at once, %s on average.", significant(u.Batch))}
		for n := 1; n < len(u.Batches); n++ {
			f.line("batches (%)", palette(0), "bars").add(float64(n), 100*float64(u.Batches[n])/u.runs())
		}
		list = append(list, f)
	}
	return list
}

// nines puts percentiles where each tenth of the slower rest has the same length.
func nines(share float64) float64 { return -math.Log10(max(1-share, 1e-9)) }

// distributionFigure shows which share of the answers came within which latency.
func (r *Report) distributionFigure() figure {
	f := figure{Title: "Latency distribution", Note: "Of good answers. The scale to the top stretches the slowest ones.",
		X: axis{Label: "latency (ms)", Log: true}, Y: axis{Label: "answers up to this latency (%)", Nines: true}}
	shown := r.some()
	for i, s := range shown {
		name := s.Name()
		if s.Failed() > 0 {
			name += fmt.Sprintf(" (and %s %% failed)", significant(100*float64(s.Failed())/float64(max(s.Requests, 1))))
		}
		l := &line{Name: name, Colour: ramp(i, len(shown))}
		f.Lines = append(f.Lines, l)
		for _, d := range s.Distribution {
			// Of n answers the slowest says nothing of more than the n-th part.
			l.add(max(d[0], 0.001), nines(min(d[1], 1-1/float64(max(s.Requests-s.Failed(), 2)))))
		}
	}
	return f
}

// loadFigure shows the latency at each rate.
func (r *Report) loadFigure() figure {
	f := figure{Title: "Throughput against latency", Note: "The numbers are clients. A ring: requests failed there.",
		X: axis{Label: "good answers (1/s)"}, Y: axis{Label: "latency (ms)", Log: true}}
	fastest := 0.0
	for _, s := range r.sorted() {
		if s.Latency.Max <= 0 {
			continue
		}
		name := strings.TrimSpace(s.Target + map[bool]string{true: " fixed rate", false: " clients"}[s.Offered > 0])
		p99 := f.line(name+" p99", palette(len(f.Lines)/2), "dots")
		f.line(name+" p50", p99.Colour, "dashed dots").add(s.Rate, s.Latency.P50)
		p99.add(s.Rate, s.Latency.P99)
		if s.Clients > 0 {
			p99.Texts = append(p99.Texts, fmt.Sprint(s.Clients))
		}
		fastest = max(fastest, s.Rate)
	}
	for _, s := range r.sorted() {
		if s.Latency.Max > 0 && s.Failed() > 0 {
			f.line("requests failed", "var(--bad)", "rings").add(s.Rate, s.Latency.P99)
		}
	}
	conditions, _ := ParseGoal(r.Goal) // there may be none
	for _, c := range conditions {
		if c.metric.kind == kindTime && strings.HasPrefix(c.metric.name, "p") && c.value > 0 {
			goal := f.line("goal "+c.text, "var(--bad)", "dashed")
			goal.add(0, c.value)
			goal.add(fastest, c.value)
		}
	}
	return f
}

// timeFigures show rate and latency over the whole run.
func (r *Report) timeFigures() []figure {
	x := axis{Label: "time since the start of the run (s)", Gaps: true}
	rate := figure{Title: "Rate over time", X: x, Y: axis{Label: "answers (1/s)"}}
	delay := figure{Title: "Latency over time", Note: "By the time of the answer.", X: x, Y: axis{Label: "latency (ms)", Log: true}}
	for n, target := range []string{"", SideA, SideB} {
		add := func(f *figure, name, colour, style string, value func(Moment) float64) {
			l, most := &line{Name: strings.TrimSpace(target + " " + name), Colour: colour, Style: style}, 0.0
			for _, s := range r.Steps {
				for _, m := range s.Timeline {
					if v := value(m); s.Target == target && (v > 0 || !f.Y.Log) {
						l.add(m.At, v)
						most = max(most, v)
					}
				}
			}
			if most > 0 {
				f.Lines = append(f.Lines, l)
			}
		}
		add(&rate, "good answers", palette(max(n-1, 0)), "", func(m Moment) float64 { return m.Rate })
		add(&rate, "errors", "var(--bad)", "", func(m Moment) float64 { return m.Bad })
		add(&delay, "p99", palette(max(n-1, 0)), "", func(m Moment) float64 { return m.P99 })
		add(&delay, "p50", palette(max(n-1, 0)), "dashed", func(m Moment) float64 { return m.P50 })
	}
	return []figure{rate, delay}
}

// stageBar shows where the time of the answers of a step goes.
type stageBar struct {
	Name  string
	Parts []stagePart
}

type stagePart struct {
	Stage, Mean string
	Colour      template.CSS
	Width       float64 // % of the longest bar
}

// stageBars are as long as the mean latencies. Waiting for a stage is a paler one of its colour.
func (r *Report) stageBars() []stageBar {
	shown := slices.DeleteFunc(r.some(), func(s *Step) bool { return len(s.Stages) == 0 })
	longest := 0.0
	for _, s := range shown {
		sum := s.Outside
		for _, t := range s.Stages {
			sum += t.Mean
		}
		longest = max(longest, sum)
	}
	var bars []stageBar
	colours := map[string]string{}
	for _, s := range shown {
		bar := stageBar{Name: s.Name()}
		add := func(stage string, mean float64, colour string) {
			bar.Parts = append(bar.Parts, stagePart{stage, significant(mean), template.CSS(colour), 100 * mean / max(longest, 1e-9)})
		}
		for i, t := range s.Stages {
			stage, waits := strings.CutSuffix(t.Stage, "-wait")
			if t.Stage == "queue" && i+1 < len(s.Stages) {
				stage, waits = s.Stages[i+1].Stage, true
			}
			if colours[stage] == "" {
				colours[stage] = palette(len(colours))
			}
			colour := colours[stage]
			if waits {
				colour = "color-mix(in oklab, " + colour + " 40%, var(--surface))"
			}
			add(t.Stage, t.Mean, colour)
		}
		add("outside", s.Outside, "var(--neutral)")
		bars = append(bars, bar)
	}
	return bars
}
