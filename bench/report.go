package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// reportFormat is the version of the JSON file.
const reportFormat = 1

// Report is a run and what came out of it.
type Report struct {
	Format   int       `json:"format"`
	Program  string    `json:"program"` // hailo-clip's version; set by the caller
	Command  []string  `json:"command"` // arguments; set by the caller
	Started  time.Time `json:"started"`
	Machine  Machine   `json:"machine"`
	Services []string  `json:"services"` // URL, with what GET /health tells; A and B where there are two
	Request  string    `json:"request"`  // what was asked
	Warmup   float64   `json:"warmup_seconds"`
	Goal     string    `json:"goal,omitempty"`
	Searched string    `json:"searched,omitempty"` // SearchRate or SearchClients
	Best     string    `json:"best,omitempty"`     // load of the step with the highest rate that met the goal
	Steps    []Step    `json:"steps"`

	Unfinished bool `json:"unfinished,omitempty"` // the run ended before its last step
}

func newReport(a, b *Target, o Options) *Report {
	r := &Report{Format: reportFormat, Started: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(),
		Warmup: o.Window.Warmup.Seconds(), Goal: o.Goal.String(), Searched: o.Search, Steps: []Step{}}
	r.Request = fmt.Sprintf("POST %s, %d different pictures, %d prompts%s, mean body %.1f kB", a.bodies.path, a.bodies.Pictures(),
		a.bodies.Prompts(), map[bool]string{true: " (new ones in every request)"}[a.bodies.fresh()], float64(a.bodies.Bytes())/1000)
	r.Services = append(r.Services, a.describe())
	if b != nil {
		r.Services = append(r.Services, b.describe())
	}
	return r
}

// Named are the services with the names that they have in the steps, where there are two.
func (r *Report) Named() []string {
	if len(r.Services) < len(sides) {
		return r.Services
	}
	list := make([]string, len(r.Services))
	for i, s := range r.Services {
		list[i] = s
		if i < len(sides) {
			list[i] = sides[i] + ": " + s
		}
	}
	return list
}

// describe is the URL and what the service says it is.
func (t *Target) describe() string {
	var h struct {
		Service, Version, Model, Backend string
		Mode                             string `json:"runtime_mode"`
	}
	status, body, err := t.get("/health", maxStats)
	if err != nil || status == 0 || json.Unmarshal(body, &h) != nil || h.Service == "" {
		return t.base
	}
	text := fmt.Sprintf("%s %s, model %s, backend %s", h.Service, h.Version, h.Model, h.Backend)
	if h.Mode == "simulated" {
		text += " (simulated)"
	}
	return fmt.Sprintf("%s: %.200s", t.base, printable(text))
}

// printable is text of a stranger without what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// finish names the best step.
func (r *Report) finish() {
	if best := r.best(); best != nil {
		r.Best = best.Load
	}
}

// best is the step with the highest rate of those that met the goal; nil if none did.
func (r *Report) best() *Step {
	var best *Step
	for i := range r.Steps {
		if s := &r.Steps[i]; s.Met != nil && *s.Met && s.Target != sides[1] && (best == nil || s.Rate > best.Rate) {
			best = s
		}
	}
	return best
}

// step returns the step of that target and load, nil if there is none. Of several it is one that
// met the goal, or the first.
func (r *Report) step(target, load string) *Step {
	var first *Step
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Target != target || s.Load != load {
			continue
		}
		if s.Met != nil && *s.Met {
			return s
		}
		if first == nil {
			first = s
		}
	}
	return first
}

// Main is the step that the details of a report are about: the best one, or the last.
func (r *Report) Main() *Step {
	if s := r.best(); s != nil {
		return s
	}
	last := len(r.Steps) - 1
	if r.Steps[last].Target == sides[1] && last > 0 {
		last--
	}
	return &r.Steps[last]
}

// Assert returns an error that names every condition that does not hold, and every step that proves
// nothing: after a search for the best step, else for all steps of the first service. A search
// that found nothing is an error too.
func (r *Report) Assert(conditions Goal) error {
	if r.Searched != "" && r.Best == "" {
		return fmt.Errorf("no load meets %s", r.Goal)
	}
	var errs []error
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Target == sides[1] || r.Searched != "" && s != r.Main() {
			continue
		}
		if why := conditions.worthless(s); why != "" && len(conditions) > 0 {
			errs = append(errs, fmt.Errorf("%s does not hold: %s at %s", conditions, why, s.Load))
		}
		for _, c := range conditions {
			if !c.Holds(s) {
				errs = append(errs, fmt.Errorf("%s does not hold: %s is %s at %s", c, c.metric.name, c.metric.of(s), s.Load))
			}
		}
	}
	return errors.Join(errs...)
}

// WriteJSON writes what ReadReport reads.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// maxReport bounds a report that is read.
const maxReport = 64 << 20

// ReadReport reads a report that WriteJSON wrote.
func ReadReport(from io.Reader) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(from, maxReport+1))
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if r.Format != reportFormat || len(r.Steps) == 0 || len(b) > maxReport {
		return nil, fmt.Errorf("not a report of format %d with at least one step", reportFormat)
	}
	return &r, nil
}

// of is the metric of a step for people, with its unit; "-" where it is not known.
func (m metric) of(s *Step) string {
	v, ok := m.value(s)
	if !ok {
		return "-"
	}
	return m.format(v)
}

func (m metric) format(v float64) string {
	switch m.kind {
	case kindTime:
		return significant(v) + " ms"
	case kindShare:
		return significant(100*v) + " %"
	case kindBytes:
		if v < 1e6 {
			return significant(v/1e3) + " kB"
		}
		return significant(v/1e6) + " MB"
	}
	return significant(v)
}

// significant has three digits that mean something, and never an exponent.
func significant(v float64) string {
	digits := 0
	for limit := 100.0; digits < 3 && v < limit && v != 0; limit /= 10 {
		digits++
	}
	b := strconv.AppendFloat(nil, v, 'f', digits, 64)
	if bytes.ContainsRune(b, '.') {
		b = bytes.TrimRight(bytes.TrimRight(b, "0"), ".")
	}
	return string(b)
}
