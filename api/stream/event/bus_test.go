package event

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"unsafe"
)

func enter(stream, id string) *Event { return &Event{ID: id, Stream: stream, Kind: Enter} }
func frame(stream string) *Event     { return &Event{Stream: stream, Kind: Frame} }

// heard reads what waits for a listener: ids, f for frames, !n where some were missed.
func heard(l *Listener) string {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var s []string
	for {
		e, missed, err := l.Next(ended)
		if err != nil {
			return strings.Join(s, " ")
		}
		if missed != 0 {
			s = append(s, fmt.Sprint("!", missed))
		}
		if s = append(s, e.ID); e.Kind == Frame {
			s[len(s)-1] = "f"
		}
	}
}

func hears(t *testing.T, l *Listener, want string) {
	t.Helper()
	if got := heard(l); got != want {
		t.Errorf("it hears %q, want %q", got, want)
	}
}

func TestListeners(t *testing.T) {
	b := NewBus(10)
	one, all, frames := b.Listen(Filter{Stream: "a"}, ""), b.Listen(Filter{}, ""), b.Listen(Filter{Stream: "a", Frames: true}, "")
	for _, e := range []*Event{enter("a", "1"), frame("a"), enter("b", "2"), frame("b"), enter("a", "3"), frame("a")} {
		b.Publish(e)
	}
	hears(t, one, "1 3")
	hears(t, all, "1 2 3")
	hears(t, frames, "1 f 3 f")
	if b.Listeners() != 3 || !b.Wanted("a") || b.Wanted("b") {
		t.Errorf("%d listeners", b.Listeners())
	}
	for _, l := range []*Listener{one, all, frames, frames} { // twice: nothing
		l.Close()
	}
	b.Publish(enter("a", "4"))
	hears(t, one, "")
	if b.Listeners() != 0 || b.Wanted("a") || len(b.listeners) != 0 {
		t.Errorf("%d listeners, %v", b.Listeners(), b.listeners)
	}
}

// TestSharedEvents have neither vector nor thumbnail, and the publisher's stays whole.
func TestSharedEvents(t *testing.T) {
	b := NewBus(10)
	l := b.Listen(Filter{}, "")
	defer l.Close()
	e := enter("a", "1")
	e.Vector, e.JPEG, e.Thumbnail = []float32{1}, []byte{1}, true
	b.Publish(e)
	got, _, err := l.Next(t.Context())
	if err != nil || got.Vector != nil || got.JPEG != nil || !got.Thumbnail || got.ID != "1" || e.Vector == nil || e.JPEG == nil {
		t.Errorf("%+v, %+v: %v", got, e, err)
	}
}

// TestSlowListener is told how many it has missed; frames do not push out changes.
func TestSlowListener(t *testing.T) {
	b := NewBus(1)
	l := b.Listen(Filter{Stream: "a", Frames: true}, "")
	defer l.Close()
	b.Publish(enter("a", "first"))
	for range waitingFrames + 100 {
		b.Publish(frame("a"))
	}
	b.Publish(enter("a", "last"))
	hears(t, l, "!100 first"+strings.Repeat(" f", waitingFrames)+" last")
	for i := range waitingChanges + 2 {
		b.Publish(enter("a", fmt.Sprint(i)))
	}
	if e, missed, err := l.Next(t.Context()); e.ID != "2" || missed != 2 || err != nil {
		t.Errorf("%+v, %d, %v", e, missed, err)
	}
	b.Publish(enter("a", "more"))
	if got := heard(l); strings.Contains(got, "!") || !strings.HasPrefix(got, "3 4") || !strings.HasSuffix(got, " more") {
		t.Errorf("%q", got)
	}
}

func TestComingAgain(t *testing.T) {
	b := NewBus(3)
	for i := range 5 {
		b.Publish(enter("a", fmt.Sprint("a", i)))
		b.Publish(frame("a"))
		b.Publish(enter("b", fmt.Sprint("b", i)))
	}
	for _, tt := range []struct{ stream, last, want string }{
		{"a", "", ""}, {"a", "a4", ""}, {"a", "a3", "a4"}, {"a", "a2", "a3 a4"},
		{"a", "a1", "!-1 a2 a3 a4"}, {"a", "b2", "!-1 a2 a3 a4"}, {"a", "unknown", "!-1 a2 a3 a4"},
		{"", "b4", ""}, {"", "b2", "a3 b3 a4 b4"}, {"", "a2", "b2 a3 b3 a4 b4"}, {"", "none", "!-1 a2 b2 a3 b3 a4 b4"}, {"c", "c0", ""},
	} {
		l := b.Listen(Filter{Stream: tt.stream}, tt.last)
		hears(t, l, tt.want)
		l.Close()
	}
	l := b.Listen(Filter{Stream: "c"}, "forgotten")
	defer l.Close()
	b.Publish(enter("c", "c9"))
	hears(t, l, "!-1 c9")
	if events, whole := b.Remembered("b", "b3"); len(events) != 1 || events[0].ID != "b4" || !whole {
		t.Errorf("%+v, %v", events, whole)
	}
	if events, whole := b.Remembered("b", ""); len(events) != 3 || whole {
		t.Errorf("%+v, %v", events, whole)
	}
}

// TestManyStreams: those that have not changed for longest are forgotten, and whoever comes again is told.
func TestManyStreams(t *testing.T) {
	defer func(n int) { maxRemembered = n }(maxRemembered)
	maxRemembered = 10
	b := NewBus(3)
	b.Publish(enter("old", "o"))
	for i := range 100 {
		for n := range 3 {
			b.Publish(enter(fmt.Sprint("s", i), fmt.Sprint(i, ".", n)))
		}
		b.Publish(enter("busy", fmt.Sprint("busy", i)))
	}
	if b.count > maxRemembered || b.recent.Len() > 4 || len(b.streams) != b.recent.Len() {
		t.Errorf("%d events of %d streams, %d", b.count, b.recent.Len(), len(b.streams))
	}
	for _, tt := range []struct {
		stream, last string
		missed       int
	}{{"", "99.0", 0}, {"old", "o", -1}, {"busy", "busy99", 0}, {"s99", "99.1", 0}, {"", "busy97", -1}} {
		l := b.Listen(Filter{Stream: tt.stream}, tt.last)
		b.Publish(enter(cmp.Or(tt.stream, "busy"), "next"))
		if _, missed, err := l.Next(t.Context()); missed != tt.missed || err != nil {
			t.Errorf("%s after %s: missed %d, %v", tt.stream, tt.last, missed, err)
		}
		l.Close()
	}
}

func TestNextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewBus(1).Listen(Filter{}, "")
		defer l.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { _, _, err := l.Next(ctx); done <- err }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		cancel(errors.ErrUnsupported)
		if err := <-done; !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	})
}

// TestBusUnderLoad: while events of several streams are published at once, listeners that come and go, each after the last event
// that it has heard, hear each change of their stream once and in order, as far as they are not told that some are missing.
func TestBusUnderLoad(t *testing.T) {
	const streams, changes = 4, 2000
	b := NewBus(changes + 1)
	var publishing, listening sync.WaitGroup
	for s := range streams {
		b.Publish(enter(fmt.Sprint("s", s), "-1"))
		publishing.Go(func() {
			for i := range changes {
				b.Publish(enter(fmt.Sprint("s", s), fmt.Sprint(i)))
				b.Publish(frame(fmt.Sprint("s", s)))
			}
		})
		for n := range 3 {
			begun := b.Listen(Filter{Stream: fmt.Sprint("s", s), Frames: n == 0}, "-1")
			listening.Go(func() {
				r, l, heard := rand.New(rand.NewPCG(uint64(s), uint64(n))), begun, 0
				for heard < changes {
					e, missed, err := l.Next(context.Background())
					if err != nil {
						t.Error(err)
						break
					}
					again := r.IntN(50) == 0
					switch {
					case missed < 0:
						t.Error("all is remembered")
					case missed > 0:
						again = true // from the last one that was heard: nothing is lost
					case e.Kind == Frame:
					case e.ID != fmt.Sprint(heard):
						t.Errorf("%s after %d", e.ID, heard-1)
						heard = changes
					default:
						heard++
					}
					if again && heard < changes {
						l.Close()
						l = b.Listen(Filter{Stream: fmt.Sprint("s", s), Frames: n == 0}, fmt.Sprint(heard-1))
					}
				}
				l.Close()
			})
		}
	}
	publishing.Wait()
	listening.Wait()
	if b.Listeners() != 0 {
		t.Errorf("%d listeners", b.Listeners())
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || seen[id] {
			t.Fatal(id)
		}
		seen[id] = true
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 100} {
		for _, e := range []*Event{enter("a", "1"), frame("a")} {
			b.Run(fmt.Sprint(e.Kind, "/", n), func(b *testing.B) {
				bus := NewBus(100)
				listeners := make([]*Listener, n)
				for i := range listeners {
					listeners[i] = bus.Listen(Filter{Stream: "a", Frames: true}, "")
				}
				b.ReportAllocs()
				for b.Loop() {
					bus.Publish(e)
				}
				for l := range slices.Values(listeners) {
					l.Close()
				}
			})
		}
	}
}

// TestLargeEvents: what waits for slow listeners and what is remembered is bounded in bytes, too, and the answers of frames are there
// once for all listeners.
func TestLargeEvents(t *testing.T) {
	defer func(n int) { maxRememberedBytes = n }(maxRememberedBytes)
	maxRememberedBytes = 4 << 20
	b := NewBus(100)
	one, other := b.Listen(Filter{Stream: "a", Frames: true}, ""), b.Listen(Filter{Stream: "a", Frames: true}, "")
	defer one.Close()
	defer other.Close()
	answer := []byte(`{"seq":1,"text":"` + strings.Repeat("x", waitingBytes*2/5) + `"}`)
	large := func(stream string, i int) *Event {
		e := enter(stream, fmt.Sprint(stream, i))
		e.Scores = []Score{{Label: string(answer)}}
		return e
	}
	for i := range 5 {
		b.Publish(&Event{Stream: "a", Kind: Frame, Answer: answer})
		b.Publish(large("a", i))
	}
	if waits := one.frames.bytes + one.changes.bytes; waits > 2*waitingBytes {
		t.Errorf("%d bytes wait for a listener", waits)
	}
	for i := range 4 {
		first, missed, err := one.Next(t.Context())
		second, also, err2 := other.Next(t.Context())
		if err != nil || err2 != nil || missed != also || (missed == 6) != (i == 0) {
			t.Fatalf("missed %d and %d: %v, %v", missed, also, err, err2)
		}
		if first.Kind != Frame {
			continue
		}
		if text, err := json.Marshal(first); err != nil || !bytes.Equal(text, first.Text) || !bytes.Equal(first.Answer, answer) {
			t.Errorf("%.100s is not %.100s: %v", first.Text, text, err)
		}
		if unsafe.SliceData(first.Text) != unsafe.SliceData(second.Text) || cap(first.Answer) != len(answer) {
			t.Error("each listener has a text of its own")
		}
	}
	b.Publish(&Event{Stream: "a", Kind: Frame, Answer: []byte(`"` + strings.Repeat("x", 2*waitingBytes) + `"`)})
	if e, missed, err := one.Next(t.Context()); err != nil || missed != 0 || len(e.Text) < 2*waitingBytes {
		t.Errorf("one that is larger than all is not heard: %d, %v", missed, err)
	}
	for i := range 50 {
		b.Publish(large(fmt.Sprint("s", i), 0))
	}
	sum := 0
	for _, element := range b.streams {
		for h, i := element.Value.(*history), 0; i < h.count; i++ {
			sum += h.at(i).e.size()
		}
	}
	if sum != b.bytes || sum > maxRememberedBytes || b.count < 5 {
		t.Errorf("%d events are remembered, of %d bytes, %d", b.count, sum, b.bytes)
	}
}
