package clip

import (
	"context"
	"errors"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
)

// Errors of prompt sets, wrapped with what happened. What is wrong with a definition is a sets.Fault, and an image in it that
// cannot be used an error of package decode, which names it: labels[2].images[0].
var (
	// ErrNoSet says that there is no set of that name.
	ErrNoSet = errors.New("there is no such prompt set")
	// ErrSetNotReady says that the set has no version yet that is encoded.
	ErrSetNotReady = errors.New("the prompt set is not encoded yet")
	// ErrManaged says that the set is in the configuration and can be changed only there.
	ErrManaged = errors.New("the prompt set is managed by the configuration")
	// ErrPrecondition says that the set is not the one that the caller has named by its ETag.
	ErrPrecondition = errors.New("the prompt set is another one by now")
	// ErrSetsFull says that all sets together would take too much memory or room in the file, or are too many.
	ErrSetsFull = errors.New("there is no room for the prompt set")
	// ErrSetsLost says that the file of the sets cannot be read or written.
	ErrSetsLost = errors.New("the file of the prompt sets cannot be used")
)

// PromptSet is one version of a set, ready to be compared with images. Immutable, and shared: only to be read.
type PromptSet struct {
	Name        string
	ETag        string            // without quotes: hex SHA-256 over the definition and the model
	Names       []string          // of the labels, by stages.Match.Label: first the ordinary ones as they are defined
	Truncated   []bool            // by label: the model has seen the beginning of one of its prompts only
	Thresholds  []*sets.Threshold // by label; nil where it has none
	ScoreSource string            // text, prototype or gda
	Labels      stages.Labels     // what images are compared with
	Scoring     stages.Scoring    // with the set's activation, temperature and least cosine and margin; all matches
	Dim         int               // of a row
}

// States of SetInfo.State.
const (
	SetReady    = "ready"    // this version answers
	SetEncoding = "encoding" // it is being encoded; the former version answers, where there is one
	SetFailed   = "failed"   // it cannot be encoded: Reason says why. The former version answers
)

// SetInfo is a set as people see it: GET answers with it.
type SetInfo struct {
	Name string `json:"name"`
	sets.Definition
	State       string   `json:"state"`            // ready, encoding or failed
	Reason      string   `json:"reason,omitempty"` // why it has failed, or is not encoded now
	Encoded     int      `json:"encoded"`          // texts, of Total
	Total       int      `json:"total"`
	ETag        string   `json:"etag"` // of the definition above, without quotes
	Model       string   `json:"model"`
	ScoreSource string   `json:"score_source,omitempty"` // "": not known before it is encoded
	Alpha       float64  `json:"alpha,omitempty"`        // that was chosen, with gda
	ReadOnly    bool     `json:"read_only,omitempty"`    // it is in the configuration
	Warnings    []string `json:"warnings,omitempty"`
}

// Condition is what a change of a set depends on. The zero value is none.
type Condition struct {
	IfMatch     string // ETag without quotes; "*": there must be such a set; "": no condition
	IfNoneMatch bool   // there must be no such set

	Caller fair.Caller // who asks: images wait for his turn
}

// PromptSets is all sets of an engine: those that are kept, which can be changed, and those of the configuration. Changes
// are durable when they return, and one after the other. Safe for concurrent use.
type PromptSets struct{}

// PromptSets returns the engine's sets.
func (e *Engine) PromptSets() *PromptSets { panic("to be built") }

// Ready returns the version of a set that images are compared with now. It does not block and allocates nothing where
// there is one. Errors: ErrNoSet, ErrSetNotReady, ErrSetsLost.
func (p *PromptSets) Ready(name string) (*PromptSet, error) { panic("to be built") }

// Info returns a set with what is known of it; full: with vectors and thumbnails of its examples, else with their ids.
// The caller owns the result but for what its strings and bytes point to. Errors: ErrNoSet, ErrSetsLost.
func (p *PromptSets) Info(ctx context.Context, name string, full bool) (SetInfo, error) {
	panic("to be built")
}

// SetSummary is a set in a list.
type SetSummary struct {
	Name     string `json:"name"`
	Labels   int    `json:"labels"`
	State    string `json:"state"`
	ETag     string `json:"etag"`
	Model    string `json:"model"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// List returns all sets by name. Errors: ErrSetsLost, with those of the configuration.
func (p *PromptSets) List() ([]SetSummary, error) { panic("to be built") }

// Put makes or replaces a set. Images of d become examples, for which their memory is read until Put returns; an example
// that has only its id is that of the stored version. It blocks until the set is encoded, but returns it with the
// state encoding before ctx ends: see nearDeadline. Encoding then goes on. Strings of d may be kept.
//
// Errors: of package sets for what d says, of decode and the line for its images, ErrManaged, ErrPrecondition,
// ErrSetsLost, and pipeline.ErrDeadline while its images are encoded: then nothing has changed.
func (p *PromptSets) Put(ctx context.Context, name string, d sets.Definition, c Condition) (info SetInfo, created bool, err error) {
	panic("to be built")
}

// Delete removes a set. Errors: ErrNoSet, ErrManaged, ErrPrecondition, ErrSetsLost.
func (p *PromptSets) Delete(ctx context.Context, name string, c Condition) error {
	panic("to be built")
}

// Example is an image (compressed, only read until the call returns), or a vector of the model's dimension, which is
// scaled to unit length.
type Example struct {
	Image  []byte
	Vector []float32
}

// AddExample adds an example to a label of a set; label "" is the background. One that the label has changes nothing.
// It blocks and fails as Put does, and with ErrNoSet.
func (p *PromptSets) AddExample(ctx context.Context, name, label string, e Example, c Condition) (SetInfo, error) {
	panic("to be built")
}

// Calibrate stores thresholds by label, for those that are given, and a temperature, if it is above 0. It fails as
// AddExample does.
func (p *PromptSets) Calibrate(ctx context.Context, name string, thresholds map[string]sets.Threshold, temperature float64, c Condition) (SetInfo, error) {
	panic("to be built")
}
