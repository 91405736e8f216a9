package main

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// bars shows progress, one bar for each thing under way; nothing where standard error is no terminal.
type bars struct {
	progress *mpb.Progress
	counter  func() decor.Decorator
	byName   map[string]*mpb.Bar
}

// newBars counts things.
func newBars() *bars {
	b := &bars{byName: map[string]*mpb.Bar{}, counter: func() decor.Decorator { return decor.CountersNoUnit("%d / %d") }}
	var w io.Writer
	if term.IsTerminal(int(os.Stderr.Fd())) {
		w = os.Stderr
	}
	b.progress = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	return b
}

// newByteBars counts bytes.
func newByteBars() *bars {
	b := newBars()
	b.counter = func() decor.Decorator { return decor.Counters(decor.SizeB1024(0), "% .1f / % .1f") }
	return b
}

// set says that done of total are there; a total of 0 or less is not known yet.
func (b *bars) set(name string, done, total int64) {
	bar := b.byName[name]
	if bar == nil {
		bar = b.progress.AddBar(max(total, 0),
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(b.counter(), decor.Percentage(decor.WC{W: 6})))
		b.byName[name] = bar
	}
	bar.SetTotal(max(total, 0), false)
	bar.SetCurrent(done)
}

// done ends all bars and waits until they are drawn: as full ones if all went well, else as they are.
func (b *bars) done(well bool) {
	for _, bar := range b.byName {
		if well {
			bar.SetTotal(-1, true)
		} else {
			bar.Abort(false)
		}
	}
	b.progress.Wait()
}
