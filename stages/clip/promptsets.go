package clip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
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
	// ErrSetsFull says that all sets together would take too much memory, or are too many.
	ErrSetsFull = errors.New("there is no room for the prompt set")
	// ErrSetsAway says that sets are those of several services, and what has them in common cannot be reached: nothing can be changed.
	ErrSetsAway = errors.New("prompt sets of the fleet cannot be changed now")
	// ErrSetsLost says that the file of the sets cannot be read or written.
	ErrSetsLost = errors.New("prompt sets cannot be used")
)

// PromptSet is one version of a set, ready to be compared with images. Immutable, and shared: only to be read.
type PromptSet struct {
	Name        string
	ETag        string            // without quotes: hex SHA-256 over the definition and the model
	Names       []string          // of the labels, by stages.Match.Label: first the ordinary ones as they are defined
	Truncated   []bool            // by label: the model has seen the beginning of one of its texts only
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

// SetSummary is a set in a list.
type SetSummary struct {
	Name     string `json:"name"`
	Labels   int    `json:"labels"`
	State    string `json:"state"`
	ETag     string `json:"etag"`
	Model    string `json:"model"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// PromptSets is all sets of an engine: those that are kept, which can be changed, and those of the configuration. Changes
// are durable when they return, and one after the other. Safe for concurrent use.
type PromptSets struct {
	engine   *Engine
	parts    SetParts
	log      *slog.Logger
	dim      int
	encoders []hailo.Backend // of texts, in the order in which they are tried
	digests  []string        // of the first of them and of the image encoder: what the ETag is over, beside the definition
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup

	all atomic.Pointer[map[string]*promptSet] // by name; replaced when a set comes or goes

	changing *fair.Turns // to change a set
	brief    *fair.Turns // to be built, see briefBuilds
	long     *fair.Turns
	turn     *fair.Turns   // to have a batch of texts encoded
	fitting  *fair.Turns   // to have a discriminant fitted
	mu       sync.Mutex    // guards promptSet.newest, and what is in versions
	encoded  atomic.Uint64 // texts

	limits atomic.Pointer[sets.Limits] // of sets that clients send

	shared atomic.Pointer[SharedSets] // see Share; nil: this service has its sets for itself

	lost    error                 // ErrSetsLost, with the reason why there is no file; nil: there is one
	trouble atomic.Pointer[error] // of the last change, which the file did not take; nil: it did
}

// promptSet is what is known by a name.
type promptSet struct {
	name    string
	fixed   *sets.Definition          // of the configuration; nil: it is in the file
	answers atomic.Pointer[PromptSet] // nil: no version is ready yet
	newest  *version
}

// PromptSets returns the engine's sets.
func (e *Engine) PromptSets() *PromptSets { return e.sets }

// Ready returns the version of a set that images are compared with now. It does not block, and allocates nothing where
// there is one. Errors: ErrNoSet, ErrSetNotReady, ErrSetsLost.
func (p *PromptSets) Ready(name string) (*PromptSet, error) {
	s, err := p.find(name)
	if err != nil {
		return nil, err
	}
	if ready := s.answers.Load(); ready != nil {
		return ready, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v := s.newest
	if v.state == SetFailed {
		return nil, fmt.Errorf("%w: %s", ErrSetNotReady, v.reason)
	}
	return nil, fmt.Errorf("%w: %d of %d texts are", ErrSetNotReady, v.encoded, v.total)
}

func (p *PromptSets) find(name string) (*promptSet, error) {
	if s, ok := (*p.all.Load())[name]; ok {
		return s, nil
	}
	if err := p.lost; err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %.64q", ErrNoSet, name)
}

// fileError says why the file cannot be used, though it should; nil when it can. It allocates nothing.
func (p *PromptSets) fileError() error {
	if err := p.trouble.Load(); err != nil {
		return *err
	}
	if p.parts.Lost != nil {
		return p.lost
	}
	return nil
}

// Info returns a set with what is known of it; full: with vectors and thumbnails of its examples, else with their ids.
// It waits for the disk, but not beyond ctx. The caller owns the result but for what its strings and bytes point to.
// Errors: ErrNoSet, ErrSetsLost, pipeline.ErrDeadline.
func (p *PromptSets) Info(ctx context.Context, name string, full bool) (SetInfo, error) {
	for {
		s, err := p.find(name)
		if err != nil {
			return SetInfo{}, err
		}
		before := p.newest(s)
		d, err := p.definition(ctx, s)
		if v := p.newest(s); v != before { // it has changed meanwhile
			continue
		} else if err != nil {
			return SetInfo{}, late(ctx, err)
		}
		return p.info(before, d, full), nil
	}
}

func (p *PromptSets) newest(s *promptSet) *version {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.newest
}

// info describes a version, whose definition is d.
func (p *PromptSets) info(v *version, d sets.Definition, full bool) SetInfo {
	d.Labels = slices.Clone(d.Labels)
	for _, o := range d.Owners() {
		*o.Examples = slices.Clone(*o.Examples)
		for i := range *o.Examples {
			e := &(*o.Examples)[i]
			if !full { // else it is as it is kept: with the vector of its own model
				*e = sets.Example{ID: e.ID, FromThumbnail: e.FromThumbnail || e.Thumbnail != nil && p.foreign(e)}
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return SetInfo{
		Name: v.set.name, Definition: d, State: v.state, Reason: v.reason, Encoded: v.encoded, Total: v.total, ETag: v.etag,
		Model: p.engine.Model(), ScoreSource: v.source, Alpha: v.alpha, ReadOnly: v.set.fixed != nil, Warnings: slices.Clone(v.warnings),
	}
}

// definition returns what s is now.
func (p *PromptSets) definition(ctx context.Context, s *promptSet) (sets.Definition, error) {
	if s.fixed != nil {
		return *s.fixed, nil
	}
	r, err := p.parts.File.Get(ctx, s.name)
	if errors.Is(err, sets.ErrNotFound) {
		return sets.Definition{}, fmt.Errorf("%w: %.64q", ErrNoSet, s.name)
	} else if err != nil {
		return sets.Definition{}, fmt.Errorf("%w: %w", ErrSetsLost, err)
	}
	return r.Definition, nil
}

// List returns all sets by name. Errors: ErrSetsLost, with those of the configuration.
func (p *PromptSets) List() ([]SetSummary, error) {
	all := *p.all.Load()
	list := make([]SetSummary, 0, len(all))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s := all[name]
		list = append(list, SetSummary{
			Name: name, Labels: s.newest.labels, State: s.newest.state, ETag: s.newest.etag,
			Model: p.engine.Model(), ReadOnly: s.fixed != nil,
		})
	}
	return list, p.lost
}

// SetStats are the prompt sets in Stats.
type SetStats struct {
	Sets     int    `json:"sets"`
	Encoding int    `json:"encoding"` // sets whose newest version is not encoded yet
	Failed   int    `json:"failed"`   // sets whose newest version could not be encoded
	Waiting  int    `json:"waiting"`  // texts that are not encoded yet
	Encoded  uint64 `json:"encoded"`  // texts encoded since the start
	Bytes    int64  `json:"bytes"`    // of what images are compared with
	Lost     string `json:"lost,omitempty"`
}

func (p *PromptSets) stats() SetStats {
	all := *p.all.Load()
	st := SetStats{Sets: len(all), Encoded: p.encoded.Load()}
	if err := p.fileError(); err != nil {
		st.Lost = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range all {
		switch s.newest.state {
		case SetEncoding:
			st.Encoding++
			st.Waiting += s.newest.total - s.newest.encoded
		case SetFailed:
			st.Failed++
		}
		if ready := s.answers.Load(); ready != nil {
			st.Bytes += ready.bytes()
		}
	}
	return st
}

func (s *PromptSet) bytes() int64 { return 4 * int64(len(s.Labels.Rows)+len(s.Labels.Logits)) }
