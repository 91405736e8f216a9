package clip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
)

// SetParts is what the prompt sets of an engine come from.
type SetParts struct {
	File       *sets.File                 // where they are kept, which is the engine's from then on; nil: nowhere
	Lost       error                      // why there is no File; nil: none was wanted
	Configured map[string]sets.Definition // of the configuration, by name: normalised and valid
	Limits     sets.Limits                // of those that clients send
	MaxBytes   int64                      // of memory for what images are compared with; 0: MaxSetBytes
	Bytes      int64                      // of it, that the sets in File take, at most
	Log        *slog.Logger               // nil: none
}

// Close closes the file. It is for who has made no engine of the parts.
func (s *SetParts) Close(ctx context.Context) error {
	if s.File == nil {
		return nil
	}
	return s.File.Close(ctx)
}

// loadTime is how long a start waits for long sets, about a tenth of a second each: those that are left are made ready later.
const loadTime = 5 * time.Second

// newPromptSets loads all sets. Those of which all is kept are ready when it returns, unless there are very many long ones;
// the others are encoded from then on.
func newPromptSets(e *Engine, parts SetParts) *PromptSets {
	if parts.Log == nil {
		parts.Log = slog.New(slog.DiscardHandler)
	}
	parts.MaxBytes = cmp.Or(parts.MaxBytes, MaxSetBytes)
	p := &PromptSets{
		engine: e, parts: parts, log: parts.Log, dim: e.parts.Model.EmbeddingDimension, encoders: e.parts.Texts,
		digests:  []string{e.parts.Texts[0].Info().TextDigest, e.parts.Images.Info().ImageDigest},
		changing: fair.NewTurns(1), brief: fair.NewTurns(briefBuilds), long: fair.NewTurns(longBuilds), turn: fair.NewTurns(1), fitting: fair.NewTurns(1),
	}
	p.limits.Store(&parts.Limits)
	p.ctx, p.stop = context.WithCancel(context.Background())
	if parts.File == nil {
		p.lose(parts.Lost)
	}
	all := map[string]*promptSet{}
	p.all.Store(&all)
	var unfinished, long []*version
	var wanted []sets.Key // of the configuration's sets
	try := func(v *version, d *sets.Definition) {
		if err := p.build(v, d, false); errors.Is(err, errUnfinished) {
			unfinished = append(unfinished, v)
		} else if err != nil {
			p.fail(v, err)
		}
	}
	load := func(s *promptSet, d *sets.Definition, former []byte) {
		p.answerAsBefore(s, former)
		v := p.newVersion(s, d, fair.Caller{})
		v.former = len(former) > 0
		p.install(v)
		all[s.name] = s
		if v.turns == p.long {
			long = append(long, v)
		} else {
			try(v, d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parts.Configured)) {
		d := parts.Configured[name]
		load(&promptSet{name: name, fixed: &d}, &d, nil)
		wanted = append(wanted, p.rowKeys(&d)...)
	}
	if parts.File != nil {
		if err := parts.File.KeepRows(p.ctx, wanted); err != nil {
			p.log.Warn("rows of prompt sets that the configuration has no longer cannot be removed", "error", err)
		}
	}
	for _, name := range p.stored() {
		if all[name] != nil {
			p.log.Warn("a prompt set that is kept is hidden by that of the configuration", "prompt_set", name)
			continue
		}
		r, err := parts.File.Get(p.ctx, name)
		if err != nil {
			p.log.Error("a prompt set cannot be read", "prompt_set", name, "error", err)
			continue
		}
		load(&promptSet{name: name}, &r.Definition, r.Former)
	}
	start := time.Now()
	for _, v := range long {
		if time.Since(start) > loadTime {
			unfinished = append(unfinished, v)
		} else if d, err := p.definition(p.ctx, v.set); err != nil {
			p.fail(v, err)
		} else {
			try(v, &d)
		}
	}
	if len(unfinished) > 0 {
		p.log.Info("prompt sets are encoded in the background", "prompt_sets", len(unfinished))
	}
	for _, v := range unfinished {
		p.running.Go(func() { p.run(v) })
	}
	return p
}

// lose goes on without a file; why is nil where none was wanted.
func (p *PromptSets) lose(why error) {
	p.parts.File, p.parts.Lost = nil, why
	p.lost = fmt.Errorf("%w: %w", ErrSetsLost, cmp.Or(why, errors.New("it was not opened")))
}

// stored returns the names of the sets in the file.
func (p *PromptSets) stored() []string {
	if p.parts.File == nil {
		return nil
	}
	names, err := p.parts.File.Names(p.ctx)
	if err != nil {
		p.lose(err)
		p.log.Error("the prompt sets cannot be read", "error", err)
	}
	return names
}

// start runs f beside everything else, unless the sets are closed.
func (p *PromptSets) start(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.running.Go(f)
	return true
}

// End ends all encoding, without waiting for it, and the waiting for it. Changes are refused from then on.
func (p *PromptSets) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
}

// close waits for what End has ended, and closes the file. It gives up when ctx ends.
func (p *PromptSets) close(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		return fmt.Errorf("prompt sets are still being encoded: %w", context.Cause(ctx))
	}
	return p.parts.Close(ctx)
}

// MaxSetBytes is how much memory what images are compared with may take in all: 128 sets of 1,000 labels of 512 numbers.
const MaxSetBytes = 256 << 20

// room says why v does not fit beside the other sets, which count with what they take when they are ready, and until then
// with the version that answers, too.
func (p *PromptSets) room(v *version) error {
	all := *p.all.Load()
	if _, ok := all[v.set.name]; !ok && len(all) >= sets.MaxSets {
		return fmt.Errorf("%w: there are %d", ErrSetsFull, len(all))
	}
	taken := v.bytes
	for _, s := range all {
		if s != v.set {
			taken += s.newest.bytes
			if answers := s.answers.Load(); answers != nil && answers.ETag != s.newest.etag {
				taken += answers.bytes()
			}
		}
	}
	if limit := p.parts.MaxBytes; taken > limit {
		return fmt.Errorf("%w: all sets would take %d KB of memory, at most %d KB", ErrSetsFull, taken>>10, limit>>10)
	}
	return nil
}
