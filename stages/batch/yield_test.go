package batch

import (
	"testing"
	"time"
)

// TestYield: where groups of eight callers come so late that two runs a round would be faster, nothing is held for a while, and for
// longer each time; where they come soon it is.
func TestYield(t *testing.T) {
	const a, b = 12500 * time.Microsecond, 1420 * time.Microsecond
	r := &rule{cap: 8, a: a, b: b}
	now := time.Now()
	groups := func(late time.Duration) {
		for range yieldGroups {
			now = now.Add(late + a + 8*b)
			r.started(now, 8, 0, late)
		}
	}
	paused := func() (d time.Duration) {
		for ; !r.holds(now); now = now.Add(100 * time.Millisecond) {
			d += 100 * time.Millisecond
		}
		return d
	}
	for _, want := range []time.Duration{0, 2, 4, 8, 16, 32, 32} {
		if got := paused(); got != want*time.Second {
			t.Errorf("%v without holding, want %v s", got, int(want))
		}
		groups(13 * time.Millisecond) // above a
	}
	paused()
	if groups(12 * time.Millisecond); !r.holds(now) {
		t.Error("a group that comes together within a is not held for")
	}
	if groups(13 * time.Millisecond); paused() != firstPause {
		t.Error("a pause is not forgotten when holding pays")
	}
	for range yieldGroups { // six together and two behind them, soon: two runs a round all the same, and a wait
		r.started(now, 6, 2, 5*time.Millisecond)
		r.started(now, 2, 6, 5*time.Millisecond)
	}
	if r.holds(now) {
		t.Error("two runs a round and a wait before each are held for")
	}
}
