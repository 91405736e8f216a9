package clip

import (
	"context"
	"testing"

	"hailoclip/cache/sets"
)

// TestConfigure changes, adds and removes sets of the configuration: only what has changed is encoded, what answered before
// does until then, and a kept set that was hidden is there again.
func TestConfigure(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	h.put("s", labels("red=red"))
	configure := func(all map[string]sets.Definition) {
		t.Helper()
		for name, d := range all {
			all[name] = d.Normalized()
		}
		if err := h.sets.Configure(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	label := func(name string) string { return h.settled(name).Labels[0].Name }

	configure(map[string]sets.Definition{"s": labels("green=green"), "same": labels("blue=blue")})
	if info := h.settled("s"); !info.ReadOnly || label("s") != "green" || label("same") != "blue" {
		t.Errorf("%+v", info)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{})
	is(t, err, ErrManaged)
	p.count()
	before := must(h.sets.Ready("same"))
	configure(map[string]sets.Definition{"s": labels("red=red", "green=green"), "same": labels("blue=blue")})
	if h.settled("s"); must(h.sets.Ready("same")) != before || p.count() > 2 {
		t.Error("a set that has not changed was made again")
	}
	p.away.Store(true) // so that the next version is not encoded
	configure(map[string]sets.Definition{"s": labels("new=new"), "same": labels("blue=blue")})
	if s, err := h.sets.Ready("s"); err != nil || s.Names[0] != "red" {
		t.Errorf("the former version does not answer: %+v, %v", s, err)
	}
	p.away.Store(false)
	configure(nil)
	if info := h.settled("s"); info.ReadOnly || info.Labels[0].Name != "red" || info.State != SetReady {
		t.Errorf("%+v", info)
	}
	_, err = h.sets.Ready("same")
	is(t, err, ErrNoSet)
	h.put("s", labels("green=green"))
	h.close()
	if err := h.sets.Configure(context.Background(), nil); err == nil {
		t.Error("it is closed")
	}
}
