package admin

import (
	"math"
	"strconv"
	"strings"
)

// page is the text of /metrics as it grows, in the text format of Prometheus.
type page struct {
	b    []byte
	name string // of the family that samples belong to
}

// family begins one. kind is counter, gauge or histogram.
func (p *page) family(name, kind, help string) {
	p.name = name
	p.b = append(p.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// value adds a sample of the family; labels are names and values in turn. What is not known, NaN, is left out.
func (p *page) value(v float64, labels ...string) { p.suffixed("", v, labels...) }

// suffixed is value for a series of a histogram.
func (p *page) suffixed(suffix string, v float64, labels ...string) {
	if math.IsNaN(v) {
		return
	}
	p.b = append(append(p.b, series(p.name+suffix, labels...)...), ' ')
	p.b = append(strconv.AppendFloat(p.b, v, 'g', -1, 64), '\n')
}

// one is a family of a single sample.
func (p *page) one(name, kind, help string, v float64) {
	p.family(name, kind, help)
	p.value(v)
}

// oneOf adds a sample for each of the states, 1 for the one that is now and 0 for the others.
func (p *page) oneOf(now string, states []string, label string, labels ...string) {
	for _, state := range states {
		p.value(truth(state == now), append(labels, label, state)...)
	}
}

// Write makes p an io.Writer for the histograms.
func (p *page) Write(b []byte) (int, error) {
	p.b = append(p.b, b...)
	return len(b), nil
}

// series is a name with labels: names and values in turn.
func series(name string, labels ...string) string {
	if len(labels) == 0 {
		return name
	}
	var b strings.Builder
	b.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(labels[i] + `="` + escaped.Replace(strings.ToValidUTF8(labels[i+1], "?")) + `"`)
	}
	b.WriteByte('}')
	return b.String()
}

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// truth is 1 or 0.
func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
