package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"hailoclip/api/bulk"
	"hailoclip/api/bulk/sink"
	"hailoclip/api/bulk/source"
	"hailoclip/api/outbound"
)

type indexRunCmd struct {
	Source string `arg:"" help:"Images: a folder, a list of paths or addresses (.txt, - for standard input), a .tar, .tar.gz or .tar.zst, or the listing of a web server."`
	indexFlags
	indexLabels
	keyFlag
	URL           string `name:"url" placeholder:"URL" help:"Let this service encode, or unix:PATH (default: this process does, with --backend and --model)."`
	Fleet         bool   `help:"Let the services of the fleet encode (fleet.url), over its broker."`
	MaxImageBytes int    `name:"max-image-bytes" placeholder:"N" default:"33554432" help:"Larger images get a row with an error (default ${default})."`
	Resize        int    `placeholder:"N" help:"Send a smaller copy, whose shorter side has N pixels, of images that are larger; with --url or --fleet (default: as they are)."`
	Prune         bool   `help:"Take away the rows of images that the source does not have any more."`
	JSON          bool   `name:"json" help:"Print how it goes on as JSON, a line a second; the last one has the result."`
}

func (c *indexRunCmd) Help() string {
	return `Each image gets one row: {"key", "path", "model", "embedding"}, or "classifications" with -p or --prompt-set, or "error" for what is no
image. Images with equal content are encoded once. Exit code 0 also when some images could not be used: the summary counts them.

` + indexExamples
}

func (c *indexRunCmd) Run(ctx context.Context, g *globals) error {
	if err := c.check(g); err != nil {
		return err
	}
	p, err := g.place()
	if err != nil {
		return err
	}
	skipped := imageFiles{skipped: map[string]int{}}
	from, err := source.Open(c.Source, source.Options{
		MaxImageBytes: c.MaxImageBytes, Stdin: os.Stdin, Listed: outbound.New(p.cfg.Fetch), Skipped: func(kind string) { skipped.skipped[kind]++ },
	})
	if err != nil {
		return usageError{err}
	}
	defer closeSource(from)
	path, err := c.journal(g, func() (string, error) { return from.Name(), nil })
	if err != nil {
		return err
	}
	if strings.Contains(c.Out, "://") && c.Journal == "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	err = c.withEncoder(ctx, g, from.Name(), func(e indexEncoder) error {
		if c.Resize > 0 {
			if e.prepare, err = c.shrinker(p); err != nil {
				return err
			}
		}
		return c.index(ctx, from, e, path, &skipped)
	})
	return c.explain(err, path)
}

func (c *indexRunCmd) check(g *globals) error {
	if c.MaxImageBytes <= 0 {
		return usageError{fmt.Errorf("--max-image-bytes: %d is out of bounds: above 0", c.MaxImageBytes)}
	}
	if err := c.indexLabels.check(); err != nil {
		return err
	}
	if c.Fleet && c.URL != "" {
		return usageError{errors.New("--fleet does not go with --url")}
	}
	switch asked := c.Fleet || c.URL != "" || c.Set != ""; {
	case c.Resize != 0 && (c.Resize < minResize || c.Resize > maxResize):
		return usageError{fmt.Errorf("--resize: %d is out of bounds: %d to %d", c.Resize, minResize, maxResize)}
	case c.Resize != 0 && !asked:
		return usageError{errors.New("--resize is for images that are sent, with --url or --fleet: this process would decode them twice")}
	}
	return noStart(c.URL, g)
}

// index has the encoder work through the source.
func (c *indexRunCmd) index(ctx context.Context, from bulk.Source, e indexEncoder, path string, skipped *imageFiles) (err error) {
	j, err := bulk.OpenJournal(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	to, err := sink.Open(ctx, c.Out, sink.Options{Dimension: e.dimension, Model: e.Model()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	progress := c.newProgress(ctx, path, j.Counts())
	if c.Fleet {
		progress.job = fleetJob(from.Name(), c.Out)
	}
	defer progress.stop()
	readers := 0
	if e.prepare != nil {
		readers = max(8, runtime.GOMAXPROCS(0)) // which make the copies
	}
	s, err := bulk.Run(ctx, bulk.Job{
		Source: from, Sink: to, Encoder: e, Journal: j, Name: sink.Name(c.Out), Dimension: e.dimension, What: e.what, Score: e.score, Prepare: e.prepare, Readers: readers,
		MaxImageBytes: int64(c.MaxImageBytes), Prune: c.Prune, Progress: func(s bulk.Status) {
			progress.set(s)
			e.tell(s)
		},
	})
	progress.end(s, err)
	switch {
	case interrupted(ctx, err):
		complain("hailo-clip: %d rows are stored; the same command goes on from there", s.Rows)
		return err
	case err != nil:
		if s.Rows > 0 {
			err = fmt.Errorf("%w (%d rows are stored; the same command goes on from there)", err, s.Rows)
		}
		return err
	}
	skipped.tellSkipped()
	if n := s.Failed + s.Unreadable; n > 0 && !c.JSON {
		_ = j.Failures(10, func(path, why string) { complain("hailo-clip: %s: %s", printable(path), why) })
		if n > 10 {
			complain("hailo-clip: and %d more; their rows have an \"error\"", n-10)
		}
	}
	if s.Vanished > 0 {
		complain("hailo-clip: %d images are not there any more; --prune takes their rows away", s.Vanished)
	}
	if s.Replaced > 0 {
		complain("hailo-clip: %d rows of images that have changed cannot be taken away there", s.Replaced)
	}
	return nil
}
