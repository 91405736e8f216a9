package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
)

// TestKept: definitions are there again after a restart, as they were changed last; what cannot be read stays in the file and is left
// out.
func TestKept(t *testing.T) {
	path := newPath(t)
	run := func(work func(y *yard)) {
		synctest.Test(t, func(t *testing.T) {
			store := openStore(t, path)
			y := newYard(t, func(y *yard) { y.parts.Store = store })
			work(y)
			if err := y.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	put := func(y *yard, id, definition string, created bool) {
		info, isNew, err := y.Put(y.t.Context(), id, []byte(definition))
		if err != nil || info.ID != id || isNew != created {
			y.t.Errorf("%s: %+v %v %v", id, info, isNew, err)
		}
	}
	run(func(y *yard) {
		put(y, "gate", `{"prompts": ["red"]}`, true)
		put(y, "gate", plainStream, false)
		put(y, "yard", `{"prompt_set": "door", "fps": 2}`, true)
		put(y, "gone", `{"prompt_set": "door"}`, true)
		if err := y.Delete(y.t.Context(), "gone"); err != nil {
			y.t.Error(err)
		}
		if err := y.Delete(y.t.Context(), "gone"); !errors.Is(err, ErrNoStream) {
			y.t.Errorf("error %v", err)
		}
		if err := y.parts.Store.PutStream(y.t.Context(), "odd", []byte(`{"prompts": 1}`)); err != nil {
			y.t.Error(err)
		}
		s := y.feed("gate", `{"prompts": ["blue"]}`) // which is not kept
		s.push("red")
		s.Close()
		expect(y.t, "changed by the feed", s.text(), "blue")
		if info, err := y.Get("gate"); err != nil || len(info.Prompts) != 3 {
			y.t.Errorf("after the feed: %+v, %v", info, err)
		}
		time.Sleep(time.Minute)
		s = y.feed("gate", "")
		put(y, "gate", plainStream, false) // while it runs
		s.push("red")
		s.Close()
		expect(y.t, "changed while it is fed", s.text(), "red")
		if _, _, err := y.Put(y.t.Context(), "a b", []byte(plainStream)); !errors.As(err, new(sets.Fault)) {
			y.t.Errorf("error %v", err)
		}
	})
	run(func(y *yard) {
		list := y.List()
		if len(list) != 2 || list[0].ID != "gate" || len(list[0].Prompts) != 3 || list[1].ID != "yard" || list[1].FPS != 2 {
			y.t.Errorf("%+v", list)
		}
		s := y.feed("gate", "")
		s.push("green")
		s.Close()
		expect(y.t, "restored", s.text(), "green")
		if kept, err := y.parts.Store.Streams(); err != nil || len(kept) != 3 {
			y.t.Errorf("%d are kept, %v", len(kept), err)
		}
	})
}

// TestNothingToKeepIn: without a file streams are fed, but not defined.
func TestNothingToKeepIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		if _, _, err := y.Put(t.Context(), "gate", []byte(plainStream)); !errors.Is(err, ErrLost) {
			t.Errorf("error %v", err)
		}
		s := y.feed("gate", with(`"events": {"min_frames": 1, "store": true}`))
		heard := y.hear("gate", false)
		s.every(0, "red")
		heard.mu.Lock()
		if len(heard.events) != 2 || !heard.events[0].Unstored {
			t.Errorf("%+v", heard.events)
		}
		heard.mu.Unlock()
		if st := y.Stats(); st.Unstored != 2 || st.Changes != 2 {
			t.Errorf("%+v", st)
		}
		s.Close()
	})
}

// TestStored: an event is in the store with its vector and thumbnail before anybody hears of it.
func TestStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, newPath(t))
		defer store.Close()
		y := newYard(t, func(y *yard) { y.parts.Store = store })
		s := y.feed("gate", with(`"events": {"min_frames": 1, "thumbnails": true}`))
		l := y.bus.Listen(event.Filter{Stream: "gate"}, "")
		defer l.Close()
		f := s.frame("red", "blue")
		f.Time, f.HasTime, f.Seq = 77, true, 5
		if err := s.Push(f); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			e, _, err := l.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			kept, err := store.Get(t.Context(), e.ID)
			if err != nil || !e.Thumbnail || !kept.Thumbnail || len(kept.Vector) != 3 || kept.Model != "images" || len(kept.Scores) != 3 {
				t.Fatalf("%+v: %+v, %v", e, kept, err)
			}
			if e.Seq == nil || *e.Seq != 5 || e.TS == nil || *e.TS != 77 || e.Time.IsZero() {
				t.Errorf("%+v", e)
			}
			m, err := jpeg.Decode(bytes.NewReader(kept.JPEG))
			if err != nil || m.Bounds().Dx() != 4 {
				t.Fatalf("thumbnail: %v", err)
			}
			if r, _, b, _ := m.At(0, 0).RGBA(); r < 200<<8 || b > 60<<8 {
				t.Errorf("the thumbnail begins with %v", m.At(0, 0))
			}
		}
		s.Close()
		if err := y.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if y.released.Load() != 1 {
			t.Errorf("%d released", y.released.Load())
		}
	})
}

// disk is a store that takes its time, and fails.
type disk struct {
	Store
	gate chan struct{} // holds a value for each event that may be stored

	mu   sync.Mutex
	kept []string
	fail error
	odd  bool // it panics
}

func (d *disk) Streams() (map[string][]byte, error) { return nil, nil }
func (d *disk) Add(ctx context.Context, e *event.Event) error {
	select {
	case <-d.gate:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", event.ErrLost, context.Cause(ctx))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.odd {
		panic("of a store")
	}
	d.kept = append(d.kept, e.Label+e.State)
	return d.fail
}

// TestSlowStore: frames are answered while events wait for the disk, and events are told in their order when they are stored. When too
// many wait, or one waits for too long, it is told without.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{gate: make(chan struct{}, 1000)}
		y := newYard(t, func(y *yard) { y.parts.Store = d })
		s := y.feed("gate", `{"prompts": ["red", "green", "blue"], "format": "`+rawFormat+`", "events": {"min_frames": 1, "store": true}}`)
		heard := y.hear("gate", false)
		s.every(0, "red", "green")
		expect(t, "answers", s.text(), "red green")
		expect(t, "before", heard.text(), "")
		d.gate <- struct{}{}
		expect(t, "half of a frame", heard.text(), "")
		d.gate <- struct{}{}
		expect(t, "one frame", heard.text(), "enter red, state red after unknown")
		time.Sleep(storeTime)
		expect(t, "too late", heard.text(), "exit red, enter green, state green after red")
		for i := range maxOutbox + 2 {
			s.every(0, []string{"red", "green"}[i%2])
		}
		expect(t, "too many", heard.text(), "exit green, enter red, state red after green, exit red, enter green, state green after red")
		if st := y.Stats(); st.Unstored != 9 {
			t.Errorf("%+v", st)
		}
		d.mu.Lock()
		d.fail = errors.New("the disk is full")
		d.mu.Unlock()
		close(d.gate)
		synctest.Wait()
		heard.mu.Lock()
		if n := len(heard.events); n != 3*maxOutbox {
			t.Errorf("%d were told", n)
		}
		for i, e := range heard.events {
			if want := fmt.Sprint([]event.Kind{event.Exit, event.Enter, event.State}[i%3]); string(e.Kind) != want || !e.Unstored {
				t.Fatalf("event %d: %+v", i, e)
			}
		}
		heard.mu.Unlock()
		s.Close()
		s.ordered()
	})
}

// TestStorePanics: events that a panic has kept from being stored are told all the same.
func TestStorePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{gate: make(chan struct{}), odd: true}
		close(d.gate)
		y := newYard(t, func(y *yard) { y.parts.Store = d })
		s := y.feed("gate", `{"prompts": ["red", "green"], "format": "`+rawFormat+`", "events": {"min_frames": 1, "store": true}}`)
		heard := y.hear("gate", false)
		s.every(0, "red")
		expect(t, "events", heard.text(), "enter red, state red after unknown")
		if st := y.Stats(); st.Unstored != 2 {
			t.Errorf("%+v", st)
		}
		s.Close()
	})
}

// TestCloseWaitsForItsEvents: a feed that ends waits until its own events are told, not for those of the feed after it.
func TestCloseWaitsForItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{gate: make(chan struct{}, 10)}
		y := newYard(t, func(y *yard) { y.parts.Store = d })
		s := y.feed("gate", `{"prompts": ["red", "green"], "format": "`+rawFormat+`", "events": {"min_frames": 1, "store": true}}`)
		s.every(0, "red")
		closed := make(chan struct{})
		go func() {
			s.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("it has not waited")
		default:
		}
		next := y.feed("gate", "")
		next.every(0, "green")
		d.gate <- struct{}{}
		d.gate <- struct{}{}
		synctest.Wait()
		select {
		case <-closed:
		default:
			t.Error("it waits for the events of others")
		}
		close(d.gate)
		next.Close()
	})
}

// TestFrameEvents: with on: frames who listens hears every answer, before the changes it makes.
func TestFrameEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) {
			y.parts.Encode = func(b []byte, a *Answer) []byte {
				return fmt.Appendf(b, `{"seq":%d,"best":%q}`, a.Seq, a.Regions[0].Names[a.Regions[0].Result.Matches[0].Label])
			}
		})
		s := y.feed("gate", with(`"events": {"on": "frames", "min_frames": 2}`))
		heard, changes := y.hear("gate", true), y.hear("gate", false)
		s.every(0, "red", "red")
		heard.mu.Lock()
		if n := len(heard.events); n != 4 || string(heard.events[1].Answer) != `{"seq":1,"best":"red"}` || heard.events[1].ID != "" {
			t.Errorf("%+v", heard.events)
		}
		heard.mu.Unlock()
		expect(t, "all", heard.text(), "frame , frame , enter red, state red after unknown")
		expect(t, "changes", changes.text(), "enter red, state red after unknown")
		s.Close()
	})
}

// TestListeners are so many of an address at most.
func TestListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.cfg.MaxListeners = 2 })
		var ends []func()
		for range 2 {
			_, done, err := y.Listen("a", event.Filter{}, "")
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, done)
		}
		if _, _, err := y.Listen("a", event.Filter{}, ""); !errors.Is(err, ErrListenersFull) {
			t.Errorf("error %v", err)
		}
		if _, done, err := y.Listen("b", event.Filter{}, ""); err != nil {
			t.Error(err)
		} else {
			ends = append(ends, done)
		}
		if n := y.Stats().Listeners; n != 3 {
			t.Errorf("%d listen", n)
		}
		for _, done := range ends {
			done()
		}
		if n := y.Stats().Listeners + y.bus.Listeners() + len(y.listeners); n != 0 {
			t.Errorf("%d listen", n)
		}
	})
}

// TestEnd: what is inside is answered, and nothing new is taken.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.takes = time.Second })
		s := y.feed("gate", with(`"policy": "queue"`))
		s.push("red", "green")
		y.End()
		<-s.Done()
		if err := s.Push(Frame{}); !errors.Is(err, ErrStopping) {
			t.Errorf("error %v", err)
		}
		if _, err := y.tryFeed(t.Context(), "", plainStream); !errors.Is(err, ErrStopping) {
			t.Errorf("error %v", err)
		}
		if err := y.Close(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, "answers", s.text(), "red green")
		if st := y.Stats(); st.Fed != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestEndIsCutShort: when there is no more time, what is inside expires.
func TestEndIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.gate = make(chan struct{}) })
		s := y.feed("gate", with(`"policy": "queue"`))
		s.push("red", "green")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := y.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		s.Close()
		expect(t, "answers", s.text(), "expired expired")
		if err := s.outcomes()[0].Err; !errors.Is(err, ErrStopping) {
			t.Errorf("error %v", err)
		}
		close(y.chip.gate)
	})
}

// TestGoneClient: the end of a client's context ends its feed, whose frames expire.
func TestGoneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.gate = make(chan struct{}) })
		ctx, cancel := context.WithCancelCause(t.Context())
		s, err := y.tryFeed(ctx, "gate", with(`"policy": "queue", "max_in_flight": 2`))
		if err != nil {
			t.Fatal(err)
		}
		s.push("red", "green")
		gone := errors.New("gone")
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if err := s.Push(s.frame("blue")); !errors.Is(err, gone) {
			t.Errorf("error %v", err)
		}
		s.Close()
		expect(t, "answers", s.text(), "expired expired")
		close(y.chip.gate)
		synctest.Wait()
		if y.released.Load() != 3 {
			t.Errorf("%d released", y.released.Load())
		}
	})
}

// TestManyFeeds opens and closes feeds without end: nothing is left of them.
func TestManyFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.cfg.Linger = time.Second })
		for i := range 1000 {
			ctx, cancel := context.WithCancel(t.Context())
			id := ""
			if i%2 == 0 {
				id = fmt.Sprint("s", i%7)
			}
			f, err := y.Open(ctx, Opening{
				ID: id, Definition: []byte(with(`"gate": {}, "events": {"min_frames": 1}`)), Caller: fair.Caller{Connection: uint64(i)},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Push(Frame{Image: paint("red")}); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				cancel()
			}
			f.Close()
			cancel()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(y.streams) != 0 {
			t.Errorf("%d streams are left", len(y.streams))
		}
	}) // which fails if a goroutine is left
}
