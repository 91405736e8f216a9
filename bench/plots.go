package bench

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// figure is a plot and its words.
type figure struct {
	Title, Note string
	SVG         template.HTML
	Legend      []legend
}

// maxLines is how many steps one plot shows.
const maxLines = 10

// some picks at most maxLines steps, evenly, from the smallest load to the largest.
func some(steps []Step) []*Step {
	all := make([]*Step, len(steps))
	for i := range steps {
		all[i] = &steps[i]
	}
	slices.SortStableFunc(all, byLoad)
	n := min(len(all), maxLines)
	list := make([]*Step, n)
	for i := range n {
		list[i] = all[i*(len(all)-1)/max(n-1, 1)]
	}
	return list
}

// byLoad sorts the clients before the fixed rates, each by their number, A before B.
func byLoad(a, b *Step) int {
	return cmp.Or(cmp.Compare(a.Offered, b.Offered), cmp.Compare(a.Clients, b.Clients), cmp.Compare(a.Target, b.Target))
}

func nameOf(s *Step) string { return strings.TrimSpace(s.Target + " " + s.Load) }

// nines puts percentiles where each halving of the slower rest has the same length.
func nines(share float64) float64 { return -math.Log10(max(1-share, 1e-9)) }

// cdfFigure shows which share of the answers came within which latency.
func cdfFigure(steps []Step) figure {
	lo, hi, answers := math.Inf(1), 0.0, int64(0)
	for i := range steps {
		if d := steps[i].Distribution; len(d) > 0 {
			lo, hi = min(lo, max(d[0][0], 0.01)), max(hi, d[len(d)-1][0])
			answers = max(answers, steps[i].Requests-steps[i].failed())
		}
	}
	y := axis{label: "answers up to this latency (%)", ticks: []tick{{0, "0"}, {nines(.5), "50"}}}
	for n := 1.0; ; n++ {
		y.hi = n
		y.ticks = append(y.ticks, tick{n, []string{"", "90", "99", "99.9", "99.99", "99.999"}[int(n)]})
		if n >= 2 && math.Pow(10, n) >= float64(answers) || n == 5 {
			break
		}
	}
	f := figure{Title: "Latency distribution", Note: "Of good answers. The scale to the top stretches the slowest ones."}
	p := newPlot(f.Title, logAxis("latency (ms)", lo, hi), y)
	shown := some(steps)
	for i, s := range shown {
		colour := colourOf(i, len(shown))
		points := make([][2]float64, 0, len(s.Distribution))
		for _, d := range s.Distribution {
			// Of n answers the slowest says nothing of more than the n-th part.
			points = append(points, [2]float64{d[0], nines(min(d[1], 1-1/float64(max(s.Requests-s.failed(), 2))))})
		}
		p.curve(points, colour, "curve")
		text := nameOf(s)
		if s.failed() > 0 {
			text += fmt.Sprintf(" (and %s %% failed)", significant(100*float64(s.failed())/float64(max(s.Requests, 1))))
		}
		f.Legend = append(f.Legend, legend{template.CSS(colour), text})
	}
	f.SVG = template.HTML(p.close())
	return f
}

// loadFigure shows the latency at each rate.
func loadFigure(r *Report) figure {
	f := figure{Title: "Throughput against latency", Note: "A hollow point: requests failed there. Solid p99, dashed p50."}
	lo, hi, fastest := math.Inf(1), 0.0, 0.0
	groups := map[string][]*Step{}
	var names []string
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Latency.Max == 0 {
			continue
		}
		name := strings.TrimSpace(s.Target + map[bool]string{true: " fixed rate", false: " clients"}[s.Offered > 0])
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], s)
		lo, hi, fastest = min(lo, s.Latency.P50), max(hi, s.Latency.P99), max(fastest, s.Rate)
	}
	limits := goalLines(r.Goal)
	for _, l := range limits {
		lo, hi = min(lo, l.value), max(hi, l.value)
	}
	p := newPlot(f.Title, linearAxis("good answers (1/s)", fastest), logAxis("latency (ms)", lo, hi))
	for _, l := range limits {
		p.line(plotLeft, p.py(l.value), plotRight, p.py(l.value), "goal")
		p.text(plotLeft+4, p.py(l.value)-4, "start", "note", "goal "+l.text)
	}
	for i, name := range names {
		steps := groups[name]
		slices.SortStableFunc(steps, byLoad)
		colour := fmt.Sprintf("var(--s%d)", i)
		var p50, p99 [][2]float64
		for _, s := range steps {
			p50 = append(p50, [2]float64{s.Rate, s.Latency.P50})
			p99 = append(p99, [2]float64{s.Rate, s.Latency.P99})
		}
		p.curve(p50, colour, "curve dashed")
		p.curve(p99, colour, "curve")
		for n, s := range steps {
			title := fmt.Sprintf("%s: %s/s, p50 %s ms, p99 %s ms, errors %s", nameOf(s), significant(s.Rate),
				significant(s.Latency.P50), significant(s.Latency.P99), errorsOf(s))
			p.dot(s.Rate, s.Latency.P50, colour, s.failed() > 0, title)
			p.dot(s.Rate, s.Latency.P99, colour, s.failed() > 0, title)
			far := n == 0 || math.Hypot(p.px(s.Rate)-p.px(steps[n-1].Rate), p.py(s.Latency.P99)-p.py(steps[n-1].Latency.P99)) > 14
			if s.Clients > 0 && far {
				p.text(p.px(s.Rate)-7, p.py(s.Latency.P99)-6, "end", "note", fmt.Sprint(s.Clients))
			}
		}
		f.Legend = append(f.Legend, legend{template.CSS(colour), name})
	}
	f.SVG = template.HTML(p.close())
	return f
}

// goalLines are the latencies that the goal asks for.
func goalLines(goal string) []tick {
	conditions, err := ParseGoal(goal)
	if err != nil {
		return nil
	}
	var lines []tick
	for _, c := range conditions {
		if c.metric.kind == kindTime && strings.HasPrefix(c.metric.name, "p") {
			lines = append(lines, tick{c.value, c.text})
		}
	}
	return lines
}

// batchFigure shows how many images the encoder got at once.
func batchFigure(s *Step) figure {
	f := figure{Title: "Batch sizes at " + s.Load, Note: fmt.Sprintf("Images that the encoder ran at once, %s on average.", significant(s.Service.Batch))}
	total, most := 0.0, 0.0
	for _, n := range s.Service.Batches {
		total += float64(n)
		most = max(most, float64(n))
	}
	last := max(len(s.Service.Batches)-1, 1)
	x := axis{label: "images in a batch", lo: 0.4, hi: float64(last) + 0.6}
	every := (last + 15) / 16
	for n := every; n <= last; n += every {
		x.ticks = append(x.ticks, tick{float64(n), fmt.Sprint(n)})
	}
	p := newPlot(f.Title, x, linearAxis("batches (%)", 100*most/total))
	width := min(0.8*(p.px(2)-p.px(1)), 46)
	for n, count := range s.Service.Batches {
		if n > 0 && count > 0 {
			share := 100 * float64(count) / total
			top := p.py(share)
			p.box(p.px(float64(n))-width/2, top, width, plotBottom-top, "var(--s0)", fmt.Sprintf("%d images: %s %% of %.0f batches", n, significant(share), total))
		}
	}
	f.SVG = template.HTML(p.close())
	return f
}
