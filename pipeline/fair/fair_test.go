package fair

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func caller(address string, connection uint64) Caller { return Caller{address, connection} }

// TestTurns has a greedy address, a greedy connection and modest ones wait.
func TestTurns(t *testing.T) {
	var q Queue[string]
	for _, item := range []string{"a1", "a2", "a3", "a4"} {
		q.Push(caller("greedy", 1), item)
	}
	q.Push(caller("greedy", 2), "b1")
	q.Push(caller("modest", 3), "c1")
	q.Push(caller("", 0), "d1")
	var got []string
	for item, ok := q.Pop(); ok; item, ok = q.Pop() {
		got = append(got, item)
	}
	if want := []string{"a1", "c1", "d1", "b1", "a2", "a3", "a4"}; !slices.Equal(got, want) || q.Len() != 0 {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestDisplace fills the queue by one caller, and has others ask for room.
func TestDisplace(t *testing.T) {
	var q Queue[int]
	greedy, other := caller("greedy", 1), caller("other", 2)
	if _, ok := q.Displace(other); ok {
		t.Error("an item of an empty queue")
	}
	for i := range 4 {
		q.Push(greedy, i)
	}
	if _, ok := q.Displace(greedy); ok {
		t.Error("a caller took its own place")
	}
	if item, ok := q.Displace(other); !ok || item != 3 {
		t.Errorf("%d %v went, want the youngest", item, ok)
	}
	neighbour := caller("greedy", 7) // another connection of the same address
	if item, ok := q.Displace(neighbour); !ok || item != 2 {
		t.Errorf("%d %v went, want the youngest of the other connection", item, ok)
	}
	if _, ok := q.DisplaceFor(other, 2); ok {
		t.Error("a caller with as much to bring took the place of another")
	}
	q.Push(other, 10)
	if q.Yields(other) || q.Yields(greedy) {
		t.Error("a caller may take the place of one who would have no more than itself")
	}
	for item, ok := q.Pop(); ok; item, ok = q.Pop() {
		if item == 2 || item == 3 {
			t.Errorf("%d is still there", item)
		}
	}
}

// TestAgainstCount does everything at random: what goes in comes out exactly once, in the order of its caller.
func TestAgainstCount(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q Queue[int]
	where := map[int]Caller{}
	last := map[Caller]int{}
	for n := range 20_000 {
		c := caller(string(rune('a'+r.IntN(4))), r.Uint64N(3))
		switch r.IntN(4) {
		case 0, 1:
			q.Push(c, n)
			where[n] = c
		case 2:
			if item, ok := q.Pop(); ok {
				c := where[item]
				if item < last[c] {
					t.Fatalf("%d of %v came after %d", item, c, last[c])
				}
				last[c] = item
				delete(where, item)
			} else if len(where) > 0 {
				t.Fatal("nothing to pop")
			}
		case 3:
			for item, c := range where {
				if !q.Remove(c, item) || q.Remove(c, item) {
					t.Fatalf("%d was not there once", item)
				}
				delete(where, item)
				break
			}
		}
		if q.Len() != len(where) {
			t.Fatalf("%d wait, want %d", q.Len(), len(where))
		}
	}
	if q.Remove(caller("nobody", 0), 1) {
		t.Error("a stranger's item was there")
	}
}

// TestCharge has an address whose items cost much beside one whose items cost little, both with more to come.
func TestCharge(t *testing.T) {
	var q Queue[string]
	costs := map[string]int64{"costly": 1000, "cheap": 10, "late": 10}
	served := map[string]int{}
	serve := func(n int, names ...string) {
		clear(served)
		for range n {
			for _, name := range names {
				for len(q.Of(caller(name, 1))) < 2 {
					q.Push(caller(name, 1), name)
				}
			}
			name, _ := q.Pop()
			served[name]++
			q.Charge(name, costs[name])
		}
	}
	serve(5, "costly") // alone: nobody minds
	if serve(1010, "costly", "cheap"); served["costly"] < 9 || served["costly"] > 12 {
		t.Errorf("%v: the times differ", served)
	}
	// Who comes late has not saved up what it did not use.
	if serve(300, "costly", "cheap", "late"); served["late"]-served["cheap"] > 3 || served["late"] < 100 {
		t.Errorf("%v", served)
	}
	for n := range 10_000 {
		q.Charge(string(rune(n+1000)), 1<<40)
	}
	if len(q.addresses) > maxIdle+3 {
		t.Errorf("%d addresses are remembered", len(q.addresses))
	}
}

// TestDisplaceByCost fills the queue with one item of each of many addresses: who has cost less than one of them takes
// its place.
func TestDisplaceByCost(t *testing.T) {
	var q Queue[string]
	for i, name := range []string{"a", "b", "c"} {
		q.Charge(name, int64(10*(i+1)%23)) // 10, 20, 7
		q.Push(caller(name, 1), name)
	}
	q.Charge("modest", 8)
	q.Charge("greedy", 20)
	if q.Yields(caller("greedy", 2)) {
		t.Error("who has cost as much as any is let in")
	}
	if item, ok := q.Displace(caller("modest", 2)); !ok || item != "b" {
		t.Errorf("%q %v went, want the costliest", item, ok)
	}
	q.Push(caller("modest", 2), "modest")
	if q.Yields(caller("modest", 2)) || q.Yields(caller("modest", 3)) {
		t.Error("a second one is let in as well")
	}
}
