package clip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
)

// ErrRevision says that a set that is shared has another revision by now.
var ErrRevision = errors.New("the shared prompt set has another revision by now")

// SharedSets keeps prompt sets that several services have in common; each has a copy of its own. A revision is a number that grows
// with each change of a set. Safe for concurrent use; its methods have time limits of their own.
type SharedSets interface {
	// Get returns a set and its revision. No set: it was deleted by that revision or, with revision 0, never was there.
	Get(ctx context.Context, name string) (r *sets.Record, revision uint64, err error)
	// Put makes or replaces, and Delete deletes, the set that has that revision. Errors: ErrRevision, ErrSetsFull.
	Put(ctx context.Context, r sets.Record, revision uint64) error
	Delete(ctx context.Context, name string, revision uint64) error
}

// Share has the sets that are kept in common with other services, those of the configuration excepted: from then on a change is made
// to the newest version that any of them has made, and refused with ErrSetsAway while s fails. It is called before the sets are used.
func (p *PromptSets) Share(s SharedSets) { p.shared.Store(&s) }

// newest is what a change of a set begins with: what is shared of it is what is kept.
type newest struct {
	shared   SharedSets // nil: the set is this service's alone
	revision uint64
	changed  time.Time // of that version
}

// sharedTries is how often a change begins again because others have changed the set meanwhile.
const sharedTries = 20

// onNewest makes a change of a set when what is shared of it is kept here, again if others are faster. Sets of the configuration are
// not shared.
func onNewest[T any](ctx context.Context, p *PromptSets, name string, change func(newest) (T, error)) (result T, err error) {
	for range sharedTries {
		var at newest
		err = nil
		if s := (*p.all.Load())[name]; s == nil || s.fixed == nil {
			at, err = p.atNewest(ctx, name)
		}
		if err == nil {
			result, err = change(at)
		}
		if !errors.Is(err, ErrRevision) {
			return result, err
		}
	}
	return result, fmt.Errorf("%w: others change it all the time", ErrPrecondition)
}

// atNewest brings the set that is kept to what is shared of it. Errors: ErrRevision, ErrSetsAway, ErrSetsFull, ErrSetsLost.
func (p *PromptSets) atNewest(ctx context.Context, name string) (newest, error) {
	shared := p.shared.Load()
	if shared == nil || p.parts.File == nil {
		return newest{}, nil
	}
	theirs, revision, err := (*shared).Get(ctx, name)
	if err != nil {
		return newest{}, away(err)
	}
	if err := p.merge(ctx, name, theirs, revision); err != nil {
		return newest{}, err
	}
	at := newest{shared: *shared, revision: revision}
	if theirs != nil {
		at.changed = theirs.Changed
	}
	return at, nil
}

func away(err error) error {
	if isOurs(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSetsAway, err)
}

// put shares the version r that is to be kept. What was changed later has a later time, whatever the clocks say.
func (n *newest) put(ctx context.Context, r *sets.Record) error {
	if n.shared == nil {
		return nil
	}
	if r.Shared = true; !r.Changed.After(n.changed) {
		r.Changed = n.changed.Add(time.Microsecond)
	}
	if err := n.shared.Put(ctx, *r, n.revision); err != nil {
		return away(err)
	}
	return nil
}

func (n *newest) delete(ctx context.Context, name string) error {
	if n.shared == nil || n.revision == 0 {
		return nil
	}
	if err := n.shared.Delete(ctx, name, n.revision); err != nil {
		return away(err)
	}
	return nil
}

// Kept returns the names of the sets that are kept, also of those that the configuration hides. Error: ErrSetsLost.
func (p *PromptSets) Kept(ctx context.Context) ([]string, error) {
	if p.parts.File == nil {
		return nil, p.lost
	}
	names, err := p.parts.File.Names(ctx)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrSetsLost, err)
	}
	return names, err
}

// Follow brings the set of a name that is kept and what is shared of it together, so that both are the same:
//
//   - A set that only one side has is given to the other one. One that was shared before, and was deleted there, is deleted here.
//   - Of two versions that both were shared the later one counts: what is shared is the older one only where it was lost, and
//     services give it back.
//   - A version that was made here alone makes way for the one that is shared, and is kept, and then shared, as BackupName.
//
// What the configuration has under the name answers on, and hides it. It blocks while another change is made. Errors: ErrSetsAway,
// ErrSetsFull, ErrSetsLost, pipeline.ErrClosed. With an error nothing is lost, and Follow may be tried again.
func (p *PromptSets) Follow(ctx context.Context, name string) error {
	_, err := exclusive(ctx, p, fair.Caller{}, func(ctx context.Context) (none struct{}, err error) {
		for range sharedTries {
			if _, err = p.atNewest(ctx, name); !errors.Is(err, ErrRevision) {
				break
			}
		}
		return none, err
	})
	return err
}

// merge is what Follow does, within exclusive. It returns ErrRevision where it has changed what is shared of the set.
func (p *PromptSets) merge(ctx context.Context, name string, theirs *sets.Record, revision uint64) error {
	kept, err := p.parts.File.Get(ctx, name)
	ours := &kept
	if errors.Is(err, sets.ErrNotFound) {
		ours = nil
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrSetsLost, err)
	}
	switch {
	case ours == nil && theirs == nil:
		return nil
	case ours == nil:
		return p.receive(ctx, *theirs)
	case theirs == nil && revision > 0 && ours.Shared:
		return p.drop(ctx, name)
	case theirs == nil:
		return p.upload(ctx, *ours, revision)
	case sets.ETag(ours.Definition) == sets.ETag(theirs.Definition):
		if ours.Shared && ours.Changed.Equal(theirs.Changed) {
			return nil
		}
		ours.Shared, ours.Changed = true, theirs.Changed
		return p.rewrite(ctx, *ours)
	case ours.Shared && ours.Changed.After(theirs.Changed):
		return p.upload(ctx, *ours, revision)
	case !ours.Shared:
		if err := p.backUp(ctx, *ours); err != nil {
			return err
		}
	}
	return p.receive(ctx, *theirs)
}

// BackupName is what a version is kept as that makes way for the one that is shared: the name, cut if need be, with the beginning
// of the version's own digest.
func BackupName(name string, d sets.Definition) string {
	const longest = 64
	suffix := ".local-" + sets.ETag(d)[:8]
	return name[:min(len(name), longest-len(suffix))] + suffix
}

// backUp keeps a version under another name, and shares it.
func (p *PromptSets) backUp(ctx context.Context, r sets.Record) error {
	name := BackupName(r.Name, r.Definition)
	if _, err := p.parts.File.Get(ctx, name); err == nil {
		return nil // by a former try
	}
	p.log.Warn("a prompt set differs from that of the fleet, which answers from now on; the version of this service is kept under another name",
		"prompt_set", r.Name, "kept_as", name)
	r.Name, r.Former = name, nil
	if err := p.receive(ctx, r); err != nil {
		return err
	}
	if _, err := p.atNewest(ctx, name); !errors.Is(err, ErrRevision) {
		return err
	}
	return nil
}

// receive keeps a version, and has it answer when it is encoded, unless the configuration has the set.
func (p *PromptSets) receive(ctx context.Context, r sets.Record) error {
	if !sets.ValidName(r.Name) {
		return fmt.Errorf("%q is no name of a prompt set", r.Name)
	}
	s := (*p.all.Load())[r.Name]
	if s != nil && s.fixed != nil {
		return p.rewrite(ctx, r)
	}
	if s == nil {
		s = &promptSet{name: r.Name}
	}
	v := p.newVersion(s, &r.Definition, fair.Caller{})
	err := p.room(v)
	if err == nil {
		err = p.put(ctx, v, r)
	}
	if err != nil {
		v.cancel(err)
	}
	return err
}

// drop forgets a set that was deleted elsewhere.
func (p *PromptSets) drop(ctx context.Context, name string) error {
	if s := (*p.all.Load())[name]; s != nil && s.fixed == nil {
		return p.remove(ctx, s)
	}
	return p.parts.File.Delete(ctx, name, nil)
}

// upload shares a set that is kept, in place of a revision.
func (p *PromptSets) upload(ctx context.Context, r sets.Record, revision uint64) error {
	shared := p.shared.Load()
	if shared == nil {
		return ErrSetsAway
	}
	r.Shared = true
	if err := (*shared).Put(ctx, r, revision); err != nil {
		return away(err)
	}
	if err := p.rewrite(ctx, r); err != nil {
		return err
	}
	return ErrRevision
}

// rewrite writes what is kept of a set, whose definition has not changed or is hidden.
func (p *PromptSets) rewrite(ctx context.Context, r sets.Record) error {
	return p.parts.File.Put(ctx, r, p.rowKeys(&r.Definition), nil)
}
