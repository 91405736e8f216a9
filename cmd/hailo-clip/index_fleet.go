package main

import (
	"context"
	"errors"
	"fmt"

	"hailoclip/api/bulk"
	"hailoclip/api/bulk/sink"
	"hailoclip/api/fleet"
)

// withFleet calls work with the nodes of the fleet as the encoder. Prompts are compared here: their vectors are made by the encoder of
// this process, which then is not needed any more.
func (c *indexRunCmd) withFleet(ctx context.Context, g *globals, from bulk.Source, work func(indexEncoder) error) error {
	p, err := g.place()
	if err != nil {
		return err
	}
	p.quiet()
	if !p.cfg.Fleet.On() {
		return usageError{errors.New("--fleet: there is no fleet in the configuration (fleet.url)")}
	}
	e, err := fleet.OpenEncoder(ctx, p.cfg.Fleet, fleet.EncoderOptions{
		Job: bulk.JobID(from.Name(), sink.Name(c.Out)), Source: c.Source, Model: g.Model, Log: stderr.logger(p.cfg.Logging),
	})
	if err != nil {
		return err
	}
	all := indexEncoder{Encoder: e, dimension: e.Dimension(), what: c.what(""), told: func(s bulk.Status) { e.Tell(s.Seen, s.Enumerated) }}
	if len(c.Prompt) > 0 {
		err = withEngine(ctx, g, func(own *engine) (err error) {
			if own.Model() != e.Model() {
				return fmt.Errorf("the fleet encodes with %s, and prompts would be with %s here: give --model", e.Model(), own.Model())
			}
			all.score, err = c.score(ctx, own)
			return err
		})
	}
	if err == nil {
		err = work(all)
	}
	return errors.Join(err, e.Close(context.WithoutCancel(ctx)))
}
