package clip

import (
	"context"
	"errors"

	"hailoclip/cache/sets"
	"hailoclip/stages"
)

// Errors of prompt sets, wrapped with what happened.
var (
	// ErrNoSet says that there is no set of that name.
	ErrNoSet = errors.New("there is no such prompt set")
	// ErrSetNotReady says that the set has no version yet that is encoded.
	ErrSetNotReady = errors.New("the prompt set is not encoded yet")
	// ErrManaged says that the set is in the configuration and can be changed only there.
	ErrManaged = errors.New("the prompt set is managed by the configuration")
	// ErrPrecondition says that the set is not the one that the caller has named by its ETag.
	ErrPrecondition = errors.New("the prompt set is another one by now")
	// ErrSetsLost says that the file of the sets could not be opened.
	ErrSetsLost = errors.New("the prompt sets cannot be read")
)

// PromptSet is one version of a set, ready to be compared with images. Immutable.
type PromptSet struct {
	Name        string
	ETag        string   // without quotes: hex SHA-256 over definition and model
	Labels      []string // names, by number of the label; negative ones last
	ScoreSource string   // text, prototype or gda
	Temperature float64
	labels      stages.Labels
	scoring     stages.Scoring
	thresholds  []*sets.Threshold // by label
}

// SetInfo is a set as people see it: GET answers with it.
type SetInfo struct {
	Name string `json:"name"`
	sets.Definition
	State       string   `json:"state"`   // ready or encoding
	Encoded     int      `json:"encoded"` // texts, of Total
	Total       int      `json:"total"`
	ETag        string   `json:"etag"`
	Model       string   `json:"model"`
	ScoreSource string   `json:"score_source,omitempty"`
	Alpha       float64  `json:"alpha,omitempty"` // that was chosen, with gda
	ReadOnly    bool     `json:"read_only,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
}

// Condition is what a change of a set depends on.
type Condition struct {
	IfMatch     string // ETag without quotes, "*" for any; "": no condition
	IfNoneMatch bool   // there must be no such set
}

// PromptSets is all sets of an engine. Safe for concurrent use.
type PromptSets struct{}

// Ready returns the version of a set that images are compared with now. It does not block. Errors: ErrNoSet,
// ErrSetNotReady, ErrSetsLost.
func (p *PromptSets) Ready(name string) (*PromptSet, error) { panic("to be built") }

// Info returns a set with what is known of it; full: with vectors and thumbnails of its examples. Errors: ErrNoSet, ErrSetsLost.
func (p *PromptSets) Info(name string, full bool) (SetInfo, error) { panic("to be built") }

// List returns all sets without their definitions, by name.
func (p *PromptSets) List() ([]SetInfo, error) { panic("to be built") }

// Put makes or replaces a set.
func (p *PromptSets) Put(ctx context.Context, name string, d sets.Definition, c Condition) (info SetInfo, created bool, err error) {
	panic("to be built")
}

// Delete removes a set.
func (p *PromptSets) Delete(ctx context.Context, name string, c Condition) error {
	panic("to be built")
}

// Example is an image (compressed) or a vector of the model's dimension.
type Example struct {
	Image  []byte
	Vector []float32
}

// AddExample adds an example to a label of a set; label "" is the background.
func (p *PromptSets) AddExample(ctx context.Context, name, label string, e Example, c Condition) (SetInfo, error) {
	panic("to be built")
}

// Calibrate stores thresholds by label and a temperature in a set.
func (p *PromptSets) Calibrate(ctx context.Context, name string, thresholds map[string]float64, temperature float64, c Condition) (SetInfo, error) {
	panic("to be built")
}
