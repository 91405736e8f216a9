package stream

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/track"
)

// hears gathers the events of a stream until the end of the test, as texts.
type hears struct {
	mu     sync.Mutex
	events []event.Event
}

func (y *yard) hear(stream string, frames bool) *hears {
	h := &hears{}
	l := y.bus.Listen(event.Filter{Stream: stream, Frames: frames}, "")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			e, _, err := l.Next(ctx)
			if err != nil {
				return
			}
			h.mu.Lock()
			h.events = append(h.events, *e)
			h.mu.Unlock()
		}
	}()
	y.t.Cleanup(func() {
		cancel()
		<-ended
		l.Close()
	})
	return h
}

// text returns the events since it was called last.
func (h *hears) text() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var words []string
	for _, e := range h.events {
		word := fmt.Sprintf("%s %s%s", e.Kind, e.Label, e.State)
		if e.Kind == event.State {
			word += " after " + e.Previous
		}
		if e.Region != "" {
			word = e.Region + ": " + word
		}
		words = append(words, word)
	}
	h.events = nil
	return strings.Join(words, ", ")
}

// every pushes frames at a rate, and waits after each.
func (s *sender) every(pause time.Duration, names ...string) {
	for _, name := range names {
		s.push(name)
		time.Sleep(pause)
	}
	synctest.Wait()
}

func times(n int, name string) []string {
	return strings.Split(strings.Repeat(name+",", n-1)+name, ",")
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestEvents: labels hold after so many frames in a row, and a single other frame changes nothing.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		s := y.feed("gate", with(`"top_k": 1, "events": {}`))
		heard := y.hear("gate", true)
		s.every(time.Millisecond, "red", "red")
		expect(t, "two frames", heard.text(), "")
		s.every(time.Millisecond, "red", "green", "red", "green", "green")
		expect(t, "red", heard.text(), "enter red, state red after unknown")
		s.every(time.Millisecond, "green")
		expect(t, "green", heard.text(), "exit red, enter green, state green after red")
		info, err := y.Get("gate")
		if err != nil || len(info.State) != 1 || info.State[0].State != "green" || len(info.State[0].Labels) != 1 || info.Stats.Changes != 5 || !info.Fed {
			t.Errorf("%+v, %v", info, err)
		}
		s.Close()
		if n := len(s.outcomes()[0].Regions[0].Result.Matches); n != 1 {
			t.Errorf("%d matches", n)
		}
		s.ordered()
	})
}

// TestEventsOfRegions: each region has its own labels, and set; its thresholds are those of the set, or of the definition.
func TestEventsOfRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		synctest.Wait() // until the set is encoded
		s := y.feed("", `{"format": "`+rawFormat+`", "prompts": ["blue", "green"], "events": {"min_frames": 1}, "regions": [
			{"name": "left", "x": 0, "y": 0, "w": 0.5, "h": 1, "prompt_set": "door"}, {"name": "right", "x": 0.5, "y": 0, "w": 0.5, "h": 1}]}`)
		heard := y.hear(s.ID(), true)
		s.every(time.Millisecond, "red|blue")
		expect(t, "first", heard.text(), "left: enter red, left: state red after unknown, right: enter blue, right: state blue after unknown")
		s.every(time.Millisecond, "green|blue")
		expect(t, "second", heard.text(), "left: exit red, left: enter green, left: state green after red")
		if err := s.Change([]byte(`{"regions": [{"name": "right", "x": 0.5, "y": 0, "w": 0.5, "h": 1}]}`)); err != nil {
			t.Error(err)
		}
		s.every(time.Millisecond, "green|blue")
		expect(t, "without left", heard.text(), "left: exit green, left: state unknown after green")
		if err := s.Change([]byte(`{"regions": []}`)); err != nil {
			t.Error(err)
		}
		s.every(time.Millisecond, "green")
		expect(t, "all", heard.text(), "right: exit blue, right: state unknown after blue, enter green, state green after unknown")
		if err := s.Change([]byte(`{"events": null}`)); err != nil {
			t.Error(err)
		}
		s.every(time.Millisecond, "green")
		expect(t, "none", heard.text(), "exit green, state unknown after green")
		last := s.outcomes()[1].Regions
		if len(last) != 2 || last[0].Result.Set.Name != "door" || last[1].Result.Set != nil || last[0].Names[last[0].Result.Matches[0].Label] != "green" {
			t.Errorf("%+v", last)
		}
		s.Close()
		s.ordered()
	})
}

// TestSetChanges: under another list of prompts, labels go on that are still there, and others exit.
func TestSetChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		synctest.Wait() // until the set is encoded
		s := y.feed("", with(`"events": {"min_frames": 1}`))
		heard := y.hear(s.ID(), false)
		s.every(time.Millisecond, "red")
		heard.text()
		change := func(text string) {
			if err := s.Change([]byte(text)); err != nil {
				t.Error(err)
			}
		}
		change(`{"prompts": ["blue", "red"]}`)
		s.every(time.Millisecond, "red")
		expect(t, "still there", heard.text(), "")
		change(`{"prompts": ["blue", "green"]}`)
		s.every(time.Millisecond, "blue")
		expect(t, "gone", heard.text(), "exit red, state unknown after red, enter blue, state blue after unknown")
		change(`{"events": {"hold_ms": 50}}`)
		s.every(10*time.Millisecond, times(4, "green")...)
		expect(t, "held", heard.text(), "")
		s.every(10*time.Millisecond, times(3, "green")...)
		expect(t, "long enough", heard.text(), "exit blue, enter green, state green after blue")
		change(`{"prompt_set": "door"}`)
		s.every(10*time.Millisecond, times(3, "green")...)
		expect(t, "another set", heard.text(), "")
		if err := s.Change([]byte(`{"prompt_set": "window"}`)); !errors.Is(err, clip.ErrSetsLost) {
			t.Errorf("error %v", err)
		}
		if err := s.Change([]byte(`{"source": "http://camera/"}`)); err == nil {
			t.Error("a feed has changed the source")
		}
		s.Close()
	})
}

// TestLinger: the state of a stream outlives its feed for a while; a stream that is not defined ends then.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		const definition = `{"prompts": ["red", "green"], "format": "` + rawFormat + `", "events": {"min_frames": 1}}`
		heard := y.hear("gate", false)
		y.feed("gate", definition).every(0, "red")
		if _, err := y.tryFeed(t.Context(), "gate", ""); !errors.Is(err, ErrFed) {
			t.Fatalf("error %v", err)
		}
		y.streams["gate"].feed.Close()
		time.Sleep(29 * time.Second)
		s := y.feed("gate", "") // what it is known still
		s.every(time.Minute, "red")
		expect(t, "again in time", heard.text(), "enter red, state red after unknown")
		s.Close()
		time.Sleep(29 * time.Second)
		expect(t, "not over", heard.text(), "")
		time.Sleep(time.Second)
		expect(t, "over", heard.text(), "exit red, state unknown after red")
		if _, err := y.Get("gate"); !errors.Is(err, ErrNoStream) {
			t.Errorf("error %v", err)
		}
		if _, err := y.tryFeed(t.Context(), "gate", ""); !errors.Is(err, ErrNoStream) {
			t.Errorf("error %v", err)
		}
	})
}

// TestReplacedFeed: a sender whose connection is dead gets in again; one that is alive is not pushed out.
func TestReplacedFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		old := y.feed("gate", plainStream)
		old.push("red")
		time.Sleep(staleFeed - time.Millisecond)
		if _, err := y.tryFeed(t.Context(), "gate", ""); !errors.Is(err, ErrFed) {
			t.Errorf("error %v", err)
		}
		time.Sleep(time.Millisecond)
		s := y.feed("gate", "")
		<-old.Done()
		if err := old.Push(old.frame("red")); !errors.Is(err, ErrFed) || !errors.Is(old.Err(), ErrFed) {
			t.Errorf("error %v", err)
		}
		s.push("green")
		old.Close()
		s.Close()
		expect(t, "old", old.text(), "red")
		expect(t, "new", s.text(), "green")
		if y.released.Load() != 3 {
			t.Errorf("%d released", y.released.Load())
		}
	})
}

// TestSlowFeedStays: neither a sender of few frames nor one that waits for a slow engine is pushed out.
func TestSlowFeedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.gate = make(chan struct{}) })
		refused := func(when string) {
			t.Helper()
			if _, err := y.tryFeed(t.Context(), "gate", ""); !errors.Is(err, ErrFed) {
				t.Errorf("%s: error %v", when, err)
			}
		}
		s := y.feed("gate", with(`"policy": "queue", "max_in_flight": 1`))
		pushed := make(chan struct{})
		go func() {
			s.push("red", "green") // the second one waits
			close(pushed)
		}()
		time.Sleep(2 * staleFeed)
		synctest.Wait()
		refused("while Push blocks")
		close(y.chip.gate)
		<-pushed
		time.Sleep(staleFeed - time.Millisecond)
		refused("after Push has blocked")
		s.push("blue")
		time.Sleep(2 * staleFeed)
		refused("with few frames")
		time.Sleep(staleFeed)
		next := y.feed("gate", "")
		<-s.Done()
		s.Close()
		next.Close()
	})
}

// TestSampling: frames beyond a rate are answered as such; a camera that sends at that rate, unevenly, loses none.
func TestSampling(t *testing.T) {
	for name, c := range map[string]struct {
		fields string
		pauses []int // milliseconds
		frames int
		rate   uint64 // dropped
	}{
		"all":      {`"fps": 0`, []int{1}, 50, 0},
		"third":    {`"fps": 10`, []int{33, 33, 34}, 30, 20},
		"uneven":   {`"fps": 10`, []int{60, 140, 90, 110}, 60, 1},
		"slower":   {`"fps": 10`, []int{300}, 20, 0},
		"interval": {`"interval_ms": 1000, "fps": 10`, []int{100}, 100, 90},
	} {
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, nil)
			s := y.feed("", with(c.fields))
			for i := range c.frames {
				s.every(time.Duration(c.pauses[i%len(c.pauses)])*time.Millisecond, "red")
			}
			s.Close()
			s.ordered()
			if st := s.Counts(); st.Rate != c.rate || st.Answered+st.Rate != uint64(c.frames) {
				t.Errorf("%s: %+v", name, st)
			}
		})
	}
}

// TestClock: by the frame's own time a file is sampled however fast it comes, and times that do not rise are flagged.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		s := y.feed("", with(`"clock": "frame", "interval_ms": 100, "policy": "queue"`))
		for _, ms := range []int64{0, 40, 80, 120, 160, 200, 200, 150, 1 << 50, -1 << 62, 1 << 62, -1 << 62, 0} {
			f := s.frame("red")
			f.Time, f.HasTime = 1000*ms, true
			if ms < -1000 || ms > 1<<40 {
				f.Time = ms
			}
			if err := s.Push(f); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		expect(t, "frames", s.text(), "red rate rate red rate red rate rate red rate red rate red")
		backward := ""
		for _, o := range s.outcomes() {
			backward += map[bool]string{true: "b", false: "-"}[o.Backward]
		}
		expect(t, "backward", backward, "------bb-b-b-")
		if o := s.outcomes()[1]; !o.HasTime || o.Time != 40_000 {
			t.Errorf("%+v", o)
		}
	})
}

// TestGate: frames that look alike are not encoded until the heartbeat; those that do not are.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		s := y.feed("", `{"prompts": ["red", "green", "blue"], "format": "`+rawFormat+`", "gate": {"heartbeat_ms": 1000}}`)
		s.every(100*time.Millisecond, "dark red|red", "dark red|red", "red|dark red", "red|dark red")
		expect(t, "looks", s.text(), "red =red red =red")
		s.every(100*time.Millisecond, times(20, "red|dark red")...)
		s.Close()
		s.ordered()
		if st := s.Counts(); st.Answered != 4 || st.Reused != 20 || y.chip.images.Load() != 4 {
			t.Errorf("%+v, %d encoded", st, y.chip.images.Load())
		}
		if y.released.Load() != 24 {
			t.Errorf("%d released", y.released.Load())
		}
	})
}

// TestGateAfterFailure: what looks like a frame that has no answer is encoded after all.
func TestGateAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.gate = make(chan struct{}, 100) })
		s := y.feed("", with(`"gate": {}, "policy": "queue"`))
		broken := errors.New("broken")
		y.chip.fail.Store(&broken)
		s.push("red|blue")
		synctest.Wait() // until it is the first one at the device
		s.push("red|blue", "red|blue")
		synctest.Wait()
		y.chip.gate <- struct{}{}
		synctest.Wait()
		y.chip.fail.Store(nil)
		close(y.chip.gate)
		s.Close()
		s.ordered()
		expect(t, "frames", s.text(), "bad red =red")
		if y.released.Load() != 3 || y.chip.images.Load() != 1 {
			t.Errorf("%d released, %d encoded", y.released.Load(), y.chip.images.Load())
		}
	})
}

// TestChangedSet: a frame that looks like the one before is encoded after all when the set has changed; labels that hold go on.
func TestChangedSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, err := sets.Open(filepath.Join(t.TempDir(), sets.FileName))
		if err != nil {
			t.Fatal(err)
		}
		y := newYard(t, func(y *yard) { y.file = file })
		put := func(names ...string) {
			d := sets.Definition{Templates: &sets.Templates{Name: "none"}}
			for _, name := range names {
				d.Labels = append(d.Labels, sets.Label{Name: name})
			}
			if _, _, err := y.parts.Engine.PromptSets().Put(t.Context(), "gate", d.Normalized(), clip.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
		put("green", "red")
		s := y.feed("", `{"prompt_set": "gate", "format": "`+rawFormat+`", "gate": {"heartbeat_ms": 60000}, "events": {"min_frames": 1}}`)
		heard := y.hear(s.ID(), false)
		s.every(time.Millisecond, "red|blue", "red|blue")
		expect(t, "before", heard.text(), "enter red, state red after unknown")
		put("red", "blue")
		s.every(time.Millisecond, "red|blue", "red|blue")
		expect(t, "red is there still", heard.text(), "")
		put("green", "blue")
		s.every(time.Millisecond, "green|blue")
		expect(t, "red is gone", heard.text(), "exit red, state unknown after red, enter green, state green after unknown")
		s.Close()
		expect(t, "frames", s.text(), "red =red red =red green")
		if n := y.chip.images.Load(); n != 3 {
			t.Errorf("%d were encoded", n)
		}
	})
}

// TestRecheck: while a change is pending, frames pass sampling and gate.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		s := y.feed("", with(`"interval_ms": 10000, "gate": {"heartbeat_ms": 60000}, "events": {"recheck_ms": 500}`))
		heard := y.hear(s.ID(), false)
		s.every(100*time.Millisecond, times(10, "red|blue")...)
		expect(t, "a second", heard.text(), "")
		s.every(100*time.Millisecond, "red|blue")
		expect(t, "three frames", heard.text()[:len("enter ")], "enter ")
		s.every(100*time.Millisecond, times(80, "red|blue")...)
		s.Close()
		if st := s.Counts(); st.Answered != 3 || st.Rate != 88 {
			t.Errorf("%+v", st)
		}
	})
}

// TestPanics: a reader that panics ends its own feed.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		other := y.feed("", plainStream)
		f, err := y.Open(t.Context(), Opening{Definition: []byte(plainStream), Answer: func(*Answer) { panic("of a transport") }})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Push(Frame{Image: paint("red")}); err != nil {
			t.Fatal(err)
		}
		<-f.Done()
		if err := f.Push(Frame{Image: paint("red")}); err == nil || !strings.Contains(err.Error(), "of a transport") {
			t.Errorf("error %v", err)
		}
		f.Close()
		other.push("green")
		other.Close()
		expect(t, "other", other.text(), "green")
	})
}

// TestNames has what cannot be opened.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.cfg.MaxStreams = 2 })
		for _, c := range []struct {
			id, definition string
			want           any // an error, or the field of a fault
		}{
			{"gate", "", ErrNoStream},
			{"~0011223344556677", "", "id"},
			{"", `{"id": "a b", "prompts": ["red"]}`, "id"},
			{"", `{"id": 1, "prompts": ["red"]}`, "id"},
			{"gate", `{}`, "prompt_set"},
			{"gate", `{"prompt_set": "window"}`, clip.ErrSetsLost},
			{"gate", `{"prompt_set": "door", "format": "x"}`, "format"},
			{"", `{"prompts": ["red"]`, ""},
		} {
			_, err := y.tryFeed(t.Context(), c.id, c.definition)
			var fault sets.Fault
			switch want := c.want.(type) {
			case error:
				if !errors.Is(err, want) {
					t.Errorf("%+v: %v", c, err)
				}
			case string:
				if !errors.As(err, &fault) || fault.Field != want {
					t.Errorf("%+v: %v", c, err)
				}
			}
		}
		s := y.feed("", `{"id": "gate", "prompts": ["red"]}`)
		if s.ID() != "gate" {
			t.Errorf("it is called %q", s.ID())
		}
		y.feed("", plainStream)
		if _, err := y.tryFeed(t.Context(), "", plainStream); !errors.Is(err, ErrStreamsFull) {
			t.Errorf("error %v", err)
		}
		if list := y.List(); len(list) != 1 || list[0].ID != "gate" {
			t.Errorf("%+v", list)
		}
		if st := y.Stats(); st.Streams != 2 || st.Fed != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// TestMakeRoom: where there are too many streams, one that nobody has defined makes way, if nobody feeds it, or for an address that has
// fewer of them and only if it is silent.
func TestMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.cfg.MaxStreams = 3 })
		open := func(address, id string) (*Feed, error) {
			y.conn++
			return y.Open(t.Context(), Opening{ID: id, Definition: []byte(plainStream), Caller: fair.Caller{Address: address, Connection: y.conn}})
		}
		must := func(address, id string) *Feed {
			t.Helper()
			f, err := open(address, id)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		refused := func(address string) {
			t.Helper()
			if _, err := open(address, ""); !errors.Is(err, ErrStreamsFull) {
				t.Errorf("error %v", err)
			}
		}
		must("a", "old").Close()
		time.Sleep(time.Second)
		must("a", "new").Close()
		one := must("a", "")
		two := must("b", "")
		if _, err := y.Get("old"); !errors.Is(err, ErrNoStream) {
			t.Errorf("the stream that was left first is there: %v", err)
		}
		three := must("a", "")
		if list := y.List(); len(list) != 0 {
			t.Errorf("streams without a feed are there: %+v", list)
		}
		refused("b")
		refused("c")
		time.Sleep(staleFeed)
		_ = three.Push(Frame{Image: []byte("red")})
		refused("a")
		refused("b") // which would have as many then
		four := must("c", "")
		<-one.Done()
		if err := one.Err(); !errors.Is(err, ErrStreamsFull) {
			t.Errorf("error %v", err)
		}
		refused("c")
		refused("d")
		for _, f := range []*Feed{one, two, three, four} {
			f.Close()
		}
		if st := y.Stats(); st.Streams != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// openStore opens a store in a file of the test.
func openStore(t testing.TB, path string) *event.Store {
	t.Helper()
	s, err := event.OpenStore(path, event.Config{MaxBytes: 1 << 20, MaxAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), event.FileName) }

// TestBest: an event has the best scores, fewer where their labels are long.
func TestBest(t *testing.T) {
	for _, tt := range []struct{ labels, length, want int }{{3, 4, 3}, {30, 4, maxScores}, {30, 2048, 2}, {30, maxScoresBytes + 1, 0}} {
		n := tt.labels
		w := &watch{labels: &stages.Labels{N: n}, tracker: track.New(track.Config{
			Labels: &stages.Labels{N: n}, Enter: make([]float64, n), Exit: make([]float64, n),
		})}
		for i := range n {
			w.names = append(w.names, fmt.Sprintf("%*d", tt.length, i))
		}
		if got := w.best(); len(got) != tt.want {
			t.Errorf("%d labels of %d bytes: %d scores, want %d", n, tt.length, len(got), tt.want)
		}
	}
}
