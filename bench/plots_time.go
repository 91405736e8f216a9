package bench

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// stageFigure shows where the time of an answer goes, a bar for each step.
func stageFigure(steps []Step) figure {
	f := figure{Title: "Where the time goes", Note: "Mean of sampled answers. Pale: waiting for the stage; “outside” is HTTP, network and this client."}
	var shown []*Step
	for _, s := range some(steps) {
		if len(s.Stages) > 0 {
			shown = append(shown, s)
		}
	}
	if len(shown) > 0 && deviceNote(shown[len(shown)-1]) != "" {
		f.Note += " “encode” includes the wait in the device's own queue; the time of a run is “device” in the table."
	}
	longest := 0.0
	for _, s := range shown {
		sum := s.Outside
		for _, t := range s.Stages {
			sum += t.Mean
		}
		longest = max(longest, sum)
	}
	const bar, gap, left = 24.0, 10.0, 92.0
	height := plotTop + float64(len(shown))*(bar+gap) + marginBottom
	p := &plot{x: linearAxis("mean time (ms)", longest)}
	at := func(v float64) float64 { return left + (plotRight-left)*p.x.share(v) }
	p.open(f.Title, height)
	bottom := height - marginBottom
	for _, t := range p.x.ticks {
		p.line(at(t.value), plotTop-6, at(t.value), bottom, "grid")
		p.text(at(t.value), bottom+18, "middle", "tick", t.text)
	}
	p.text((left+plotRight)/2, height-8, "middle", "label", p.x.label)
	colours := stageColours(shown)
	for i, s := range shown {
		y := plotTop + float64(i)*(bar+gap)
		p.text(left-7, y+bar/2+4, "end", "tick", nameOf(s))
		from := 0.0
		for _, t := range append(s.Stages[:len(s.Stages):len(s.Stages)], StageLatency{Stage: "outside", Mean: s.Outside}) {
			width := at(from+t.Mean) - at(from)
			p.box(at(from), y, max(width-1, 0.5), bar, colours.of(t.Stage), fmt.Sprintf("%s: %s ms", t.Stage, significant(t.Mean)))
			if text := significant(t.Mean); width > 7*float64(len(text))+6 {
				p.text(at(from)+width/2, y+bar/2+4, "middle", "inside", text)
			}
			from += t.Mean
		}
	}
	for _, name := range append(colours.names, "outside") {
		f.Legend = append(f.Legend, legend{template.CSS(colours.of(name)), name})
	}
	f.SVG = template.HTML(p.close())
	return f
}

// stagePalette gives a stage its colour, and waiting for it a pale one.
type stagePalette struct {
	names  []string
	colour map[string]string
}

func stageColours(steps []*Step) stagePalette {
	c := stagePalette{colour: map[string]string{"outside": "var(--neutral)"}}
	n := 0
	base := func(name string) string {
		if c.colour[name] == "" {
			c.colour[name] = fmt.Sprintf("var(--s%d)", n%8)
			n++
		}
		return c.colour[name]
	}
	for _, s := range steps {
		for i, t := range s.Stages {
			if slices.Contains(c.names, t.Stage) {
				continue
			}
			c.names = append(c.names, t.Stage)
			stage, waits := strings.CutSuffix(t.Stage, "-wait")
			if t.Stage == "queue" && i+1 < len(s.Stages) {
				stage, waits = s.Stages[i+1].Stage, true
			}
			if waits {
				c.colour[t.Stage] = "color-mix(in oklab, " + base(stage) + " 40%, var(--surface))"
				continue
			}
			base(stage)
		}
	}
	return c
}

func (c stagePalette) of(stage string) string { return c.colour[stage] }

// timeFigures show rate and latency over the whole run.
func timeFigures(steps []Step) []figure {
	end, fastest := 0.0, 0.0
	lo, hi := math.Inf(1), 0.0
	bad := false
	for i := range steps {
		for _, m := range steps[i].Timeline {
			end, fastest = max(end, m.At), max(fastest, m.Rate, m.Bad)
			bad = bad || m.Bad > 0
			if m.P50 > 0 {
				lo, hi = min(lo, m.P50), max(hi, m.P99)
			}
		}
	}
	x := linearAxis("time since the start of the run (s)", end)
	rate := figure{Title: "Rate over time", Legend: []legend{{"var(--s0)", "good answers"}}}
	delay := figure{Title: "Latency over time", Note: "By the time of the answer. Solid p99, dashed p50."}
	if bad {
		rate.Legend = append(rate.Legend, legend{"var(--bad)", "errors"})
	}
	rates := newPlot(rate.Title, x, linearAxis("answers (1/s)", fastest))
	delays := newPlot(delay.Title, x, logAxis("latency (ms)", lo, hi))
	for i := range steps {
		s := &steps[i]
		colour := "var(--s0)"
		if s.Target == sides[1] {
			colour = "var(--s1)"
		}
		// A gap in time is another step, or another turn.
		for _, run := range runs(s.Timeline) {
			var good, failed, p50, p99 [][2]float64
			for _, m := range run {
				good = append(good, [2]float64{m.At, m.Rate})
				failed = append(failed, [2]float64{m.At, m.Bad})
				if m.P50 > 0 {
					p50, p99 = append(p50, [2]float64{m.At, m.P50}), append(p99, [2]float64{m.At, m.P99})
				}
			}
			rates.curve(good, colour, "curve")
			if bad {
				rates.curve(failed, "var(--bad)", "curve")
			}
			delays.curve(p50, colour, "curve dashed")
			delays.curve(p99, colour, "curve")
		}
		if len(steps) > 1 && len(steps) <= 12 && s.Target == "" && len(s.Timeline) > 0 {
			middle := s.Timeline[len(s.Timeline)/2].At
			for _, p := range []*plot{rates, delays} {
				p.text(p.px(middle), plotTop-3, "middle", "note", strings.TrimSuffix(strings.TrimSuffix(s.Load, " clients"), " client"))
			}
		}
	}
	if steps[0].Target != "" {
		rate.Legend = append([]legend{{"var(--s0)", "A"}, {"var(--s1)", "B"}}, rate.Legend[1:]...)
		delay.Legend = rate.Legend[:2]
	}
	rate.SVG, delay.SVG = template.HTML(rates.close()), template.HTML(delays.close())
	return []figure{rate, delay}
}

// runs splits a time line where it has gaps.
func runs(line []Moment) [][]Moment {
	var list [][]Moment
	from := 0
	for i := range line {
		if i > 1 && i > from+1 && line[i].At-line[i-1].At > 1.5*(line[from+1].At-line[from].At) {
			list = append(list, line[from:i])
			from = i
		}
	}
	return append(list, line[from:])
}
