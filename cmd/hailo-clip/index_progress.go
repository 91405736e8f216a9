package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"hailoclip/api/bulk"
	"hailoclip/api/bulk/sink"
	"hailoclip/api/bulk/source"
)

// indexProgress is what is shown of an index in the making, and what "index status" prints meanwhile.
type indexProgress struct {
	bulk.Status
	PID     int       `json:"pid"`           // of the process
	Job     string    `json:"job,omitempty"` // at the broker of the fleet
	Updated time.Time `json:"updated"`
	Total   int64     `json:"total,omitempty"`        // images of the source; 0: not known
	Rate    float64   `json:"images_per_second"`      // over the last half a minute
	Left    float64   `json:"seconds_left,omitempty"` // 0: not known
	Error   string    `json:"error,omitempty"`        // that has ended it
}

// indexShow shows it.
type indexShow struct {
	out, file string // the sink, and what status reads
	job       string // at the broker of the fleet
	json      bool
	start     time.Time
	cancel    context.CancelFunc
	counted   chan struct{}
	total     atomic.Int64
	past      []indexPoint // of the last half a minute
	saved     time.Time
	said      time.Time
	now       indexProgress
	progress  *mpb.Progress
	bar       *mpb.Bar
	line      atomic.Pointer[string] // beside the bar
}

type indexPoint struct {
	at   time.Time
	rows int64
}

const (
	indexWindow = 30 * time.Second // over which the rate is measured
	indexSaves  = 2 * time.Second  // between two writes of the file
	indexSays   = 10 * time.Second // between two lines where there is no bar
)

// newProgress begins to count the images of the source, where that is fast. The caller stops it.
func (c *indexRunCmd) newProgress(ctx context.Context, journal string, before bulk.Counts) *indexShow {
	ctx, cancel := context.WithCancel(ctx)
	s := &indexShow{out: sink.Name(c.Out), file: statusFile(journal), json: c.JSON, start: time.Now(), said: time.Now(), cancel: cancel, counted: make(chan struct{})}
	s.total.Store(before.Paths()) // a guess, until they are counted
	go func() {
		defer close(s.counted)
		if n, err := countImages(ctx, c.Source); err == nil {
			s.total.Store(n)
		}
	}()
	if !c.JSON && term.IsTerminal(int(os.Stderr.Fd())) {
		s.progress = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(40))
		s.line.Store(new(string))
		s.bar = s.progress.AddBar(0,
			mpb.PrependDecorators(decor.Name("indexing", decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d / %d"), decor.Any(func(decor.Statistics) string { return *s.line.Load() })))
	}
	return s
}

// countImages counts what a folder, a list or a tar has. Others would have to be read.
func countImages(ctx context.Context, address string) (n int64, err error) {
	info, err := os.Stat(address)
	if err != nil {
		return 0, err
	}
	if suffix := strings.ToLower(filepath.Ext(address)); !info.IsDir() && suffix != ".txt" && suffix != ".list" && suffix != ".tar" {
		return 0, fmt.Errorf("%s is not counted", address)
	}
	s, err := source.Open(address, source.Options{})
	if err != nil {
		return 0, err
	}
	defer closeSource(s)
	err = s.Each(ctx, func(bulk.Item) error {
		n++
		return ctx.Err()
	})
	return n, err
}

// set is told how it goes.
func (s *indexShow) set(now bulk.Status) {
	at := time.Now()
	done := now.Unchanged + now.Rows
	for len(s.past) > 1 && at.Sub(s.past[0].at) > indexWindow {
		s.past = s.past[1:]
	}
	s.past = append(s.past, indexPoint{at, now.Rows})
	from := s.past[0]
	p := indexProgress{Status: now, PID: os.Getpid(), Job: s.job, Updated: at.UTC(), Total: max(s.total.Load(), now.Seen)}
	if now.Enumerated {
		p.Total = now.Seen
	}
	if took := at.Sub(from.at).Seconds(); took > 0 {
		p.Rate = float64(now.Rows-from.rows) / took
	}
	if p.Rate > 0 {
		p.Left = float64(max(p.Total-done, 0)) / p.Rate
	}
	s.now = p
	if at.Sub(s.saved) >= indexSaves {
		s.save()
		s.saved = at
	}
	switch {
	case s.bar != nil:
		line := fmt.Sprintf("  %.0f/s  %s left", p.Rate, lasting(p.Left))
		s.line.Store(&line)
		s.bar.SetTotal(p.Total, false)
		s.bar.SetCurrent(min(done, max(p.Total, 0)))
	case s.json:
		if at.Sub(s.said) < time.Second {
			return
		}
		_ = printJSON(p)
	case at.Sub(s.said) < indexSays:
		return
	default:
		complain("hailo-clip: %d of %d images, %.0f/s, %s left", done, p.Total, p.Rate, lasting(p.Left))
	}
	s.said = at
}

// lasting is a time for people.
func lasting(seconds float64) string {
	if seconds <= 0 {
		return "?"
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// end shows the result.
func (s *indexShow) end(now bulk.Status, err error) {
	if s.set(now); err != nil {
		s.now.Error = err.Error()
	}
	s.stop()
	s.now.Left = 0
	s.now.PID = 0
	s.save()
	took := time.Since(s.start)
	s.now.Rate = float64(now.Rows) / max(took.Seconds(), 1e-3)
	switch {
	case s.json:
		_ = printJSON(s.now)
	case err == nil:
		fmt.Fprintf(stdout, "%s: %d images (%d without a usable image)", printable(s.out), now.Paths(), now.Failed+now.Unreadable)
		fmt.Fprintf(stdout, "; %d rows in %s, %.0f/s, %d images encoded, %d unchanged\n", now.Rows, took.Round(10*time.Millisecond), s.now.Rate, now.Encoded, now.Unchanged)
	}
}

// stop takes the bar away. It may be called twice.
func (s *indexShow) stop() {
	s.cancel()
	<-s.counted
	if s.bar != nil {
		s.bar.Abort(false)
		s.progress.Wait()
		s.bar = nil
	}
}

// statusFile is the file beside a journal, which another process can read while it is locked.
func statusFile(journal string) string { return journal + ".status" }

// save writes the file. It is of no use to anybody later: no error matters.
func (s *indexShow) save() {
	text, err := json.Marshal(s.now)
	if err == nil && os.WriteFile(s.file+".new", text, 0o600) == nil {
		_ = os.Rename(s.file+".new", s.file)
	}
}
