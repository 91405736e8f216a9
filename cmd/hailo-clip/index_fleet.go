package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

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
	e, err := fleet.OpenEncoder(ctx, p.cfg.Fleet, fleet.EncoderOptions{
		Job: fleetJob(source, c.Out), Source: source, Model: labels.model, Log: log, Prepared: c.resized,
	})
	if err != nil {
		return fmt.Errorf("--fleet: %w", err)
	}
	if err = labels.fits(e.Digest()); err == nil {
		err = work(indexEncoder{Encoder: e, dimension: e.Dimension(), what: c.what(labels.version), score: labels.score})
	}
	return errors.Join(err, e.Close(context.WithoutCancel(ctx)))
}

// fleetJob is the id of an index at the broker.
func fleetJob(source, out string) string {
	host, _ := os.Hostname() // paths of two hosts may be equal, and a job's results go to one process
	return bulk.JobID(host+":"+source, sink.Name(out))
}

// indexFleet is how an index stands at the broker of the fleet.
type indexFleet struct {
	*fleet.JobState
	Error string `json:"error,omitempty"` // why that is not known
}

// askTime is how long "index status" waits for a broker that may be away.
const askTime = 3 * time.Second

// askFleet asks the broker of the configuration for a job and its last dead letters; nil: there is no fleet, or it has no such job.
func askFleet(ctx context.Context, g *globals, job string, letters int) *indexFleet {
	p, err := g.place()
	if err != nil {
		return &indexFleet{Error: err.Error()}
	}
	if !p.cfg.Fleet.On() {
		return nil
	}
	c, err := fleet.Dial(p.cfg.Fleet, slog.New(slog.DiscardHandler))
	if err != nil {
		return &indexFleet{Error: err.Error()}
	}
	defer c.Close()
	waiting, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var state *fleet.JobState
	if err = c.Await(waiting); err == nil {
		state, err = c.Job(ctx, job, min(letters, maxLetters))
	}
	switch {
	case err != nil:
		return &indexFleet{state, err.Error()}
	case state == nil:
		return nil
	}
	return &indexFleet{JobState: state}
}

// maxLetters is how many dead letters are printed at most.
const maxLetters = 100

func (f *indexFleet) print() {
	if f.JobState != nil {
		rate := ""
		if f.State == "running" {
			rate = fmt.Sprintf(", %.0f/s", f.Rate)
		}
		fmt.Fprintf(stdout, "broker    %s%s: %d queued, %d to be stored; in the last run %d done, %d dead\n", printable(f.State), rate, f.Queued, f.Unstored, f.Done, f.Dead)
		for _, d := range f.Letters {
			fmt.Fprintf(stdout, "  %s %s: %s\n", d.Time.Local().Format(time.DateTime), printable(d.Key), printable(d.Reason))
		}
	}
	switch {
	case f.Error == "":
	case f.JobState == nil:
		fmt.Fprintf(stdout, "broker    not asked: %s\n", printable(f.Error))
	default:
		fmt.Fprintf(stdout, "  dead letters are not known: %s\n", printable(f.Error))
	}
}
