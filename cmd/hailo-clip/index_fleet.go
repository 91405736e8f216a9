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

// withFleet calls work with the fleet of the configuration, whose services encode. Prompts are encoded by this process, with the
// same model.
func (c *indexRunCmd) withFleet(ctx context.Context, g *globals, source string, work func(indexEncoder) error) error {
	p, err := g.place()
	if err != nil {
		return err
	}
	p.quiet()
	if !p.cfg.Fleet.On() {
		return usageError{errors.New("--fleet: the configuration has no fleet.url, see configs/docs/fleet.md")}
	}
	var labels indexEncoder
	model := strings.TrimPrefix(g.Model, "auto") // "": that of the fleet
	if len(c.Prompt) > 0 {
		if err := withEngine(ctx, g, func(e *engine) (err error) {
			model = e.Model()
			labels.score, err = c.score(ctx, e)
			return err
		}); err != nil {
			return err
		}
	}
	host, _ := os.Hostname() // paths of two hosts may be equal, and a job's results go to one process
	e, err := fleet.OpenEncoder(ctx, p.cfg.Fleet, fleet.EncoderOptions{
		Job: bulk.JobID(host+":"+source, sink.Name(c.Out)), Source: source, Model: model, Log: stderr.logger(p.cfg.Logging),
	})
	if err != nil {
		return fmt.Errorf("--fleet: %w", err)
	}
	labels.Encoder, labels.dimension, labels.what = e, e.Dimension(), c.what("")
	return errors.Join(work(labels), e.Close(context.WithoutCancel(ctx)))
}
