package main

import (
	"context"
	"fmt"
	"sync"
)

// verdictPrinter prints verdicts in the order of the images, each as soon as those before it are there. Safe for concurrent use.
type verdictPrinter struct {
	json   bool
	total  int
	cancel context.CancelCauseFunc // of the work, when nobody reads what is printed

	mu      sync.Mutex
	waiting map[int]verdict // done, and one before them is not
	next    int             // the image that is printed next
	width   int             // of the longest text so far, in cells
	failed  bool            // an image could not be classified
	bars    *bars           // nil where they and the output would be on one terminal
}

// newPrinter returns a printer for total images, and a context for the work, which ends when nothing can be printed any more.
func (c *classifyCmd) newPrinter(ctx context.Context, total int) (context.Context, *verdictPrinter) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &verdictPrinter{json: c.JSON, total: total, cancel: cancel, waiting: map[int]verdict{}, width: longest(c.Prompt...)}
	if c.JSON && total > 1 && !stdout.terminal {
		p.bars = newBars()
	}
	return ctx, p
}

// add prints v, the verdict of image i, as soon as those before it are there.
func (p *verdictPrinter) add(i int, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[i] = v
	for {
		v, is := p.waiting[p.next]
		if !is {
			return
		}
		delete(p.waiting, p.next)
		p.next++
		p.print(v)
		if p.bars != nil {
			p.bars.set("classifying", int64(p.next), int64(p.total))
		}
		if stdout.lost != nil {
			p.cancel(stdout.lost)
			return
		}
	}
}

// end returns the error of the command; err is that of the work. It is called once, after the last add.
func (p *verdictPrinter) end(err error) error {
	p.cancel(nil)
	if p.bars != nil {
		p.bars.done(err == nil)
	}
	switch {
	case stdout.lost != nil:
		return stdout.lost // of which err is a consequence
	case err != nil && p.next > 0:
		return fmt.Errorf("after %d of %d images: %w", p.next, p.total, err)
	case err == nil && p.failed:
		return exitError(exitFailed)
	}
	return err
}

func (p *verdictPrinter) print(v verdict) {
	if v.Error != "" {
		p.failed = true
	}
	switch {
	case p.json:
		_ = printJSON(v) // what is lost, stdout knows
	case v.Error != "":
		complain("hailo-clip: %s: %s", printable(v.Image), v.Error)
	default:
		fmt.Fprintln(stdout, printable(v.Image))
		if v.Matched != nil && !*v.Matched {
			fmt.Fprintf(stdout, "  no label fits: %s\n", printable(v.Reason))
		}
		for _, m := range v.Matches {
			p.width = max(p.width, longest(m.Text))
		}
		for _, m := range v.Matches {
			fmt.Fprintln(stdout, "  "+row(m.Text, m.Score, p.width))
		}
	}
}
