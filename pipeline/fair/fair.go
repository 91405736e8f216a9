// Package fair is a queue that serves callers in turn: one address after the other, within an address one
// connection after the other, within a connection in the order of arrival. Who sends much waits longer for
// it, and nobody else does. Where items differ in what they cost, the queue is told so by Charge: then the address
// that has cost least is served first, and those that have cost the same take turns.
package fair

import (
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
	addresses ring[string, ring[uint64, []T]]
	size      int

	// What addresses have cost, and what the one had cost that was served last. Who has cost less than that counts
	// as if it had cost as much: idle time is not saved up, and need not be remembered.
	costs map[string]int64
	least int64
}

type (
	address[T comparable] = lane[string, ring[uint64, []T]]
	connection[T any]     = lane[uint64, []T]
)

// Len is how many items wait.
func (q *Queue[T]) Len() int { return q.size }

// Push appends an item to those of its caller.
func (q *Queue[T]) Push(c Caller, item T) {
	a := q.addresses.get(c.Address)
	l := a.held.get(c.Connection)
	l.held = append(l.held, item)
	l.waiting++
	a.waiting++
	q.size++
}

// Pop takes the item whose turn it is. ok is false when none waits.
func (q *Queue[T]) Pop() (item T, ok bool) {
	if q.size == 0 {
		return item, false
	}
	a := q.addresses.turn(q.cost)
	q.least = q.cost(a.key)
	return q.take(a, a.held.turn(nil), 0), true
}

// Charge adds to what an address has cost, in any unit, for items that were taken out.
func (q *Queue[T]) Charge(address string, cost int64) {
	if q.costs == nil {
		q.costs = make(map[string]int64)
	}
	q.costs[address] = q.cost(address) + cost
	const most = 1 << 12
	if len(q.costs) > most {
		maps.DeleteFunc(q.costs, func(_ string, c int64) bool { return c <= q.least })
	}
	if len(q.costs) > most {
		clear(q.costs)
	}
}

// cost is what an address has cost, as it counts.
func (q *Queue[T]) cost(address string) int64 { return max(q.costs[address], q.least) }

// Of returns the items of caller c that wait, the oldest first. They are the queue's: not to be changed, and good until
// its next change.
func (q *Queue[T]) Of(c Caller) []T {
	if a := q.addresses.lanes[c.Address]; a != nil {
		if l := a.held.lanes[c.Connection]; l != nil {
			return l.held
		}
	}
	return nil
}

// Remove takes out an item of caller c, and says whether it was there.
func (q *Queue[T]) Remove(c Caller, item T) bool {
	i := slices.Index(q.Of(c), item)
	if i >= 0 {
		a := q.addresses.lanes[c.Address]
		q.take(a, a.held.lanes[c.Connection], i)
	}
	return i >= 0
}

// Displace makes room in a full queue for an item of caller c: it takes out the youngest item of the caller who
// has most waiting, of equal ones of that whose address has cost most. ok is false when c would have as many and
// has cost as much: then c is the one to refuse.
func (q *Queue[T]) Displace(c Caller) (item T, ok bool) { return q.DisplaceFor(c, 1) }

// DisplaceFor is Displace for a caller who brings n items that have not been pushed.
func (q *Queue[T]) DisplaceFor(c Caller, n int) (item T, ok bool) {
	if !q.yields(c, n) {
		return item, false
	}
	a := q.addresses.longest(q.cost)
	l := a.held.longest(nil)
	return q.take(a, l, len(l.held)-1), true
}

// Yields says whether Displace would make room for an item of caller c.
func (q *Queue[T]) Yields(c Caller) bool { return q.yields(c, 1) }

func (q *Queue[T]) yields(c Caller, n int) bool {
	a := q.addresses.longest(q.cost)
	if a == nil {
		return false
	}
	have, most := q.addresses.waiting(c.Address), a.waiting
	if a.key == c.Address {
		have, most = a.held.waiting(c.Connection), a.held.longest(nil).waiting
	}
	return have+n < most || have+n == most && q.cost(c.Address) < q.cost(a.key)
}

// take removes and returns an item.
func (q *Queue[T]) take(a *address[T], l *connection[T], i int) T {
	item := l.held[i]
	l.held = slices.Delete(l.held, i, i+1)
	l.waiting--
	a.waiting--
	q.size--
	a.held.dropEmpty(l)
	q.addresses.dropEmpty(a)
	return item
}

// ring is the lanes in which something waits, in the order of their turns.
type ring[K comparable, V any] struct {
	lanes map[K]*lane[K, V]
	order []*lane[K, V]
	spare *lane[K, V] // an empty one, for the next key
}

// lane is what waits under one key.
type lane[K comparable, V any] struct {
	key     K
	held    V
	waiting int // items
}

// get returns the lane of key; a new one comes last.
func (r *ring[K, V]) get(key K) *lane[K, V] {
	l := r.lanes[key]
	if l == nil {
		if r.lanes == nil {
			r.lanes = make(map[K]*lane[K, V])
		}
		if l = r.spare; l == nil {
			l = &lane[K, V]{}
		}
		r.spare, l.key = nil, key
		r.lanes[key] = l
		r.order = append(r.order, l)
	}
	return l
}

// turn returns the first lane, or the first of those whose keys cost least, and makes it the last. cost may be nil.
func (r *ring[K, V]) turn(cost func(K) int64) *lane[K, V] {
	first := 0
	if cost != nil && len(r.order) > 1 {
		least := cost(r.order[0].key)
		for i, l := range r.order {
			if c := cost(l.key); c < least {
				first, least = i, c
			}
		}
	}
	l := r.order[first]
	copy(r.order[first:], r.order[first+1:])
	r.order[len(r.order)-1] = l
	return l
}

// longest returns the lane in which most waits, of equal ones that whose key costs most, else the last; nil when there
// is none. cost may be nil.
func (r *ring[K, V]) longest(cost func(K) int64) (found *lane[K, V]) {
	for _, l := range r.order {
		if found == nil || l.waiting > found.waiting ||
			l.waiting == found.waiting && (cost == nil || cost(l.key) >= cost(found.key)) {
			found = l
		}
	}
	return found
}

func (r *ring[K, V]) waiting(key K) int {
	if l := r.lanes[key]; l != nil {
		return l.waiting
	}
	return 0
}

// dropEmpty takes l out of the ring when nothing waits in it.
func (r *ring[K, V]) dropEmpty(l *lane[K, V]) {
	if l.waiting == 0 {
		delete(r.lanes, l.key)
		i := slices.Index(r.order, l)
		r.order = slices.Delete(r.order, i, i+1)
		r.spare = l
	}
}
