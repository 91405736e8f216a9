package stream

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// Limits bound a definition.
type Limits struct {
	Prompts     int // in the list
	PromptBytes int // of each, as UTF-8, without white space around it
}

// Bounds of what is read.
const (
	maxText   = 16 << 20 // bytes
	maxFields = 1000     // values beside prompts
	maxTopK   = 1_000_000
	maxHour   = 3_600_000 // milliseconds
	maxSource = 2048      // bytes
)

const nameProblem = "must be 1 to 64 of A-Z a-z 0-9 . _ -, the first one a letter or digit"

// Parse reads a definition from JSON, normalised and validated. Fields that it does not have are refused. The result does not refer
// to text. The error is of sets.Faults.
func Parse(text []byte, l Limits) (Definition, error) { return Definition{}.Merge(text, l) }

// Merge returns d with what JSON says otherwise, field by field, also inside of gate and events; lists are replaced. Prompts take the
// place of a prompt set and the other way round; null takes gate or events away. It is as Parse, and d stays as it is.
func (d Definition) Merge(text []byte, l Limits) (Definition, error) {
	return d.merge(text, l, false)
}

// merge also reads "id", if withID.
func (d Definition) merge(text []byte, l Limits, withID bool) (n Definition, err error) {
	if len(text) > maxText {
		return n, sets.Fault{Problem: fmt.Sprintf("is longer than %d bytes", maxText)}
	}
	n = d.clone()
	own := n
	n.PromptSet, n.Prompts, n.Regions = "", nil, nil // so that it is seen whether they are given
	var into any = &n
	message := struct {
		ID          string `json:"id"`
		*Definition        // of which the fields are
	}{Definition: &n}
	if withID {
		into = &message
	}
	if err := sets.ReadObject(text, l.Prompts+maxFields, true, into); err != nil {
		if fault, ok := errors.AsType[sets.Fault](err); ok {
			fault.Field = strings.TrimPrefix(fault.Field, "Definition.") // which nobody has written
			err = fault
		}
		return Definition{}, err
	}
	if n.PromptSet == "" && n.Prompts == nil {
		n.PromptSet, n.Prompts = own.PromptSet, own.Prompts
	}
	if n.Regions == nil {
		n.Regions = own.Regions
	}
	n = n.normalized()
	if err := n.validate(l); err != nil {
		return Definition{}, err
	}
	return n, nil
}

// clone returns a copy that may be changed.
func (d Definition) clone() Definition {
	d.Prompts, d.Regions = slices.Clone(d.Prompts), slices.Clone(d.Regions)
	d.Gate, d.Events = copied(d.Gate), copied(d.Events)
	if d.Gate != nil {
		d.Gate.Distance = copied(d.Gate.Distance)
	}
	if d.Events != nil {
		d.Events.Enter, d.Events.Exit = copied(d.Events.Enter), copied(d.Events.Exit)
	}
	return d
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// normalized returns d, which it may change, with its defaults in place.
func (d Definition) normalized() Definition {
	for i := range d.Prompts {
		d.Prompts[i] = strings.TrimSpace(d.Prompts[i])
	}
	if d.Policy = cmp.Or(d.Policy, Latest); d.Policy == Queue {
		d.MaxInFlight = cmp.Or(d.MaxInFlight, 8)
	}
	if len(d.Regions) == 0 {
		d.Regions = nil
	}
	if g := d.Gate; g != nil {
		if g.Distance == nil {
			g.Distance = new(4)
		}
		g.HeartbeatMS = cmp.Or(g.HeartbeatMS, 5000)
	}
	if e := d.Events; e != nil {
		e.On = cmp.Or(e.On, onChanges)
		e.MinFrames = cmp.Or(e.MinFrames, 3)
		e.RecheckMS = cmp.Or(e.RecheckMS, 500)
		e.Store = e.Store || e.Thumbnails
	}
	d.Clock = cmp.Or(d.Clock, clockReceive)
	return d
}

type faults struct{ sets.Findings }

func (f *faults) whole(n int, field string, low, high int) {
	f.Want(n >= low && n <= high, field, "must be a whole number from %d to %d", low, high)
}

// validate says what is wrong with d, which is normalized: Faults, joined, at most 20.
func (d *Definition) validate(l Limits) error {
	var f faults
	f.prompts(d, l)
	f.whole(d.TopK, "top_k", 0, maxTopK)
	f.OneOf(d.Policy, "policy", Latest, Queue)
	f.Want(d.MaxInFlight == 0 || d.MaxInFlight >= 1 && d.MaxInFlight <= MaxInFlight, "max_in_flight", "must be a whole number from 1 to %d", MaxInFlight)
	f.Want(d.FPS == 0 || d.FPS >= 0.001 && d.FPS <= 1000, "fps", "must be 0, for all frames, or a number from 0.001 to 1000")
	f.whole(d.IntervalMS, "interval_ms", 0, 24*maxHour)
	f.OneOf(d.Clock, "clock", clockReceive, clockFrame)
	f.regions(d.Regions)
	if g := d.Gate; g != nil {
		f.whole(*g.Distance, "gate.distance", 0, 32)
		f.whole(g.HeartbeatMS, "gate.heartbeat_ms", 1, maxHour)
	}
	if e := d.Events; e != nil {
		f.events(e)
	}
	f.Want(len(d.Source) <= maxSource && utf8.ValidString(d.Source), "source", "must be an address of at most %d bytes", maxSource)
	f.Want(d.Source == "" || d.Format == "", "format", "is for frames that are pushed, not for those of a source")
	if d.Format != "" {
		_, err := decode.ParseRaw(d.Format)
		f.Want(err == nil, "format", "cannot be used: %v", err)
	}
	return errors.Join(f.Findings...)
}

func (f *faults) prompts(d *Definition, l Limits) {
	f.Want(d.PromptSet == "" || d.Prompts == nil, "prompts", "must not be given with prompt_set")
	f.Want(d.PromptSet == "" || sets.ValidName(d.PromptSet), "prompt_set", "is not the name of a prompt set")
	if d.PromptSet != "" {
		return
	}
	every := len(d.Regions) > 0 && !slices.ContainsFunc(d.Regions, func(r Region) bool { return r.PromptSet == "" })
	f.Want(every || len(d.Prompts) > 0, "prompt_set", "is missing: give a prompt_set or prompts")
	f.Want(len(d.Prompts) <= l.Prompts, "prompts", "has more than %d prompts", l.Prompts)
	for i, text := range d.Prompts[:min(len(d.Prompts), l.Prompts)] {
		if text != "" && len(text) <= l.PromptBytes {
			continue
		}
		field := fmt.Sprintf("prompts[%d]", i)
		f.Want(text != "", field, "is empty")
		f.Want(len(text) <= l.PromptBytes, field, "is longer than %d bytes", l.PromptBytes)
	}
}

func (f *faults) regions(regions []Region) {
	f.Want(len(regions) <= stages.MaxRegions, "regions", "has more than %d regions", stages.MaxRegions)
	for i, r := range regions[:min(len(regions), stages.MaxRegions)] {
		field := fmt.Sprintf("regions[%d]", i)
		f.Want(event.ValidName(r.Name), field+".name", nameProblem)
		f.Want(!slices.ContainsFunc(regions[:i], func(other Region) bool { return other.Name == r.Name }), field+".name", "stands twice")
		f.Want(r.part().Check() == nil, field, "must be a part of the frame: 0 <= x < x + w <= 1, and so with y and h")
		f.Want(r.PromptSet == "" || sets.ValidName(r.PromptSet), field+".prompt_set", "is not the name of a prompt set")
	}
}

// part is the part of the frame; the zero value of the zero value, which is all of it.
func (r Region) part() stages.Region { return stages.Region{X: r.X, Y: r.Y, W: r.W, H: r.H} }

func (f *faults) events(e *Events) {
	f.OneOf(e.On, "events.on", onChanges, onFrames)
	f.Between(e.Enter, "events.enter", -1, 1)
	f.Between(e.Exit, "events.exit", -1, 1)
	f.Want(e.Enter == nil || e.Exit == nil || *e.Exit <= *e.Enter, "events.exit", "must not be above enter")
	f.whole(e.HoldMS, "events.hold_ms", 0, maxHour)
	f.whole(e.MinFrames, "events.min_frames", 1, 1000)
	f.Between(&e.Smoothing, "events.smoothing", 0, 0.99)
	f.whole(e.RecheckMS, "events.recheck_ms", 1, maxHour)
}

// canonical returns the JSON that d is kept as, which is hardly longer than what it was read from: <, > and & stand for themselves.
func (d Definition) canonical() ([]byte, error) {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	err := to.Encode(d)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}
