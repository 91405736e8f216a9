package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// What Options.Search can be.
const (
	SearchRate    = "rate"
	SearchClients = "clients"
)

// Options is what is to be measured. All fields but Search, Goal and Backoff are needed.
type Options struct {
	Loads  []Load // one step each
	Search string // after them the highest load that meets Goal: SearchRate, SearchClients, or "" for none
	Goal   Goal   // what Search and the report's verdicts judge by; empty: nothing
	Window Window
	Turns  int // with two targets: how often each has its turn

	// Progress is told about the step under way.
	Progress func(step string, done, total time.Duration)
}

// Limits of a run, so that it ends.
const (
	MaxSteps  = 100
	maxWindow = 24 * time.Hour
)

// Validate says what is out of bounds; two says that two services are measured.
func (o Options) Validate(two bool) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(o.Loads) >= 1 && len(o.Loads) <= MaxSteps, "%d loads are out of bounds: 1 to %d", len(o.Loads), MaxSteps)
	for _, l := range o.Loads {
		errs = append(errs, l.validate())
	}
	w := o.Window
	check(w.Duration >= 100*time.Millisecond && w.Duration <= maxWindow, "duration %v is out of bounds: 100ms to %v", w.Duration, maxWindow)
	check(w.Warmup >= 0 && w.Warmup <= maxWindow, "warm-up %v is out of bounds: 0 to %v", w.Warmup, maxWindow)
	check(w.Backoff >= 0 && w.Backoff <= time.Minute, "backoff %v is out of bounds: 0 to 1m", w.Backoff)
	check(w.Every >= 1, "sampling every %d. answer is out of bounds: at least 1", w.Every)
	check(o.Search == "" || len(o.Goal) > 0, "a search needs a goal")
	check(o.Search == "" || !two, "a search measures one service, not two")
	check(!two || o.Turns >= 1 && o.Turns <= 1000, "%d turns are out of bounds: 1 to 1000", o.Turns)
	return errors.Join(errs...)
}

// Run measures service a, or a and b in turns (b may be nil). It blocks until all is measured;
// when ctx ends first it returns its error and closes the targets. After an error the report has
// the steps that were finished, and is nil where there is none.
func Run(ctx context.Context, a, b *Target, o Options) (*Report, error) {
	if err := o.Validate(b != nil); err != nil {
		return nil, err
	}
	for _, t := range []*Target{a, b} {
		if t != nil {
			defer context.AfterFunc(ctx, t.Close)() // nobody needs the answers
		}
	}
	r := &runner{Options: o, a: a, b: b, origin: time.Now(), report: newReport(a, b, o)}
	for _, t := range r.targets() {
		if err := t.Check(ctx); err != nil {
			return nil, err
		}
	}
	err := r.steps(ctx)
	if len(r.report.Steps) == 0 {
		return nil, err
	}
	r.report.Unfinished = err != nil
	r.report.finish()
	return r.report, err
}

func (r *runner) steps(ctx context.Context) error {
	for _, load := range r.Loads {
		if err := r.step(ctx, load); err != nil {
			return err
		}
	}
	return r.search(ctx)
}

type runner struct {
	Options
	a, b   *Target
	origin time.Time
	report *Report
}

func (r *runner) targets() []*Target {
	if r.b == nil {
		return []*Target{r.a}
	}
	return []*Target{r.a, r.b}
}

// step measures one load and appends what came out.
func (r *runner) step(ctx context.Context, load Load) error {
	if r.b != nil {
		return r.alternate(ctx, load)
	}
	w := r.Window
	rec, err := r.a.measure(ctx, load, w, func(done time.Duration) { r.Progress(r.name(load), done, w.Warmup+w.Duration) })
	if err != nil {
		return err
	}
	r.append(rec.step("", load, r.a.bodies.Prompts(), r.origin))
	return nil
}

// name is that of the step under way.
func (r *runner) name(load Load) string { return fmt.Sprintf("%d: %s", len(r.report.Steps)+1, load) }

// alternate gives A and B their turns, A B A B, so that what else happens on the machine meets
// both alike.
func (r *runner) alternate(ctx context.Context, load Load) error {
	w := r.Window
	w.Duration = max(w.Duration/time.Duration(r.Turns), 100*time.Millisecond)
	w.Warmup /= time.Duration(r.Turns)
	turn := w.Warmup + w.Duration
	var sums [2]*recording
	var rates [2][]float64
	for n := range 2 * r.Turns {
		side := n % 2
		rec, err := r.targets()[side].measure(ctx, load, w, func(done time.Duration) {
			r.Progress(r.name(load), time.Duration(n)*turn+done, time.Duration(2*r.Turns)*turn)
		})
		if err != nil {
			return err
		}
		rates[side] = append(rates[side], float64(rec.good)/rec.seconds)
		if sums[side] == nil {
			sums[side] = rec
		} else {
			sums[side].merge(rec)
		}
	}
	for side, sum := range sums {
		s := sum.step(sides[side], load, r.a.bodies.Prompts(), r.origin)
		s.Turns = rates[side]
		r.append(s)
	}
	return nil
}

// sides name the two services of a comparison.
var sides = [2]string{"A", "B"}

// append judges the step and adds it to the report.
func (r *runner) append(s Step) {
	if len(r.Goal) > 0 {
		met := r.Goal.Met(&s)
		s.Met = &met
	}
	r.report.Steps = append(r.report.Steps, s)
}

// overloaded is the rate that is asked for in terms of the rate that is answered, from where on a
// service is without doubt not up to it.
const overloaded = 1.25

// search appends the steps of a search. It starts at what the first step got through. A load that
// missed the goal has a second try, because on a machine with other work one hiccup would send the
// search the wrong way.
func (r *runner) search(ctx context.Context) error {
	if r.Search == "" {
		return nil
	}
	first := r.report.Steps[0]
	start, most := cmp.Or(first.Offered, int(math.Round(first.Rate))), MaxRate
	if r.Search == SearchClients {
		start, most = max(first.Clients, 1), MaxClients
	}
	_, err := search(start, most, func(x int) (bool, error) {
		load := Load{Clients: x}
		if r.Search == SearchRate {
			load = Load{Rate: x}
		}
		for try := 0; ; try++ {
			if known := r.report.step("", load.String()); known == nil || try > 0 {
				if err := r.step(ctx, load); err != nil {
					return false, err
				}
			}
			if s := r.report.step("", load.String()); *s.Met || try == 1 || float64(s.Offered) > overloaded*s.Rate {
				return *s.Met, nil
			}
		}
	})
	return err
}
