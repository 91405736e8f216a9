package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"hailoclip/api/client"
)

// watchView shows what becomes of frames. Its methods are called by one goroutine at a time.
type watchView interface {
	answer(f watchedFrame, m client.Message) error
	event(m client.Message) error
	trouble(err error) // why there are no frames or answers now; nil: there are
	close()            // before anything else is printed
}

// watchTally counts what became of frames.
type watchTally struct {
	begin            time.Time
	frames, reused   int
	answered, events int
	dropped          map[string]int
	lag, lagMax      float64 // of all answers, milliseconds
}

func (t *watchTally) add(a *client.StreamAnswer) {
	t.frames++
	if a.Dropped != "" {
		if t.dropped == nil {
			t.dropped = map[string]int{}
		}
		t.dropped[a.Dropped]++
		return
	}
	if t.answered++; a.Reused {
		t.reused++
	}
	t.lag += a.LagMS
	t.lagMax = max(t.lagMax, a.LagMS)
}

// summary is a line for people. lost is how many frames were never sent.
func (t *watchTally) summary(lost uint64) string {
	took := time.Since(t.begin).Seconds()
	var b strings.Builder
	fmt.Fprintf(&b, "%d frames in %.1f s (%.1f/s): %d answered", t.frames, took, float64(t.frames)/max(took, 1e-3), t.answered)
	if t.reused > 0 {
		fmt.Fprintf(&b, " (%d as the one before)", t.reused)
	}
	for _, why := range [][2]string{{"superseded", "superseded"}, {"expired", "expired"}, {"bad", "not readable"}, {"rate", "beyond --fps"}} {
		if n := t.dropped[why[0]]; n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, why[1])
		}
	}
	if lost > 0 {
		fmt.Fprintf(&b, ", %d not sent", lost)
	}
	if t.answered > 0 {
		fmt.Fprintf(&b, "; lag %.0f ms, at most %.0f ms", t.lag/float64(t.answered), t.lagMax)
	}
	if t.events > 0 {
		fmt.Fprintf(&b, "; %d events", t.events)
	}
	return b.String()
}

// jsonView writes a JSON object a line.
type jsonView struct{ events bool }

func (v jsonView) answer(f watchedFrame, m client.Message) error {
	if v.events {
		return nil
	}
	where := "" // before the answer
	if f.name != "" {
		where = `"file":` + jsonText(f.name) + ","
	}
	if f.time >= 0 {
		where += fmt.Sprintf(`"time":%s,`, strconv.FormatFloat(f.time.Round(time.Microsecond).Seconds(), 'f', -1, 64))
	}
	_, err := fmt.Fprintf(stdout, "{%s%s\n", where, strings.TrimPrefix(string(m.Text), "{"))
	return err
}

func (v jsonView) event(m client.Message) error {
	if !v.events {
		return nil
	}
	_, err := fmt.Fprintf(stdout, "%s\n", m.Text)
	return err
}

func (jsonView) trouble(err error) {
	if err != nil {
		complain("hailo-clip: %v", err)
	}
}

func (jsonView) close() {}

// lineView writes a line for people for each event.
type lineView struct {
	jsonView // for trouble and close
	colors   bool
}

func (lineView) answer(watchedFrame, client.Message) error { return nil }

func (v lineView) event(m client.Message) error {
	_, err := stdout.raw([]byte(paint(eventSpans(m.Event), math.MaxInt, v.colors) + "\n"))
	return err
}

// jsonText is a text as JSON has it.
func jsonText(text string) string {
	b, _ := json.Marshal(text) // texts can be written
	return string(b)
}
