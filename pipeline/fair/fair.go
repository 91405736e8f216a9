// Package fair is a queue that serves callers in turn: one address after the other, within an address one
// connection after the other, within a connection in the order of arrival. A caller who sends much makes only itself
// wait. Where items differ in cost, Charge tells the queue: then the address that has cost least is served first, and
// addresses of equal cost take turns.
package fair

import (
	"cmp"
	"maps"
	"slices"
)

// Caller is who a request comes from. The zero value is the program itself.
type Caller struct {
	Address    string // of the client; an IPv6 network of 64 bits counts as one
	Connection uint64 // within the address
}

// Queue holds what callers wait for. The zero value is empty. Not for concurrent use.
type Queue[T comparable] struct {
	lanes     []*lane[T] // those in which something waits, in no order
	spare     *lane[T]   // an empty one, for the next caller
	addresses map[string]*address
	most      int // addresses, until some are forgotten
	size      int
	clock     uint64 // counts turns

	// The cost of the address that was served last. An address that has cost less counts as if it had cost as much:
	// being idle earns no credit, so idle addresses may be forgotten.
	least int64
}

// lane is what waits for one caller.
type lane[T any] struct {
	caller  Caller
	address *address
	turn    uint64 // when it was served last, or began to wait
	items   []T
}

// address is what is known of one, while it has something waiting and longer.
type address struct {
	waiting int // items
	turn    uint64
	cost    int64
}

// maxIdle is how many addresses of which nothing waits are remembered.
const maxIdle = 1 << 12

// Len is how many items wait.
func (q *Queue[T]) Len() int { return q.size }

// Of returns the items of caller c that wait, the oldest first. They are the queue's: not to be changed, and good until
// its next change.
func (q *Queue[T]) Of(c Caller) []T {
	if l := q.find(c); l != nil {
		return l.items
	}
	return nil
}

func (q *Queue[T]) find(c Caller) *lane[T] {
	for _, l := range q.lanes {
		if l.caller == c {
			return l
		}
	}
	return nil
}

// Push appends an item to those of its caller.
func (q *Queue[T]) Push(c Caller, item T) {
	l := q.find(c)
	if l == nil {
		if l = q.spare; l == nil {
			l = &lane[T]{}
		}
		q.spare, l.caller, l.address, l.turn = nil, c, q.address(c.Address), q.tick()
		q.lanes = append(q.lanes, l)
	}
	if l.address.waiting == 0 {
		l.address.turn = q.tick()
	}
	l.items = append(l.items, item)
	l.address.waiting++
	q.size++
}

// Pop takes the item whose turn it is. ok is false when none waits.
func (q *Queue[T]) Pop() (item T, ok bool) {
	if q.size == 0 {
		return item, false
	}
	l := slices.MinFunc(q.lanes, func(a, b *lane[T]) int {
		return cmp.Or(cmp.Compare(q.cost(a), q.cost(b)), cmp.Compare(a.address.turn, b.address.turn), cmp.Compare(a.turn, b.turn))
	})
	q.least = q.cost(l)
	l.turn, l.address.turn = q.tick(), q.tick()
	return q.take(l, 0), true
}

// Charge adds to what an address has cost, in any unit, for items that were taken out.
func (q *Queue[T]) Charge(address string, cost int64) {
	a := q.address(address)
	a.cost = max(a.cost, q.least) + cost
}

// Remove takes out an item of caller c, and says whether it was there.
func (q *Queue[T]) Remove(c Caller, item T) bool {
	l := q.find(c)
	if l == nil {
		return false
	}
	i := slices.Index(l.items, item)
	if i >= 0 {
		q.take(l, i)
	}
	return i >= 0
}

// DisplaceFor makes room in a full queue for n more items of caller c, which have not been pushed: it takes out the
// youngest item of the address with most items waiting, of equal addresses the one that has cost most, and there of the
// connection with most. ok is false, and nothing is taken out, when c with its n items would not have less waiting, nor
// as much and have cost less: then c is to be refused.
func (q *Queue[T]) DisplaceFor(c Caller, n int) (item T, ok bool) {
	l := q.yields(c, n)
	if l == nil {
		return item, false
	}
	return q.take(l, len(l.items)-1), true
}

// Yields says whether DisplaceFor would make room for an item of caller c.
func (q *Queue[T]) Yields(c Caller) bool { return q.yields(c, 1) != nil }

// yields returns the lane that DisplaceFor takes an item from; nil when there is none.
func (q *Queue[T]) yields(c Caller, n int) *lane[T] {
	if q.size == 0 {
		return nil
	}
	longest := slices.MaxFunc(q.lanes, func(a, b *lane[T]) int {
		return cmp.Or(cmp.Compare(a.address.waiting, b.address.waiting), cmp.Compare(q.cost(a), q.cost(b)),
			cmp.Compare(a.address.turn, b.address.turn), cmp.Compare(len(a.items), len(b.items)), cmp.Compare(a.turn, b.turn))
	})
	have, most, less := n+len(q.Of(c)), len(longest.items), false
	if longest.caller.Address != c.Address {
		own := q.addresses[c.Address]
		if own == nil {
			own = &address{}
		}
		have, most, less = n+own.waiting, longest.address.waiting, max(own.cost, q.least) < q.cost(longest)
	}
	if have < most || have == most && less {
		return longest
	}
	return nil
}

// cost is what the address of a lane has cost, at least Queue.least.
func (q *Queue[T]) cost(l *lane[T]) int64 { return max(l.address.cost, q.least) }

func (q *Queue[T]) tick() uint64 {
	q.clock++
	return q.clock
}

// address returns what is known of an address. When that are many, it forgets those of which nothing waits.
func (q *Queue[T]) address(name string) *address {
	if a := q.addresses[name]; a != nil {
		return a
	}
	if len(q.addresses) >= q.most {
		maps.DeleteFunc(q.addresses, func(_ string, a *address) bool { return a.waiting == 0 })
		q.most = len(q.addresses) + maxIdle
	}
	if q.addresses == nil {
		q.addresses = make(map[string]*address)
	}
	a := &address{}
	q.addresses[name] = a
	return a
}

// take removes and returns an item.
func (q *Queue[T]) take(l *lane[T], i int) T {
	item := l.items[i]
	l.items = slices.Delete(l.items, i, i+1)
	l.address.waiting--
	q.size--
	if len(l.items) == 0 {
		q.spare, l.address = l, nil
		q.lanes = slices.DeleteFunc(q.lanes, func(other *lane[T]) bool { return other == l })
	}
	return item
}
