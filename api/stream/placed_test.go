package stream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"hailoclip/api/stream/event"
)

// TestPlaced has a stream placed, changed and displaced, which nobody else can change, and which leaves one of the service alone.
func TestPlaced(t *testing.T) {
	c, memory := newCamera(t), &lender{}
	y := pulls(t, memory)
	definition := fmt.Appendf(nil, `{"prompts": ["red", "green"], "source": "%s/a", "events": {"min_frames": 1}}`, c.URL)
	if _, _, err := y.Put(t.Context(), "own", definition); err != nil {
		t.Fatal(err)
	}
	if err := y.Place(t.Context(), "own", definition); !errors.Is(err, ErrFed) {
		t.Errorf("placed over a stream of the service: %v", err)
	}
	if err := y.Displace(t.Context(), "own"); err != nil || y.find("own") == nil {
		t.Errorf("a stream of the service is displaced: %v", err)
	}
	if err := y.Place(t.Context(), "gate", definition); err != nil {
		t.Fatal(err)
	}
	c.images <- "red"
	if kept, err := y.parts.Store.Streams(); err != nil || len(kept) != 1 {
		t.Errorf("%d streams are kept: %v", len(kept), err)
	}
	if _, _, err := y.Put(t.Context(), "gate", definition); !errors.Is(err, ErrPlaced) {
		t.Errorf("put: %v", err)
	}
	if err := y.Delete(t.Context(), "gate"); !errors.Is(err, ErrPlaced) {
		t.Errorf("delete: %v", err)
	}
	changed := fmt.Appendf(nil, `{"prompts": ["blue"], "source": "%s/b"}`, c.URL)
	if err := y.Place(t.Context(), "gate", changed); err != nil {
		t.Fatal(err)
	}
	if all := y.Placed(); len(all) != 1 || all[0].ID != "gate" || all[0].Prompts[0] != "blue" {
		t.Errorf("%+v", all)
	}
	if err := y.Displace(t.Context(), "gate"); err != nil || y.find("gate") != nil || len(y.Placed()) != 0 {
		t.Errorf("displaced: %v", err)
	}
}

// TestPlacedEvents compares the ids of events of a stream that is placed at two services.
func TestPlacedEvents(t *testing.T) {
	one, two, own := &stream{id: "s"}, &stream{id: "s"}, &stream{id: "s"}
	one.placed.Store(true)
	two.placed.Store(true)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	seen := map[string]bool{}
	for i, e := range []event.Event{
		{Kind: event.Enter, Label: "cat", Time: at}, {Kind: event.Enter, Label: "dog", Time: at}, {Kind: event.Exit, Label: "cat", Time: at},
		{Kind: event.Enter, Label: "cat", Time: at}, {Kind: event.Enter, Label: "cat", Region: "door", Time: at},
		{Kind: event.State, State: "cat", Time: at}, {Kind: event.Enter, Label: "cat", Time: at.Add(time.Second)},
	} {
		e.ID = event.NewID()
		a, b, c := e, e, e
		b.Time = b.Time.Add(900 * time.Millisecond) // within the second
		one.identify(&a)
		two.identify(&b)
		own.identify(&c)
		if a.ID != b.ID || a.ID == e.ID || len(a.ID) != len(e.ID) || seen[a.ID] || c.ID != e.ID {
			t.Errorf("event %d: %s, %s, %s", i, a.ID, b.ID, c.ID)
		}
		seen[a.ID] = true
	}
}
