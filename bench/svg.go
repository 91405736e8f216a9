package bench

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// Size and margins of a plot, in the units of its view box.
const (
	plotWidth, plotHeight   = 560.0, 320.0
	marginLeft, marginRight = 64.0, 16.0
	marginTop, marginBottom = 14.0, 46.0
	plotLeft, plotRight     = marginLeft, plotWidth - marginRight
	plotTop, plotBottom     = marginTop, plotHeight - marginBottom
)

// axis maps values to pixels and has the ticks.
type axis struct {
	label  string
	lo, hi float64
	log    bool
	ticks  []tick
}

type tick struct {
	value float64
	text  string
}

// linearAxis starts at 0.
func linearAxis(label string, hi float64) axis {
	if hi <= 0 {
		hi = 1
	}
	power := math.Pow(10, math.Floor(math.Log10(hi)))
	step := 2 * power
	for _, part := range []float64{0.2, 0.5, 1} {
		if hi/(part*power) <= 6 {
			step = part * power
			break
		}
	}
	a := axis{label: label, hi: math.Ceil(hi/step-1e-9) * step}
	for n := 0.0; n*step <= a.hi*1.0001; n++ {
		a.ticks = append(a.ticks, tick{n * step, significant(n * step)})
	}
	return a
}

// logAxis has ticks at 1, 2 and 5 times the powers of ten that lo and hi lie between.
func logAxis(label string, lo, hi float64) axis {
	if lo <= 0 || hi < lo {
		lo, hi = 1, 10
	}
	a := axis{label: label, log: true}
	steps := []float64{1, 2, 5}
	if hi/lo > 2000 {
		steps = steps[:1]
	}
	for power := math.Pow(10, math.Floor(math.Log10(lo))); ; power *= 10 {
		for _, s := range steps {
			v := power * s
			if v <= lo {
				a.ticks = a.ticks[:0] // the last one that is not above is the start
			}
			a.ticks = append(a.ticks, tick{v, significant(v)})
			if v >= hi && len(a.ticks) > 1 {
				a.lo, a.hi = a.ticks[0].value, v
				return a
			}
		}
	}
}

// share is where v lies between lo and hi, 0..1.
func (a axis) share(v float64) float64 {
	if a.log {
		return math.Log(max(v, a.lo)/a.lo) / math.Log(a.hi/a.lo)
	}
	return (v - a.lo) / (a.hi - a.lo)
}

// plot is an SVG picture under construction.
type plot struct {
	x, y axis
	b    strings.Builder
}

func (p *plot) px(v float64) float64 {
	return plotLeft + (plotRight-plotLeft)*min(max(p.x.share(v), 0), 1)
}
func (p *plot) py(v float64) float64 {
	return plotBottom - (plotBottom-plotTop)*min(max(p.y.share(v), 0), 1)
}

// newPlot draws the grid and the axes. title is for those who do not see the picture.
func newPlot(title string, x, y axis) *plot {
	p := &plot{x: x, y: y}
	p.open(title, plotHeight)
	for _, t := range y.ticks {
		p.line(plotLeft, p.py(t.value), plotRight, p.py(t.value), "grid")
		p.text(plotLeft-7, p.py(t.value)+4, "end", "tick", t.text)
	}
	for _, t := range x.ticks {
		p.line(p.px(t.value), plotBottom, p.px(t.value), plotBottom+4, "axis")
		p.text(p.px(t.value), plotBottom+18, "middle", "tick", t.text)
	}
	p.line(plotLeft, plotBottom, plotRight, plotBottom, "axis")
	p.text((plotLeft+plotRight)/2, plotHeight-8, "middle", "label", x.label)
	fmt.Fprintf(&p.b, `<text class="label" text-anchor="middle" transform="translate(14 %.1f) rotate(-90)">%s</text>`,
		(plotTop+plotBottom)/2, html.EscapeString(y.label))
	return p
}

func (p *plot) open(title string, height float64) {
	fmt.Fprintf(&p.b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, plotWidth, height, html.EscapeString(title))
}

func (p *plot) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&p.b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (p *plot) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(&p.b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, class, x, y, anchor, html.EscapeString(text))
}

// curve joins points (values, not pixels).
func (p *plot) curve(points [][2]float64, colour, class string) {
	if len(points) == 0 {
		return
	}
	p.b.WriteString(`<polyline class="` + class + `" style="stroke:` + colour + `" points="`)
	for _, v := range points {
		fmt.Fprintf(&p.b, "%.1f,%.1f ", p.px(v[0]), p.py(v[1]))
	}
	p.b.WriteString(`"/>`)
}

// dot marks a point; a hollow one stands for one that is not as good as it looks.
func (p *plot) dot(x, y float64, colour string, hollow bool, title string) {
	fill := colour
	if hollow {
		fill = "var(--surface)"
	}
	fmt.Fprintf(&p.b, `<circle cx="%.1f" cy="%.1f" r="4" style="fill:%s;stroke:%s"><title>%s</title></circle>`,
		p.px(x), p.py(y), fill, colour, html.EscapeString(title))
}

// box is a rectangle in pixels.
func (p *plot) box(x, y, width, height float64, colour string, title string) {
	fmt.Fprintf(&p.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" style="fill:%s"><title>%s</title></rect>`,
		x, y, max(width, 0), height, colour, html.EscapeString(title))
}

func (p *plot) close() string {
	p.b.WriteString("</svg>")
	return p.b.String()
}

// legend is an entry below a plot.
type legend struct {
	Colour template.CSS
	Text   string
}

// colourOf is that of line i of n: different ones for a few, from light to dark for many.
func colourOf(i, n int) string {
	if n <= 3 {
		return fmt.Sprintf("var(--s%d)", i)
	}
	return fmt.Sprintf("color-mix(in oklab, var(--ramp1) %d%%, var(--ramp0))", 100*i/(n-1))
}
