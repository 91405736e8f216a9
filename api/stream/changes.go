package stream

import (
	"cmp"
	"slices"
	"time"

	"hailoclip/api/stream/event"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/track"
)

// unknown is the state of a region in which no label holds.
const unknown = "unknown"

// An event has so many scores, and so many bytes of the labels that they are of: prompts may be long.
const (
	maxScores      = 20
	maxScoresBytes = 4 << 10
)

// watch follows what holds in a region.
type watch struct {
	region  Region
	events  Events
	set     *clip.PromptSet // the version; nil: prompts
	names   []string        // of labels
	labels  *stages.Labels
	tracker *track.Tracker
}

// Thresholds where neither the set nor the definition has any.
const (
	enterProbability, exitProbability = 0.6, 0.4
	enterCosine, exitCosine           = 0.27, 0.25
)

// newWatch begins with no label that holds.
func newWatch(region Region, e Events, a *RegionAnswer) *watch {
	w := &watch{region: region, events: e, set: a.Result.Set, names: a.Names, labels: a.Result.Labels}
	enter, exit := enterProbability, exitProbability
	if w.labels.ByCosine(a.Result.Scoring.Activation) {
		enter, exit = enterCosine, exitCosine
	}
	if e.Enter != nil {
		enter, exit = *e.Enter, min(exit, *e.Enter)
	}
	if e.Exit != nil {
		enter, exit = max(enter, *e.Exit), *e.Exit
	}
	c := track.Config{
		Labels: w.labels, Scoring: a.Result.Scoring, Enter: make([]float64, w.labels.N), Exit: make([]float64, w.labels.N),
		Hold: time.Duration(e.HoldMS) * time.Millisecond, MinFrames: e.MinFrames, Smoothing: e.Smoothing,
	}
	for i := range c.Enter {
		c.Enter[i], c.Exit[i] = enter, exit
		if w.set != nil && i < len(w.set.Thresholds) && w.set.Thresholds[i] != nil {
			c.Enter[i], c.Exit[i] = w.set.Thresholds[i].Enter, w.set.Thresholds[i].Exit
		}
	}
	w.tracker = track.New(c)
	return w
}

// follows says whether w is for a region and what was found in it now.
func (w *watch) follows(region Region, e *Events, a *RegionAnswer) bool {
	return w.region == region && w.set == a.Result.Set && (w.set != nil || slices.Equal(w.names, a.Names)) && w.events.equal(e)
}

func (e *Events) equal(other *Events) bool {
	return e == other || same(e.Enter, other.Enter) && same(e.Exit, other.Exit) && e.HoldMS == other.HoldMS &&
		e.MinFrames == other.MinFrames && e.Smoothing == other.Smoothing
}

func same(a, b *float64) bool { return a == b || a != nil && b != nil && *a == *b }

// change is an event and the part of the frame that it is about.
type change struct {
	event *event.Event
	part  stages.Region // the zero value: all of it
	store bool
}

// observe takes what was found in a frame of f, and returns what changes by it.
func (s *stream) observe(f *Feed, j *job, e *entry) (changes []change) {
	answers := f.out.Regions
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feed != f || s.ended {
		return nil
	}
	if j.plan.Events == nil {
		s.release()
		return nil
	}
	if s.watching != j.plan {
		changes = s.rearrange(j.plan)
	}
	pending := false
	for i, region := range j.plan.regions {
		a, w := &answers[i], s.watches[i]
		if w == nil || !w.follows(region, j.plan.Events, a) {
			n := newWatch(region, *j.plan.Events, a)
			if w != nil {
				changes = append(changes, s.exits(w, n)...)
			}
			w = n
			s.watches[i] = n
		}
		w.events = *j.plan.Events // with what is no matter to the tracker
		found := w.tracker.Observe(j.at, a.Result.Logits, a.Result.Matches)
		if len(found) > 0 {
			changes = append(changes, s.events(w, e, a, found)...)
		}
		pending = pending || w.tracker.Pending()
	}
	s.pending.Store(pending)
	return changes
}

// rearrange has the watches be those of the regions of a plan. What is no more does not hold any more. The caller holds mu.
func (s *stream) rearrange(p *plan) (changes []change) {
	watches := make([]*watch, len(p.regions))
	for _, w := range s.watches {
		i := slices.IndexFunc(p.regions, func(r Region) bool { return r.Name == w.region.Name })
		if i >= 0 {
			watches[i] = w
		} else {
			changes = append(changes, s.exits(w, nil)...)
		}
	}
	s.watches, s.watching = watches, p
	s.watched.Store(true)
	return changes
}

// exits has the labels of a watch exit that hold, because it is no more, but for those that its successor has, too: there they go on.
// The caller holds mu.
func (s *stream) exits(w, successor *watch) (changes []change) {
	tell := func(kind event.Kind, label, state, previous string) {
		ev := s.event(w, kind)
		ev.Label, ev.State, ev.Previous = label, state, previous
		changes = append(changes, change{ev, w.region.part(), w.events.Store})
	}
	for i, name := range w.names {
		if w.labels.Ordinary(i) && w.tracker.Holds(i) && successor.find(name) < 0 {
			tell(event.Exit, name, "", "")
		}
	}
	if label, _, _ := w.tracker.State(); label >= 0 && successor.find(w.names[label]) < 0 {
		tell(event.State, "", unknown, w.names[label])
	}
	if successor != nil {
		was := make([]int, successor.labels.N)
		for i := range was {
			was[i] = -1
			if successor.labels.Ordinary(i) {
				was[i] = w.find(successor.names[i])
			}
		}
		successor.tracker.Resume(w.tracker, was)
	}
	return changes
}

// find returns the number of an ordinary label, -1 where w, which may be nil, has none of that name.
func (w *watch) find(name string) int {
	if w == nil {
		return -1
	}
	i := slices.Index(w.names, name)
	if i >= 0 && !w.labels.Ordinary(i) {
		return -1
	}
	return i
}

// release forgets what holds, and tells so. The caller holds mu.
func (s *stream) release() {
	var changes []change
	for _, w := range s.watches {
		if w != nil {
			changes = append(changes, s.exits(w, nil)...)
		}
	}
	s.watches, s.watching = nil, nil
	s.watched.Store(false)
	s.pending.Store(false)
	s.send(changes, nil)
}

// event begins an event of now.
func (s *stream) event(w *watch, kind event.Kind) *event.Event {
	return &event.Event{ID: event.NewID(), Stream: s.id, Kind: kind, Region: w.region.Name, Time: time.Now()}
}

// events makes events of changes.
func (s *stream) events(w *watch, e *entry, a *RegionAnswer, found []track.Change) (changes []change) {
	scores, vector := w.best(), slices.Clone(a.Result.Embedding)
	name := func(label int) string {
		if label < 0 {
			return unknown
		}
		return w.names[label]
	}
	for _, c := range found {
		ev := s.event(w, event.Exit)
		switch {
		case c.State:
			ev.Kind, ev.State, ev.Previous = event.State, name(c.Label), name(c.Previous)
		case c.Enter:
			ev.Kind, ev.Label = event.Enter, name(c.Label)
		default:
			ev.Label = name(c.Label)
		}
		ev.Score, ev.Scores, ev.Time, ev.Seq = c.Score, scores, e.received, new(e.seq)
		if e.hasTime {
			ev.TS = new(e.time)
		}
		ev.Model, ev.Vector = s.hub.parts.Engine.ImageDigest(), vector
		changes = append(changes, change{ev, w.region.part(), w.events.Store})
	}
	return changes
}

// best returns the scores of the ordinary labels that have most, by falling score.
func (w *watch) best() []event.Score {
	all := w.tracker.Scores()
	list := make([]event.Score, 0, len(w.names))
	for i, name := range w.names {
		if w.labels.Ordinary(i) {
			list = append(list, event.Score{Label: name, Score: all[i]})
		}
	}
	slices.SortStableFunc(list, func(a, b event.Score) int { return cmp.Compare(b.Score, a.Score) })
	n, size := 0, 0
	for n < min(len(list), maxScores) && size+len(list[n].Label) <= maxScoresBytes {
		size += len(list[n].Label)
		n++
	}
	return slices.Clip(slices.Clone(list[:n]))
}

// states says what holds. The caller holds mu.
func (s *stream) states() (list []RegionState) {
	for _, w := range s.watches {
		if w == nil {
			continue
		}
		label, score, since := w.tracker.State()
		r := RegionState{Region: w.region.Name, State: unknown, Labels: []string{}, Score: score, Since: since}
		if label >= 0 {
			r.State = w.names[label]
		}
		for i, name := range w.names {
			if w.labels.Ordinary(i) && w.tracker.Holds(i) {
				r.Labels = append(r.Labels, name)
			}
		}
		list = append(list, r)
	}
	return list
}

// publish tells the answer of a frame, if it is asked for, and what it has changed.
func (s *stream) publish(j *job, e *entry, a *Answer, changes []change) {
	p := &s.hub.parts
	if ev := j.plan.Events; ev != nil && ev.On == onFrames && p.Encode != nil && p.Bus.Wanted(s.id) {
		frame := &event.Event{Stream: s.id, Kind: event.Frame, Time: e.received, Answer: p.Encode(nil, a)}
		s.outbox.add(&batch{changes: []change{{event: frame}}})
	}
	s.send(changes, j)
}

// send tells changes, stored first if they are to be. j has the frame that made them; nil: none did.
func (s *stream) send(changes []change, j *job) {
	if len(changes) == 0 {
		return
	}
	s.changed(len(changes), 0)
	for _, c := range changes {
		s.identify(c.event)
	}
	b := &batch{changes: changes, store: slices.ContainsFunc(changes, func(c change) bool { return c.store })}
	if j != nil && j.plan.Events.Thumbnails {
		j.holders.Add(1)
		b.job = j
	}
	s.outbox.add(b)
}
