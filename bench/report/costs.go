package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// Cost is what requests with one kind of body cost a service, and a bare handler that only reads them.
type Cost struct {
	Body, Size    string
	Bytes         float64   // of a body
	service, bare []float64 // CPU of a request in ms, one a turn
}

// Add adds a turn of both. Steps without a service that tells count as not known, as does a bare handler that there is not (nil).
func (c *Cost) Add(service, bare *Step) {
	cpu := metricNamed("cpu").value
	if bare == nil {
		bare = &Step{}
	}
	c.service, c.bare = append(c.service, cpu(service)), append(c.bare, cpu(bare))
}

// above is how much more the service needs than the bare handler, in each turn.
func (c *Cost) above() []float64 {
	d := make([]float64, len(c.service))
	for i := range d {
		d[i] = c.service[i] - c.bare[i]
	}
	return d
}

// WriteCosts writes a table of the medians over the turns, with the least and the most.
func WriteCosts(w io.Writer, rows []Cost) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "body\timage\tkB\tCPU ms\tbare handler\tabove it\t")
	for _, c := range rows {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\t%s\t%s\t\n", c.Body, c.Size, c.Bytes/1000, spread(c.service), spread(c.bare), spread(c.above()))
	}
	_ = t.Flush() // to a terminal or a buffer
}

// spread is the median of values, and the least and the most.
func spread(values []float64) string {
	if len(values) == 0 || slices.ContainsFunc(values, math.IsNaN) {
		return "-"
	}
	v := slices.Sorted(slices.Values(values))
	return fmt.Sprintf("%.3f (%.3f to %.3f)", (v[len(v)/2]+v[(len(v)-1)/2])/2, v[0], v[len(v)-1])
}
