package fair

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func caller(address string, connection uint64) Caller { return Caller{address, connection} }

// filled returns a queue of items such as "a1x": address, connection, which of them.
func filled(items string) *Queue[string] {
	q := &Queue[string]{}
	for item := range strings.FieldsSeq(items) {
		q.Push(of(item), item)
	}
	return q
}

func of(item string) Caller { return caller(item[:1], uint64(item[1]-'0')) }

// TestTurns has a greedy address, a greedy connection and modest ones wait.
func TestTurns(t *testing.T) {
	q := filled("a1x a1y a1z a1! a2x b3x c0x")
	var got []string
	for item, ok := q.Pop(); ok; item, ok = q.Pop() {
		got = append(got, item)
	}
	if want := strings.Fields("a1x b3x c0x a2x a1y a1z a1!"); !slices.Equal(got, want) || q.Len() != 0 {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestDisplace fills the queue in several ways, and has a caller ask for room.
func TestDisplace(t *testing.T) {
	for _, c := range []struct {
		items string
		costs string // address and cost
		by    string
		n     int
		want  string // the item that goes; "": none
	}{
		{"", "", "b2", 1, ""},
		{"a1w a1x a1y a1z", "", "a1", 1, ""},
		{"a1w a1x a1y a1z", "", "b2", 1, "a1z"},
		{"a1w a1x a1y", "", "a7", 1, "a1y"}, // another connection of the same address
		{"a1w a1x", "", "b2", 2, ""},
		{"a1w a1x b2x", "", "b2", 1, ""},
		{"a1w a1x b2x", "", "a1", 1, ""},
		{"b2x a1w a1x", "", "c1", 1, "a1x"},
		{"a1x b1x c1x", "a10 b20 c7 m8", "m2", 1, "b1x"}, // of equal ones the costliest
		{"a1x b1x c1x", "a10 b20 c7 g20", "g2", 1, ""},
		{"a1x m2x c1x", "a10 b20 c7 m8", "m2", 1, ""},
		{"a1x m2x c1x", "a10 b20 c7 m8", "m3", 1, ""}, // a second one
	} {
		q := filled(c.items)
		for name := range strings.FieldsSeq(c.costs) {
			cost := int64(0)
			fmt.Sscan(name[1:], &cost)
			q.Charge(name[:1], cost)
		}
		before := q.Len()
		if yields := q.Yields(of(c.by)); c.n == 1 && yields != (c.want != "") {
			t.Errorf("%+v: yields %v", c, yields)
		}
		item, ok := q.DisplaceFor(of(c.by), c.n)
		if item != c.want || ok != (c.want != "") || ok != (q.Len() == before-1) {
			t.Errorf("%+v: %q %v went", c, item, ok)
		}
		if ok && slices.Contains(q.Of(of(item)), item) {
			t.Errorf("%q is still there", item)
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
			item, ok := q.Pop()
			if c := where[item]; ok && item < last[c] {
				t.Fatalf("%d of %v came after %d", item, c, last[c])
			}
			if ok != (len(where) > 0) {
				t.Fatal("nothing to pop")
			}
			last[where[item]] = item
			delete(where, item)
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
