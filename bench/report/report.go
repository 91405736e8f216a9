// Package report holds what a measurement of the service found: its steps with their numbers, goals
// that they are judged by, and the ways to show them, as a table, JSON, CSV, a page with plots
// and a comparison of two reports.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Format is the version of the JSON file.
const Format = 1

// SideA and SideB are the targets of the steps where two services were measured in turns.
const (
	SideA = "A"
	SideB = "B"
)

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
	Searched string    `json:"searched,omitempty"` // what the run searched after its loads: "rate" or "clients"
	Best     string    `json:"best,omitempty"`     // load of the step with the highest rate that met the goal
	Steps    []*Step   `json:"steps"`

	Unfinished bool `json:"unfinished,omitempty"` // the run ended before its last step
}

// Named are the services with the names that they have in the steps, where there are two.
func (r *Report) Named() []string {
	if len(r.Services) != 2 {
		return r.Services
	}
	return []string{SideA + ": " + r.Services[0], SideB + ": " + r.Services[1]}
}

// Printable is text of a stranger without what a terminal would obey.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// Finish names the best step.
func (r *Report) Finish() {
	if best := r.best(); best != nil {
		r.Best = best.Load
	}
}

// best is the step with the highest rate of those that met the goal; nil if none did.
func (r *Report) best() *Step {
	var best *Step
	for _, s := range r.Steps {
		if s.met() && s.Target != SideB && (best == nil || s.Rate > best.Rate) {
			best = s
		}
	}
	return best
}

// Step returns the step of that target and load, nil if there is none. Of several it is one that
// met the goal, or the first.
func (r *Report) Step(target, load string) *Step {
	var found *Step
	for _, s := range r.Steps {
		if s.Target == target && s.Load == load && (found == nil || s.met() && !found.met()) {
			found = s
		}
	}
	return found
}

// Main is the step that the details of a report are about: the best one, or the last.
func (r *Report) Main() *Step {
	if s := r.best(); s != nil {
		return s
	}
	last := len(r.Steps) - 1
	if r.Steps[last].Target == SideB && last > 0 {
		last--
	}
	return r.Steps[last]
}

// Assert returns an error that names every condition that does not hold, and every step that proves
// nothing: after a search for the best step, else for all steps of the first service. A search
// that found nothing is an error too.
func (r *Report) Assert(conditions Goal) error {
	if r.Searched != "" && r.Best == "" {
		return fmt.Errorf("no load meets %s", r.Goal)
	}
	var errs []error
	for _, s := range r.Steps {
		if s.Target == SideB || r.Searched != "" && s != r.Main() {
			continue
		}
		if why := conditions.unproven(s); why != "" && len(conditions) > 0 {
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

// WriteJSON writes what Read reads.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// maxReport bounds a report that is read.
const maxReport = 64 << 20

// Read reads a report that WriteJSON wrote.
func Read(from io.Reader) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(from, maxReport+1))
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if r.Format != Format || len(r.Steps) == 0 || slices.Contains(r.Steps, nil) || len(b) > maxReport {
		return nil, fmt.Errorf("not a report of format %d with at least one step", Format)
	}
	return &r, nil
}
