package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"hailoclip/api/bulk"
	"hailoclip/api/bulk/sink"
	"hailoclip/api/fleet"
)

// withFleet calls work with the fleet of the configuration, whose services encode. Prompts, and those of a prompt set, are encoded by this
// process, with the same model.
func (c *indexRunCmd) withFleet(ctx context.Context, g *globals, source string, work func(indexEncoder) error) error {
	p, err := g.place()
	if err != nil {
		return err
	}
	p.quiet()
	if !p.cfg.Fleet.On() {
		return usageError{errors.New("--fleet: the configuration has no fleet.url, see configs/docs/fleet.md")}
	}
	log := stderr.logger(p.cfg.Logging)
	labels := indexLabeller{model: strings.TrimPrefix(g.Model, "auto")} // "": that of the fleet
	if len(c.Prompt) > 0 || c.Set != "" {
		if labels, err = c.labeller(ctx, g, p, log); err != nil {
			return err
		}
	}
	host, _ := os.Hostname() // paths of two hosts may be equal, and a job's results go to one process
	e, err := fleet.OpenEncoder(ctx, p.cfg.Fleet, fleet.EncoderOptions{
		Job: bulk.JobID(host+":"+source, sink.Name(c.Out)), Source: source, Model: labels.model, Log: log, Prepared: c.resized,
	})
	if err != nil {
		return fmt.Errorf("--fleet: %w", err)
	}
	if err = labels.fits(e.Digest()); err == nil {
		err = work(indexEncoder{Encoder: e, dimension: e.Dimension(), what: c.what(labels.version), score: labels.score})
	}
	return errors.Join(err, e.Close(context.WithoutCancel(ctx)))
}
