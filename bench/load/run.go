package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"hailoclip/bench/report"
)

// What Options.Search can be.
const (
	SearchRate    = "rate"
	SearchClients = "clients"
)

// Options is what is to be measured. All fields but Search, Goal and Backoff are needed.
type Options struct {
	Loads  []Load      // one step each
	Search string      // after them the highest load that meets Goal: SearchRate, SearchClients, or "" for none
	Goal   report.Goal // what Search and the report's verdicts judge by; empty: nothing
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
		check(l.Rate >= 0 && l.Rate <= MaxRate && (l.Rate > 0 || l.Clients >= 1 && l.Clients <= MaxClients),
			"load of %d clients, %d/s is out of bounds: 1 to %d clients or 1/s to %d/s", l.Clients, l.Rate, MaxClients, MaxRate)
		check(l.Cameras >= 0 && l.Cameras <= MaxClients, "%d cameras are out of bounds: at most %d", l.Cameras, MaxClients)
	}
	for _, l := range o.Loads {
		if l.Kind == "" {
			continue
		}
		check(l.Kind == StreamWS || l.Kind == StreamPush, "stream %q is neither %s nor %s", l.Kind, StreamWS, StreamPush)
		check(l.Rate == 0, "streams have frames a second, and no rate of requests")
		check(l.FPS >= 0 && l.FPS <= MaxFPS, "%d frames a second are out of bounds: 0 to %d", l.FPS, MaxFPS)
		for _, kind := range l.Trouble {
			check(slices.Contains(Troubles, kind), "trouble %q is none of %v", kind, Troubles)
		}
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

// Run measures one service, or two in turns. It blocks until all is measured;
// when ctx ends first it returns its error and closes the targets. After an error the report has
// the steps that were finished, and is nil where there is none.
func Run(ctx context.Context, o Options, targets ...*Target) (*report.Report, error) {
	if err := o.Validate(len(targets) == 2); err != nil {
		return nil, err
	}
	r := &runner{Options: o, targets: targets, origin: time.Now(), report: &report.Report{
		Format: report.Format, Started: time.Now().UTC().Truncate(time.Second), Machine: report.ThisMachine(), Request: targets[0].bodies.String(),
		Warmup: o.Window.Warmup.Seconds(), Goal: o.Goal.String(), Searched: o.Search, Steps: []*report.Step{},
	}}
	for _, t := range targets {
		defer context.AfterFunc(ctx, t.Close)() // nobody needs the answers
		r.report.Services = append(r.report.Services, t.describe())
	}
	for _, t := range targets {
		if err := t.Check(ctx); err != nil {
			return nil, err
		}
	}
	err := r.run(ctx)
	if len(r.report.Steps) == 0 {
		return nil, err
	}
	r.report.Unfinished = err != nil
	r.report.Finish()
	return r.report, err
}

type runner struct {
	Options
	targets []*Target // A and B, or the only one
	origin  time.Time
	report  *report.Report
}

func (r *runner) run(ctx context.Context) error {
	for _, load := range r.Loads {
		if err := r.step(ctx, load); err != nil {
			return err
		}
	}
	if r.Search == "" {
		return nil
	}
	return r.search(ctx)
}

// step measures one load and appends what came out. Two services have turns, A B A B, so that what
// else happens on the machine meets both alike.
func (r *runner) step(ctx context.Context, load Load) error {
	w, turns, names := r.Window, 1, []string{""}
	if len(r.targets) == 2 {
		turns, names = r.Turns, []string{report.SideA, report.SideB}
		w.Duration = max(w.Duration/time.Duration(turns), 100*time.Millisecond)
		w.Warmup /= time.Duration(turns)
	}
	name, turn := fmt.Sprintf("%d: %s", len(r.report.Steps)+1, load), w.Warmup+w.Duration
	total := time.Duration(turns*len(names)) * turn
	recordings := make([]*recording, len(names))
	for side := range recordings {
		recordings[side] = newRecording(!load.open())
	}
	rates := make([][]float64, len(names))
	for n := range turns * len(names) {
		side := n % len(names)
		rec := recordings[side]
		before := rec.good
		err := r.targets[side].measure(ctx, load, w, rec, func(done time.Duration) {
			r.Progress(name, time.Duration(n)*turn+done, total)
		})
		if err != nil {
			return err
		}
		rates[side] = append(rates[side], float64(rec.good-before)/w.Duration.Seconds())
	}
	for side, rec := range recordings {
		s := rec.step(names[side], load, r.targets[0].bodies.ask.Prompts, r.origin)
		if len(names) == 2 {
			s.Turns = rates[side]
		}
		if len(r.Goal) > 0 {
			met := r.Goal.Met(s)
			s.Met = &met
		}
		r.report.Steps = append(r.report.Steps, s)
	}
	return nil
}

// overloaded is the rate that is asked for in terms of the rate that is answered, from where on a
// service is without doubt not up to it.
const overloaded = 1.25

// search appends the steps of a search. It starts at what the first step got through. A load that
// missed the goal has a second try, because on a machine with other work one hiccup would send the
// search the wrong way.
func (r *runner) search(ctx context.Context) error {
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
			if known := r.report.Step("", load.String()); known == nil || try > 0 {
				if err := r.step(ctx, load); err != nil {
					return false, err
				}
			}
			if s := r.report.Step("", load.String()); *s.Met || try == 1 || float64(s.Offered) > overloaded*s.Rate {
				return *s.Met, nil
			}
		}
	})
	return err
}

// search looks for the largest whole number within 1 to most for which ok holds, taking it for
// granted that ok holds up to some number and not beyond. It starts at start, doubles or halves until it has
// found both sides, and closes in to 2 % or to 1. It returns 0 when ok holds for none. It makes about
// log2(most) + 6 calls at most, and stops with the error of one.
func search(start, most int, ok func(int) (bool, error)) (int, error) {
	good, bad := 0, most+1
	x := min(max(start, 1), most)
	for bad-good > max(1, good/50) {
		held, err := ok(x)
		if err != nil {
			return good, err
		}
		if held {
			good = x
		} else {
			bad = x
		}
		switch {
		case bad == most+1:
			x = min(2*good, most)
		case good == 0:
			x = bad / 2
		default:
			x = good + (bad-good)/2
		}
		if x == 0 || x == good {
			break
		}
	}
	return good, nil
}
