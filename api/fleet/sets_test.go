package fleet

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/stages/clip"
)

// three starts three nodes of one fleet.
func three(t *testing.T, url string) (all [3]*shareNode) {
	for i, name := range []string{"a", "b", "c"} {
		all[i] = newShareNode(t, url, name, nil)
	}
	return all
}

// TestSetIsEverywhere changes a set on one node: the others have it, and answer by it; each node changes what another has made.
func TestSetIsEverywhere(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	all := three(t, b.URL())
	for _, name := range []string{"pets", "x.", "a..b"} {
		etag := all[0].mustPut(name, labelled("cat", "dog")).ETag
		for _, m := range all {
			m.has(name, etag)
		}
	}
	var vector [hashedDim]float32
	vector[3] = 1
	info, err := all[1].sets.AddExample(t.Context(), "pets", "cat", clip.Example{Vector: vector[:]}, clip.Condition{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		m.has("pets", info.ETag)
		if full, err := m.sets.Info(t.Context(), "pets", true); err != nil || len(full.Labels[0].Examples) != 1 ||
			string(full.Labels[0].Examples[0].Vector) != string(sets.FormatVector(vector[:])) {
			t.Errorf("%s: %+v, %v", m.name, full, err)
		}
	}
	if info, err = all[2].sets.Calibrate(t.Context(), "pets", nil, 2, clip.Condition{IfMatch: info.ETag}); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		m.has("pets", info.ETag)
	}
	if err := all[1].sets.Delete(t.Context(), "pets", clip.Condition{}); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		m.lacks("pets")
	}
}

// TestSetVisible prints how long it takes until another node has a change. That is less than 200 ms, where the machine is not busy.
func TestSetVisible(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	all := three(t, b.URL())
	all[0].mustPut("s", labelled("first"))
	var longest time.Duration
	for i := range 10 {
		info, err := all[0].put("s", labelled(fmt.Sprint("label ", i)), clip.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		all[1].has("s", info.ETag)
		all[2].has("s", info.ETag)
		longest = max(longest, time.Since(start))
	}
	t.Logf("two other nodes answer by a change after at most %v", longest)
}

// TestSetConditions has a node that has not heard of a change yet refuse one that is conditional on the version before.
func TestSetConditions(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	all := three(t, b.URL())
	old := all[0].mustPut("s", labelled("one"))
	all[1].has("s", old.ETag)
	now := all[0].mustPut("s", labelled("two"))
	if _, err := all[1].put("s", labelled("three"), clip.Condition{IfMatch: old.ETag}); !errors.Is(err, clip.ErrPrecondition) {
		t.Errorf("put: %v", err)
	}
	if _, err := all[2].put("s", labelled("three"), clip.Condition{IfNoneMatch: true}); !errors.Is(err, clip.ErrPrecondition) {
		t.Errorf("put of a new one: %v", err)
	}
	if err := all[1].sets.Delete(t.Context(), "s", clip.Condition{IfMatch: old.ETag}); !errors.Is(err, clip.ErrPrecondition) {
		t.Errorf("delete: %v", err)
	}
	if err := all[2].sets.Delete(t.Context(), "s", clip.Condition{IfMatch: now.ETag}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := all[0].put("s", labelled("four"), clip.Condition{IfMatch: now.ETag}); !errors.Is(err, clip.ErrPrecondition) {
		t.Errorf("put of a deleted one: %v", err)
	}
	if _, err := all[0].put("s", labelled("four"), clip.Condition{}); err != nil {
		t.Error(err)
	}
}

// TestSetRaces has three nodes add examples to one set at once: each change is made to the one before, and none is lost.
func TestSetRaces(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	all := three(t, b.URL())
	etag := all[0].mustPut("s", labelled("l0", "l1", "l2")).ETag
	const each = 5
	var running sync.WaitGroup
	var won sync.Map
	for _, m := range all { // before the first change, after which nobody may ever have that version
		m.has("s", etag)
	}
	for n, m := range all {
		running.Go(func() {
			for i := range each {
				var v [hashedDim]float32
				v[n], v[4+i] = 1, 1
				if _, err := m.sets.AddExample(t.Context(), "s", fmt.Sprint("l", n), clip.Example{Vector: v[:]}, clip.Condition{}); err != nil {
					t.Error(err)
				}
			}
		})
		running.Go(func() { // of those with the same condition one succeeds
			switch _, err := m.put("new", labelled("of "+m.name), clip.Condition{IfNoneMatch: true}); {
			case err == nil:
				won.Store(m.name, true)
			case !errors.Is(err, clip.ErrPrecondition):
				t.Error(err)
			}
		})
	}
	running.Wait()
	winners := 0
	won.Range(func(any, any) bool { winners++; return true })
	if winners != 1 {
		t.Errorf("%d nodes have made the set", winners)
	}
	info := all[0].mustPut("end", labelled("end"))
	for _, m := range all {
		m.has("end", info.ETag)
		m.until("examples", func() error {
			info, err := m.sets.Info(t.Context(), "s", false)
			for i := range info.Labels {
				if n := len(info.Labels[i].Examples); n != each {
					err = errors.Join(err, fmt.Errorf("%d examples of label %d", n, i))
				}
			}
			return err
		})
	}
}
