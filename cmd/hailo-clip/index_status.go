package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"hailoclip/api/bulk"
	"hailoclip/api/bulk/sink"
	"hailoclip/cache/boltfile"
	"hailoclip/hailo/safefile"
)

type indexStatusCmd struct {
	Source string `arg:"" optional:"" help:"The source, where SINK is a database."`
	indexFlags
	Errors int  `default:"10" placeholder:"N" help:"Name so many images that could not be used, and dead letters (default ${default})."`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *indexStatusCmd) Help() string {
	return `With fleet.url in the configuration also what the broker has of an index that is made with --fleet: images that are queued or with a node,
results that are to be stored, and the last images that no node could encode.

Examples:
  hailo-clip index status --out vectors.ndjson
  hailo-clip index status photos --out qdrant://127.0.0.1:6333/photos
  hailo-clip index status --out vectors.ndjson --json | jq .stored`
}

// indexStatus is what is printed.
type indexStatus struct {
	bulk.Counts
	Journal  string          `json:"journal"`
	Identity *bulk.Identity  `json:"identity,omitempty"` // nil while it is being made
	Running  *indexProgress  `json:"running,omitempty"`  // by another process; nil: it is not
	Unusable []indexUnusable `json:"unusable,omitempty"`
	Fleet    *indexFleet     `json:"fleet,omitempty"` // nil: the broker knows nothing of it, or there is none
}

// indexUnusable is an image that is none.
type indexUnusable struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

func (c *indexStatusCmd) Run(ctx context.Context, g *globals) error {
	path, err := c.journal(g, func() (string, error) { return sourceName(c.Source) })
	if err != nil {
		return err
	}
	s, job := indexStatus{Journal: path}, ""
	j, err := bulk.OpenJournal(path, false)
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		text, err := safefile.ReadFile(statusFile(path), 64<<10)
		if err == nil {
			s.Running = &indexProgress{}
			err = json.Unmarshal(text, s.Running)
		}
		if err != nil {
			return fmt.Errorf("it is being made, and does not say how far it is: %w", err)
		}
		s.Counts, job = s.Running.Counts, s.Running.Job
	case err != nil:
		return c.explain(err, path)
	default:
		s.Counts, s.Identity = j.Counts(), &j.Identity
		err = errors.Join(j.Failures(max(c.Errors, 0), func(path, why string) {
			s.Unusable = append(s.Unusable, indexUnusable{path, why})
		}), j.Close())
		if err != nil {
			return err
		}
		job = fleetJob(j.Identity.Source, c.Out)
	}
	if job != "" {
		s.Fleet = askFleet(ctx, g, job, max(c.Errors, 0))
	}
	if c.JSON {
		return printJSON(s)
	}
	s.print()
	return nil
}

func (s *indexStatus) print() {
	switch r := s.Running; {
	case r != nil:
		fmt.Fprintf(stdout, "being made by process %d: %d of %d images, %.0f/s, %s left\n", r.PID, r.Unchanged+r.Rows, r.Total, r.Rate, lasting(r.Left))
	case s.Complete:
		fmt.Fprintln(stdout, "complete")
	default:
		fmt.Fprintln(stdout, "not complete: the command that made it goes on where it was")
	}
	if id := s.Identity; id != nil {
		fmt.Fprintf(stdout, "source    %s\nrows      %s, by %s\n", printable(id.Source), printable(id.What), printable(id.Model))
	}
	fmt.Fprintf(stdout, "stored    %d\nunusable  %d, and %d that could not be read or encoded\nwaiting   %d\ncontents  %d\n",
		s.Stored, s.Failed, s.Unreadable, s.Waiting, s.Images)
	if s.Vanished > 0 {
		fmt.Fprintf(stdout, "vanished  %d (--prune takes their rows away)\n", s.Vanished)
	}
	for _, u := range s.Unusable {
		fmt.Fprintf(stdout, "  %s: %s\n", printable(u.Path), printable(u.Error))
	}
	if s.Fleet != nil {
		s.Fleet.print()
	}
}

type indexVerifyCmd struct {
	Source string `arg:"" optional:"" help:"The source, where SINK is a database."`
	indexFlags
	Repair bool `help:"Have the next run make the rows anew that are missing or double."`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *indexVerifyCmd) Help() string {
	return `Reads every row, and says which images have none, or more than one. Exit code 1 unless all have exactly one. Foreign rows are those of others:
in a database they are no fault.

Examples:
  hailo-clip index verify --out vectors.ndjson
  hailo-clip index verify --out vectors.ndjson --repair
  hailo-clip index verify photos --out qdrant://127.0.0.1:6333/photos`
}

func (c *indexVerifyCmd) Run(ctx context.Context, g *globals) (err error) {
	path, err := c.journal(g, func() (string, error) { return sourceName(c.Source) })
	if err != nil {
		return err
	}
	j, err := bulk.OpenJournal(path, false)
	if err != nil {
		return c.explain(err, path)
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if _, err := os.Stat(c.Out); err != nil && !strings.Contains(c.Out, "://") {
		return err // it is not made for that
	}
	s, err := sink.Open(ctx, c.Out, sink.Options{Model: j.Identity.Model})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v, err := bulk.Verify(ctx, j, s, c.Repair)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(v)
	} else {
		fmt.Fprintf(stdout, "%d rows for %d images: %d missing, %d double, %d foreign; %d images wait\n",
			v.Rows, v.Expected+v.Waiting, v.Missing, v.Double, v.Foreign, v.Waiting)
		if v.Stale > 0 {
			when := "the next run takes them away"
			if _, is := s.(bulk.Appender); is && c.Repair {
				when = "they are taken away"
			}
			fmt.Fprintf(stdout, "%d rows of what has changed or vanished: %s\n", v.Stale, when)
		}
		for _, e := range v.Examples {
			fmt.Fprintf(stdout, "  %s\n", printable(e))
		}
	}
	switch {
	case err != nil || v.Good(strings.Contains(c.Out, "://")):
		return err
	case c.Repair && v.Missing+v.Double > 0 || c.Repair && v.Cut:
		complain("hailo-clip: what is missing or double is made anew by the next run of the command that made the index")
	}
	return exitError(exitFailed)
}
