// Package track says from the scores of frame after frame which labels hold, without flicker: a label begins to hold when its
// smoothed score has been at Enter or above for long enough, and ceases to when it has been below Exit for as long.
package track

import (
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
	Enter    bool // else exit; not with State
	Label    int  // -1: none holds
	Previous int  // with State
	Score    float64
}

// Tracker follows one region of one stream. Not for concurrent use.
type Tracker struct{}

// New begins with no label that holds.
func New(c Config) *Tracker { panic("to be built") }

// Observe takes the logits of a frame (stages.Result.Logits) at a time. It returns what changes: exits first, then enters, then the
// state. The slice is good until the next call. It allocates nothing.
func (t *Tracker) Observe(at time.Time, logits []float64) []Change { panic("to be built") }

// Pending says that a change has begun and needs more frames.
func (t *Tracker) Pending() bool { panic("to be built") }

// State returns the most likely label that holds, its smoothed score and since when; -1 for none.
func (t *Tracker) State() (label int, score float64, since time.Time) { panic("to be built") }

// Holds says whether a label holds, Scores are the smoothed scores by label, good until the next Observe.
func (t *Tracker) Holds(label int) bool { panic("to be built") }
func (t *Tracker) Scores() []float64    { panic("to be built") }
