package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hailoclip/api/bulk"
	"hailoclip/api/client"
	"hailoclip/api/fleet"
	"hailoclip/cache/sets"
	"hailoclip/stages/clip"
)

// indexLabeller classifies vectors that others have made.
type indexLabeller struct {
	model   string // name of the model that has encoded the prompts
	images  string // digest of its image encoder, where a prompt set has examples, else ""
	version string // of the prompt set, or of what has encoded the prompts
	score   func(vector []float32) []bulk.Match
}

// labeller encodes prompts, or those of a prompt set, by an engine of this process.
func (c *indexRunCmd) labeller(ctx context.Context, g *globals, p place, log *slog.Logger) (l indexLabeller, err error) {
	var d sets.Definition
	if c.Set != "" {
		if d, err = c.definition(ctx, p, log); err != nil {
			return l, err
		}
	}
	err = withEngine(ctx, g, func(e *engine) error {
		l.model, l.version = e.Model(), e.TextDigest()
		if c.Set == "" {
			l.score, err = c.score(ctx, e)
			return err
		}
		set, err := encodedSet(ctx, e.PromptSets(), c.Set, d)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(d.Owners(), func(o sets.Owner) bool { return len(*o.Examples) > 0 }) {
			l.images = e.ImageDigest()
		}
		l.version, l.score = set.ETag, c.rank(&set.Labels, set.Scoring, set.Names)
		return nil
	})
	return l, err
}

// fits says that vectors of an encoder, with that digest, may be classified: examples of a prompt set are compared as they are only with
// those of the same encoder.
func (l *indexLabeller) fits(digest string) error {
	if l.images == "" || digest == l.images || strings.HasPrefix(digest, l.images+"/") { // however images are prepared
		return nil
	}
	return fmt.Errorf("the prompt set has examples, and this process another image encoder than the fleet: %.24q, not %.24q; "+
		"index on a node of the fleet, or with --backend and --model of the nodes", l.images, digest)
}

// definition finds the prompt set that a service of this host would answer by: of the configuration, of the fleet where that shares them, or
// of the state folder.
func (c *indexRunCmd) definition(ctx context.Context, p place, log *slog.Logger) (sets.Definition, error) {
	if d, ok := p.cfg.PromptSets[c.Set]; ok {
		return d, nil
	}
	if p.cfg.Fleet.Share {
		if d, ok, err := fleet.SharedSet(ctx, p.cfg.Fleet, c.Set, log); ok || err != nil {
			return d, err
		}
	}
	file, err := sets.OpenReadOnly(filepath.Join(p.state, sets.FileName))
	switch {
	case errors.Is(err, sets.ErrLocked):
		return c.served(ctx, p)
	case err == nil:
		var r sets.Record
		if r, err = file.Get(ctx, c.Set); err == nil {
			return r.Definition, file.Close(ctx)
		}
		err = errors.Join(err, file.Close(ctx))
	}
	if errors.Is(err, sets.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		where := "neither the configuration nor " + p.state
		if p.cfg.Fleet.Share {
			where = "neither the configuration nor the fleet nor " + p.state
		}
		err = fmt.Errorf("%w: %s has a set %.64q", clip.ErrNoSet, where, c.Set)
	}
	return sets.Definition{}, err
}

// served is the set that the running service has which holds the state folder.
func (c *indexRunCmd) served(ctx context.Context, p place) (d sets.Definition, err error) {
	url, err := p.served(ctx)
	if err == nil && url == "" {
		err = sets.ErrLocked // until a moment ago
	}
	if err != nil {
		return d, err
	}
	key, err := c.key()
	if err != nil {
		return d, err
	}
	err = askAt(url, client.Options{Key: key, HTTP: p.cfg.Server.OwnClient()}, func(s *client.Client) error {
		set, err := s.PromptSet(ctx, c.Set, true)
		if err != nil {
			return err
		}
		if d, err = translated[sets.Definition](set.Definition); err != nil {
			return err
		}
		d = d.Normalized()
		return d.Validate(setLimits)
	})
	return d, err
}

// encodedSet has an engine make a prompt set ready, which it has for itself.
func encodedSet(ctx context.Context, all *clip.PromptSets, name string, d sets.Definition) (*clip.PromptSet, error) {
	if err := all.Configure(ctx, map[string]sets.Definition{name: d}); err != nil {
		return nil, err
	}
	bar, tick := newBars(), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		info, err := all.Info(ctx, name, false)
		if err == nil && info.State == clip.SetFailed {
			err = fmt.Errorf("%s: %w: %s", name, errNotEncoded, info.Reason)
		}
		if err != nil || info.State == clip.SetReady {
			bar.done(err == nil)
			if err != nil {
				return nil, err
			}
			return all.Ready(name)
		}
		bar.set("encoding "+name, int64(info.Encoded), int64(info.Total))
		select {
		case <-tick.C:
		case <-ctx.Done():
			bar.done(false)
			return nil, context.Cause(ctx)
		}
	}
}
