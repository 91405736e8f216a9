// Package track says from the scores of frame after frame which labels hold, without flicker: a label begins to hold when its
// smoothed score has been at Enter or above for long enough, and ceases to when it has been below Exit for as long.
package track

import (
	"math"
	"slices"
	"time"

	"hailoclip/stages"
)

// Config says how a Tracker decides.
type Config struct {
	Labels    *stages.Labels
	Scoring   stages.Scoring
	Enter     []float64     // by label; of labels that are not ordinary it is not looked at
	Exit      []float64     // likewise, at most Enter
	Hold      time.Duration // for how long it must be so
	MinFrames int           // and in how many frames in a row, 1 at least
	Smoothing float64       // weight of what was before in the moving average of logits, 0 to below 1
}

// Change is a label that begins or ceases to hold, or with State another label that is now the most likely of those that hold.
type Change struct {
	State    bool
	Enter    bool    // else exit; not with State
	Label    int     // -1: none holds
	Previous int     // with State
	Score    float64 // smoothed, of Label; 0 for none
}

// Tracker follows one region of one stream. Not for concurrent use.
//
// Logits are smoothed by an exponential moving average, a = Smoothing·a + (1-Smoothing)·logit, which begins with the first
// logit (NIST/SEMATECH e-Handbook of Statistical Methods, 6.4.3.1). Scores are what stages.Rank would make of the averages. A
// label that is not ordinary never holds; while Rank would say that no label fits, because of a negative one or a margin, all
// scores count as below Exit. A label whose logit is not finite takes no part in that frame, and its average begins anew.
//
// A change is made in the frame that completes MinFrames in a row that agree, the first of them at least Hold ago; one that
// disagrees ends the row. The state is the label with the highest score of those that hold, the first of equal ones. It gives way
// to another that holds after such a row, too, but at once when it ceases to hold.
type Tracker struct {
	config  Config         // of which nothing is shared with others
	labels  stages.Labels  // without rows
	logits  []float64      // averages; NaN: there is none
	cosines []float64      // likewise; nil: they follow from the logits, because no label has logits of its own
	matches []stages.Match // by label
	odds    []float64
	scores  []float64
	holds   []bool
	rows    []row // by label: frames that disagree with holds
	rival   row   // frames in which next is more likely than the state
	next    int
	state   int
	since   time.Time
	pending bool
	last    time.Time     // of the frame before
	now     time.Duration // that has passed, as far as it counts
	changes []Change
}

// row is frames that follow each other and agree.
type row struct {
	frames int
	start  time.Duration
}

// New begins with no label that holds. It keeps nothing of c that the caller may change.
func New(c Config) *Tracker {
	n := c.Labels.N
	labels := stages.Labels{N: n, Kinds: slices.Clone(c.Labels.Kinds), Negations: slices.Clone(c.Labels.Negations)}
	own := c.Labels.Logits != nil
	c.Labels, c.Enter, c.Exit = nil, slices.Clone(c.Enter), slices.Clone(c.Exit)
	t := &Tracker{
		config: c, labels: labels, state: -1, next: -1,
		logits: nans(n), matches: make([]stages.Match, n), scores: make([]float64, n),
		holds: make([]bool, n), rows: make([]row, n), changes: make([]Change, 0, n+1),
	}
	if own {
		t.cosines = nans(n)
	}
	if c.Scoring.Activation == stages.Pair {
		t.odds = make([]float64, n)
	}
	return t
}

// Resume has the labels hold that hold in old, before the first Observe. was is by label the number that it has there, -1 where it has
// none. What was pending, and the averages, begin anew.
func (t *Tracker) Resume(old *Tracker, was []int) {
	for i, w := range was {
		if w < 0 || !old.holds[w] || !t.labels.Ordinary(i) {
			continue
		}
		if t.holds[i] = true; w == old.state {
			t.state, t.since = i, old.since
		}
	}
}

func nans(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}

// Observe takes the logits of a frame (stages.Result.Logits) at a time; times that do not rise count as no time at all. matches
// are those of the frame, uncut; they are looked at only for the cosines of labels that have logits of their own (Labels.Logits)
// and may be nil otherwise. It returns what changes: exits first, then enters, then the state. The slice is good until the next
// call. It allocates nothing.
func (t *Tracker) Observe(at time.Time, logits []float64, matches []stages.Match) []Change {
	if !t.last.IsZero() {
		t.now += min(max(0, at.Sub(t.last)), t.config.Hold) // more than Hold is as good as that
	}
	t.last = at
	fits := t.score(logits, matches)
	t.changes, t.pending = t.changes[:0], false
	for i, holds := range t.holds {
		if holds && t.count(&t.rows[i], !fits || !(t.matches[i].Score >= t.config.Exit[i])) { // NaN, too
			t.holds[i] = false
			t.changes = append(t.changes, Change{Label: i, Score: t.scores[i]})
		}
	}
	for i, holds := range t.holds {
		if !holds && t.labels.Ordinary(i) && t.count(&t.rows[i], fits && t.matches[i].Score >= t.config.Enter[i]) {
			t.holds[i] = true
			t.changes = append(t.changes, Change{Enter: true, Label: i, Score: t.scores[i]})
		}
	}
	t.follow()
	return t.changes
}

// score smooths the logits, sets matches and scores, and says whether the best label fits.
func (t *Tracker) score(logits []float64, matches []stages.Match) bool {
	if t.cosines != nil {
		for i := range t.matches {
			t.matches[i].Cosine = math.NaN()
		}
		for i := range matches {
			t.matches[matches[i].Label].Cosine = matches[i].Cosine
		}
	}
	bias := 0.0
	if t.config.Scoring.Activation == stages.Sigmoid {
		bias = t.config.Scoring.LogitBias
	}
	for i := range t.matches {
		m := &t.matches[i]
		t.logits[i] = t.smooth(t.logits[i], logits[i])
		if t.cosines != nil {
			t.cosines[i] = t.smooth(t.cosines[i], m.Cosine)
			m.Cosine = t.cosines[i]
		} else {
			m.Cosine = min(max((t.logits[i]-bias)/t.config.Scoring.LogitScale, -1), 1)
		}
		m.Probability = t.logits[i]
	}
	reason := t.labels.Judge(t.matches, &t.config.Scoring, t.odds)
	for i := range t.matches {
		if t.scores[i] = t.matches[i].Score; !t.labels.Ordinary(i) || t.scores[i] != t.scores[i] {
			t.scores[i] = 0
		}
	}
	return reason == ""
}

// smooth returns the average with one more value; NaN where that is not finite.
func (t *Tracker) smooth(average, value float64) float64 {
	switch {
	case value-value != 0: // NaN, or an infinity less itself
		return math.NaN()
	case average != average:
		return value
	}
	return t.config.Smoothing*average + (1-t.config.Smoothing)*value
}

// count takes a frame into a row, or ends it, and says whether the row is complete, which ends it, too.
func (t *Tracker) count(r *row, agrees bool) bool {
	if !agrees {
		r.frames = 0
		return false
	}
	if r.frames == 0 {
		r.start = t.now
	}
	if r.frames++; r.frames >= t.config.MinFrames && t.now-r.start >= t.config.Hold {
		r.frames = 0
		return true
	}
	t.pending = true
	return false
}

// follow sets the state.
func (t *Tracker) follow() {
	best := -1
	for i, holds := range t.holds {
		if holds && (best < 0 || t.scores[i] > t.scores[best]) {
			best = i
		}
	}
	if best != t.next {
		t.next, t.rival.frames = best, 0
	}
	lost := t.state < 0 || !t.holds[t.state]
	if best == t.state || !lost && !t.count(&t.rival, true) {
		return
	}
	change := Change{State: true, Label: best, Previous: t.state}
	if best >= 0 {
		change.Score = t.scores[best]
	}
	t.state, t.since, t.rival.frames = best, t.last, 0
	t.changes = append(t.changes, change)
}

// Pending says that a change has begun and needs more frames.
func (t *Tracker) Pending() bool { return t.pending }

// State returns the most likely label that holds, its smoothed score and since when; -1 for none.
func (t *Tracker) State() (label int, score float64, since time.Time) {
	if t.state >= 0 {
		score = t.scores[t.state]
	}
	return t.state, score, t.since
}

// Holds says whether a label holds, Scores are the smoothed scores by label, good until the next Observe; 0 for labels that are not
// ordinary or took no part.
func (t *Tracker) Holds(label int) bool { return t.holds[label] }
func (t *Tracker) Scores() []float64    { return t.scores }
