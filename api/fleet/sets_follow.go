package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/cache/sets"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// setAgain is how long a set that cannot be followed is left alone: there may be room for it later.
const setAgain = 30 * time.Second

// followSets keeps the prompt sets of this node and those of the fleet the same.
func (n *Node) followSets(ctx context.Context) error {
	all := n.parts.Engine.PromptSets()
	names, err := all.Kept(ctx)
	if err != nil { // its health says why
		n.log.Warn("the prompt sets of the fleet are not used: this node cannot keep any", "error", err)
		<-ctx.Done()
		return nil
	}
	failed, last := map[string]string{}, time.Now() // why, by name
	follow := func(name string) error {
		err := all.Follow(ctx, name)
		switch {
		case err == nil:
			delete(failed, name)
			return nil
		case errors.Is(err, clip.ErrSetsAway) && !n.Connected(), errors.Is(err, pipeline.ErrClosed), ctx.Err() != nil:
			return errBegin
		}
		if failed[name] != err.Error() {
			n.log.Error("a prompt set is not the same as that of the fleet", "prompt_set", name, "error", err)
		}
		failed[name] = err.Error()
		return nil
	}
	mine, initial := map[string]bool{}, true
	for _, name := range names {
		mine[name] = true
	}
	err = n.watch(ctx, SetBucket, func(e jetstream.KeyValueEntry) error {
		if e != nil {
			if name := setName(e.Key()); sets.ValidName(name) {
				delete(mine, name)
				if initial {
					return follow(name)
				}
				n.sets.heard.Add(1)
				return follow(name)
			}
			return nil
		}
		initial = false
		for _, name := range slices.Sorted(maps.Keys(mine)) { // that the fleet has not
			if err := follow(name); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		if len(failed) == 0 || time.Since(last) < setAgain {
			return nil
		}
		last = time.Now()
		for _, name := range slices.Sorted(maps.Keys(failed)) {
			if err := follow(name); err != nil {
				return err
			}
		}
		return nil
	}, jetstream.MetaOnly())
	if errors.Is(err, errBegin) {
		return nil
	}
	return err
}

// errBegin ends a watch without a word.
var errBegin = errors.New("to be begun again")
