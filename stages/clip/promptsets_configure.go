package clip

import (
	"context"
	"errors"
	"maps"
	"slices"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
)

// SetLimits changes SetParts.Limits. Sets that there are stay as they are.
func (p *PromptSets) SetLimits(l sets.Limits) { p.limits.Store(&l) }

// Configure replaces the sets of the configuration: normalised and valid definitions by name. A set that has changed is encoded
// in the background, and its former version answers meanwhile, as after Put. A kept set that one of the configuration hid is
// there again when that is gone. It blocks while another change is made. Errors: pipeline.ErrDeadline, pipeline.ErrClosed.
func (p *PromptSets) Configure(ctx context.Context, configured map[string]sets.Definition) error {
	_, err := exclusive(ctx, p, fair.Caller{}, func(ctx context.Context) (none struct{}, err error) {
		all, wanted := maps.Clone(*p.all.Load()), []sets.Key(nil)
		var begun []*version
		replace := func(s *promptSet, d *sets.Definition, former []byte) {
			if old := all[s.name]; old != nil {
				s.answers.Store(old.answers.Load())
			}
			p.answerAsBefore(s, former)
			v := p.newVersion(s, d, fair.Caller{})
			v.former = len(former) > 0
			p.install(v)
			all[s.name], begun = s, append(begun, v)
		}
		for _, name := range slices.Sorted(maps.Keys(configured)) {
			d := configured[name]
			wanted = append(wanted, p.rowKeys(&d)...)
			if s := all[name]; s == nil || s.fixed == nil || sets.ETag(*s.fixed, p.digests...) != sets.ETag(d, p.digests...) {
				replace(&promptSet{name: name, fixed: &d}, &d, nil)
			}
		}
		for name, s := range *p.all.Load() {
			if _, ok := configured[name]; ok || s.fixed == nil {
				continue
			}
			delete(all, name)
			if p.parts.File == nil {
				continue
			}
			switch r, err := p.parts.File.Get(ctx, name); {
			case err == nil:
				replace(&promptSet{name: name}, &r.Definition, r.Former)
			case !errors.Is(err, sets.ErrNotFound):
				p.log.Error("a prompt set cannot be read", "prompt_set", name, "error", err)
			}
		}
		was := *p.all.Swap(&all)
		p.mu.Lock()
		for name, s := range was {
			if all[name] != s {
				s.newest.end()
			}
		}
		p.mu.Unlock()
		if p.parts.File != nil {
			if err := p.parts.File.KeepRows(ctx, wanted); err != nil {
				p.log.Warn("rows of prompt sets that the configuration has no longer cannot be removed", "error", err)
			}
		}
		for _, v := range begun {
			p.start(func() { p.run(v) })
		}
		return none, nil
	})
	return err
}
