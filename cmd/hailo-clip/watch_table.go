package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"hailoclip/api/client"
	"hailoclip/api/stream/source"
)

// What a terminal is told (ECMA-48, and as xterm has it). The screen is another one than that of the shell, so a table that is drawn
// over and over leaves no traces there and survives every change of the size.
const (
	screenBegin = "\x1b[?1049h\x1b[?25l"        // the other screen, no cursor
	screenEnd   = "\x1b[0m\x1b[?25h\x1b[?1049l" // and back
	drawBegin   = "\x1b[?2026h\x1b[H"           // all at once where the terminal can; from the upper left
	drawEnd     = "\x1b[J\x1b[?2026l"           // nothing below
	lineEnd     = "\x1b[K"                      // nothing to the right

	drawEvery   = 100 * time.Millisecond
	recentTime  = 3 * time.Second // what rate and lag are of
	mostRecent  = 1024            // answers that count for them
	tableEvents = 8
)

// Styles are of the 16 colors that every terminal has its own idea of, and readable on dark and on light ones.
const (
	styleBold  = "1"
	styleDim   = "2"
	styleGood  = "32" // green
	styleBad   = "31" // red
	styleOther = "35" // magenta
)

// span is a part of a line.
type span struct{ style, text string }

// tableView follows the frames with a table.
type tableView struct {
	out     *output
	title   string
	colors  bool
	stopped chan struct{}
	drawer  sync.WaitGroup

	mu      sync.Mutex // of what follows
	dirty   bool
	names   []string // of regions, in their order
	regions map[string]*tableRegion
	recent  []tableAnswer // the newest last
	tally   watchTally
	frame   watchedFrame // the last one
	why     error        // there is nothing new
	events  []client.Event
}

type tableAnswer struct {
	at   time.Time
	lag  float64
	good bool
}

// tableRegion is what was found last, and what holds since when.
type tableRegion struct {
	answer client.RegionAnswer
	labels []string
	since  time.Time // the last change
}

// newTableView begins to draw.
func newTableView(c *watchCmd, out *output) *tableView {
	v := newTable(c)
	v.out, v.colors = out, out.color() && !c.NoColor
	_, _ = out.raw([]byte(screenBegin))
	v.drawer.Go(v.run)
	return v
}

func newTable(c *watchCmd) *tableView {
	title := source.Mask(c.Source)
	if c.Source == "-" {
		title = "standard input"
	}
	if c.Set != "" {
		title += " · " + c.Set
	}
	return &tableView{title: title, stopped: make(chan struct{}), regions: map[string]*tableRegion{}, dirty: true}
}

// run draws what is new until the end.
func (v *tableView) run() {
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	var drawn time.Time
	for {
		select {
		case <-v.stopped:
			return
		case now := <-tick.C:
			v.mu.Lock()
			if v.dirty || now.Sub(drawn) >= time.Second {
				v.dirty, drawn = false, now
				width, height := v.size()
				text := drawBegin + strings.Join(v.render(now, width, height), lineEnd+"\r\n") + lineEnd + drawEnd
				_, _ = v.out.raw([]byte(text))
			}
			v.mu.Unlock()
		}
	}
}

// close gives the screen back, and leaves the last table on it. It is called once.
func (v *tableView) close() {
	close(v.stopped)
	v.drawer.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	width, _ := v.size()
	_, _ = v.out.raw([]byte(screenEnd + strings.Join(v.render(time.Now(), width, math.MaxInt), "\n") + "\n"))
}

// size is that of the terminal, 80 x 24 where it does not tell.
func (v *tableView) size() (width, height int) {
	width, height, err := term.GetSize(int(v.out.to.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

func (v *tableView) answer(f watchedFrame, m client.Message) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty, v.frame, v.why = true, f, nil
	a := m.Answer
	v.tally.add(a)
	v.recent = append(v.recent, tableAnswer{time.Now(), a.LagMS, a.Dropped == ""})
	if len(v.recent) > mostRecent {
		v.recent = slices.Delete(v.recent, 0, len(v.recent)-mostRecent)
	}
	switch {
	case a.Dropped == "bad":
		v.why = fmt.Errorf("%s: %s", f.name, a.Error)
	case a.Dropped != "":
	case len(a.Regions) > 0:
		for _, r := range a.Regions {
			v.region(r.Name).answer = r
		}
	default:
		v.region("").answer = a.RegionAnswer
	}
	return v.out.lost
}

// region is what is known of a region. The caller holds mu.
func (v *tableView) region(name string) *tableRegion {
	r := v.regions[name]
	if r == nil {
		r = new(tableRegion)
		v.regions[name] = r
		v.names = append(v.names, name)
	}
	return r
}

func (v *tableView) event(m client.Message) error {
	e := *m.Event
	if e.Kind == client.EventState { // which the others say, too
		return v.out.lost
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = true
	r := v.region(e.Region)
	switch e.Kind {
	case client.EventEnter:
		r.labels = append(slices.DeleteFunc(r.labels, func(l string) bool { return l == e.Label }), e.Label)
	case client.EventExit:
		r.labels = slices.DeleteFunc(r.labels, func(l string) bool { return l == e.Label })
	}
	r.since = time.Now()
	v.events = append([]client.Event{e}, v.events[:min(len(v.events), tableEvents-1)]...)
	return v.out.lost
}

func (v *tableView) trouble(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty, v.why = true, err
}

// render returns the lines, of which none is wider than width cells, and at most height. The caller holds mu.
func (v *tableView) render(now time.Time, width, height int) (lines []string) {
	add := func(spans ...span) {
		if len(lines) < height {
			lines = append(lines, paint(spans, width, v.colors))
		}
	}
	add(span{styleBold, v.title}, span{styleDim, v.where()})
	add(span{"", v.rates(now)})
	if v.why != nil {
		add(span{styleBad, v.why.Error()})
	}
	for _, name := range v.names {
		v.renderRegion(name, now, width, add)
	}
	for i, e := range v.events {
		if i == 0 {
			add()
		}
		add(eventSpans(&e)...)
	}
	return lines
}

// where is the place of the last frame in its file.
func (v *tableView) where() string {
	text := ""
	if v.frame.name != "" {
		text += "  " + v.frame.name
	}
	if v.frame.time >= 0 && v.tally.frames > 0 {
		text += fmt.Sprintf("  %.1f s", v.frame.time.Seconds())
	}
	return text
}

// rates is what happens in a second, and what has happened to all frames.
func (v *tableView) rates(now time.Time) string {
	t := &v.tally
	if t.frames == 0 {
		return "waiting for frames"
	}
	v.recent = slices.DeleteFunc(v.recent, func(a tableAnswer) bool { return now.Sub(a.at) > recentTime })
	rate := 0.0
	var lags []float64
	if n := len(v.recent); n > 1 {
		rate = float64(n-1) / max(now.Sub(v.recent[0].at).Seconds(), 1e-3)
	}
	for _, a := range v.recent {
		if a.good {
			lags = append(lags, a.lag)
		}
	}
	text := fmt.Sprintf("%.1f frames/s", rate)
	if slices.Sort(lags); len(lags) > 0 {
		text += fmt.Sprintf(" · lag %.0f ms, at most %.0f", lags[len(lags)/2], lags[len(lags)-1])
	}
	text += fmt.Sprintf(" · %d answered", t.answered)
	if t.reused > 0 {
		text += fmt.Sprintf(", %d of them reused", t.reused)
	}
	for _, why := range []string{"superseded", "expired", "bad", "rate"} {
		if n := t.dropped[why]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, why)
		}
	}
	return text
}

// renderRegion has what holds in a region, and a bar for each label.
func (v *tableView) renderRegion(name string, now time.Time, width int, add func(...span)) {
	r := v.regions[name]
	add()
	head := []span{}
	if name != "" {
		head = append(head, span{styleBold, name + "  "})
	}
	switch since := ""; {
	case r.since.IsZero():
		head = append(head, span{styleDim, "nothing holds yet"})
	default:
		since = "  since " + now.Sub(r.since).Truncate(time.Second).String()
		if len(r.labels) == 0 {
			head = append(head, span{styleDim, "nothing holds" + since})
			break
		}
		head = append(head, span{styleGood + ";" + styleBold, strings.Join(r.labels, ", ")}, span{styleDim, since})
	}
	if !r.answer.Matched && r.answer.Matches != nil {
		head = append(head, span{styleDim, "  no label fits: " + r.answer.Reason})
	}
	add(head...)
	texts := make([]string, len(r.answer.Matches))
	for i, m := range r.answer.Matches {
		texts[i] = m.Text
	}
	column := min(longest(texts...), max(width-barWidth-10, 10))
	for _, m := range r.answer.Matches {
		style := ""
		if slices.Contains(r.labels, m.Text) {
			style = styleGood
		}
		add(span{style, row(m.Text, m.Score, column)})
	}
}

// eventSpans is the line of an event.
func eventSpans(e *client.Event) []span {
	label, style, mark := e.Label, styleOther, "•"
	switch e.Kind {
	case client.EventEnter:
		style, mark = styleGood, "▲"
	case client.EventExit:
		style, mark = styleBad, "▼"
	case client.EventState:
		label = e.State
	}
	line := []span{{styleDim, e.Time.Local().Format("15:04:05.0") + "  "}, {style, mark + " " + pad(e.Kind, 5)}, {"", "  " + label}}
	if e.Region != "" {
		line = append(line, span{styleDim, " in " + e.Region})
	}
	return append(line, span{styleDim, fmt.Sprintf("  %.3f", e.Score)})
}

// paint writes the spans in at most width cells. What is in them cannot command the terminal.
func paint(spans []span, width int, colors bool) string {
	var b strings.Builder
	for _, s := range spans {
		text := strings.NewReplacer("\n", " ", "\t", " ").Replace(plain(s.text))
		text = runewidth.Truncate(text, width, "…")
		width -= runewidth.StringWidth(text)
		if colors && s.style != "" && text != "" {
			text = "\x1b[" + s.style + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
		if width <= 0 {
			break
		}
	}
	return b.String()
}
