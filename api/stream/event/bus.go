package event

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// How many events of all streams a bus remembers, and how many bytes of memory those have.
var (
	maxRemembered      = 1 << 16
	maxRememberedBytes = 64 << 20
)

// How many events wait for a slow listener, and how many bytes those of a sort have, unless one alone has more. What is beyond pushes
// out the oldest of its sort, which are counted as missed: frames never push out changes.
const (
	waitingChanges = 256
	waitingFrames  = 64
	waitingBytes   = 1 << 20
)

// Bus tells listeners of events, and remembers the newest changes of each stream for listeners that come again. Safe for
// concurrent use; Publish never blocks.
type Bus struct {
	remembered int          // events of a stream
	frames     atomic.Int64 // listeners to frames

	mu        sync.Mutex
	published uint64                            // events, which are numbered in this order
	streams   map[string]*list.Element          // of recent
	recent    *list.List                        // *history; that with the newest change first
	count     int                               // events in all of them
	bytes     int                               // of these
	forgotten uint64                            // number of the newest event that was in a history which is no more
	listeners map[string]map[*Listener]struct{} // by Filter.Stream
	listening int
}

// history is the newest changes of a stream.
type history struct {
	queue
	stream    string
	forgotten uint64 // number of the newest event that may be missing
}

// numbered is an event and its place in the order of all events.
type numbered struct {
	n uint64
	e *Event
}

// queue is at most limit events of at most so many bytes, or one that is larger, in their order.
type queue struct {
	limit, most         int
	first, count, bytes int
	events              []numbered // a ring, which grows as is needed
}

func (q *queue) at(i int) *numbered { return &q.events[(q.first+i)%len(q.events)] }

// push adds an event. The oldest make room: lost is how many, and newest the number of the last of them.
func (q *queue) push(e numbered) (lost int, newest uint64) {
	for q.count > 0 && (q.count == q.limit || q.bytes+e.e.size() > q.most) {
		lost, newest = lost+1, q.at(0).n
		q.pop()
	}
	if q.count == len(q.events) {
		grown := make([]numbered, min(max(4, 2*q.count), q.limit))
		for i := range q.count {
			grown[i] = *q.at(i)
		}
		q.events, q.first = grown, 0
	}
	q.count++
	q.bytes += e.e.size()
	*q.at(q.count - 1) = e
	return lost, newest
}

func (q *queue) pop() {
	q.bytes -= q.at(0).e.size()
	*q.at(0) = numbered{}
	q.first, q.count = (q.first+1)%len(q.events), q.count-1
}

// NewBus makes a bus that remembers up to so many of the newest changes of each stream, of many streams only those that have
// changed last.
func NewBus(remembered int) *Bus {
	return &Bus{
		remembered: max(1, remembered), recent: list.New(),
		streams: make(map[string]*list.Element), listeners: make(map[string]map[*Listener]struct{}),
	}
}

// Publish tells all listeners. The event is shared from then on, but for Vector and JPEG.
func (b *Bus) Publish(e *Event) {
	if e.Kind == Frame && b.frames.Load() == 0 {
		return
	}
	if e.Vector != nil || e.JPEG != nil || e.Kind == Frame {
		shared := *e
		shared.Vector, shared.JPEG = nil, nil
		shared.encode()
		e = &shared
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published++
	it := numbered{b.published, e}
	if e.Kind != Frame {
		b.remember(it)
	}
	for l := range b.listeners[e.Stream] {
		l.hear(it)
	}
	for l := range b.listeners[""] {
		l.hear(it)
	}
}

func (b *Bus) remember(it numbered) {
	element := b.streams[it.e.Stream]
	if element == nil {
		element = b.recent.PushFront(&history{queue: queue{limit: b.remembered, most: maxRememberedBytes}, stream: it.e.Stream, forgotten: b.forgotten})
		b.streams[it.e.Stream] = element
	}
	b.recent.MoveToFront(element)
	h := element.Value.(*history)
	before := h.bytes
	lost, newest := h.push(it)
	h.forgotten = max(h.forgotten, newest)
	b.count += 1 - lost
	b.bytes += h.bytes - before
	for (b.count > maxRemembered || b.bytes > maxRememberedBytes) && b.recent.Len() > 1 {
		oldest := b.recent.Back()
		h := b.recent.Remove(oldest).(*history)
		delete(b.streams, h.stream)
		b.count -= h.count
		b.bytes -= h.bytes
		b.forgotten = max(b.forgotten, h.at(h.count-1).n)
	}
}

// Wanted says whether somebody listens to frames of the stream: otherwise events of kind Frame need not be made.
func (b *Bus) Wanted(stream string) bool {
	if b.frames.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, filter := range []string{stream, ""} {
		for l := range b.listeners[filter] {
			if l.filter.Frames {
				return true
			}
		}
	}
	return false
}

// Listeners returns how many listeners there are.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listening
}

// Remembered returns the changes of a stream ("": of all) that are remembered, in their order: those after the event since, or all
// where that is "" or not known. whole says that there were no others.
func (b *Bus) Remembered(stream, since string) (events []*Event, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found, whole := b.after(stream, since)
	for _, it := range found {
		events = append(events, it.e)
	}
	return events, whole
}

func (b *Bus) after(stream, since string) (events []numbered, whole bool) {
	var from, forgotten uint64
	known := since == ""
	if stream == "" {
		forgotten = b.forgotten
	}
	for element := b.recent.Front(); element != nil; element = element.Next() {
		h := element.Value.(*history)
		if stream != "" && stream != h.stream {
			continue
		}
		forgotten = max(forgotten, h.forgotten)
		for i := range h.count {
			if it := h.at(i); it.e.ID == since {
				known, from = true, it.n
			} else {
				events = append(events, *it)
			}
		}
	}
	events = slices.DeleteFunc(events, func(it numbered) bool { return it.n < from })
	slices.SortFunc(events, func(a, b numbered) int { return cmp.Compare(a.n, b.n) })
	return events, known && (forgotten <= from)
}

// Filter says which events a listener hears.
type Filter struct {
	Stream string // "": all streams
	Frames bool   // also those of kind Frame
}

// Listen begins to listen after the change lastID ("": now): without a gap and without a repetition if all changes after that are
// remembered; otherwise it begins with what is remembered, and the first Next says that some were missed, with -1. Frames are
// not remembered: it hears those from now on. The listener must be closed.
func (b *Bus) Listen(f Filter, lastID string) *Listener {
	l := &Listener{
		bus: b, filter: f, wake: make(chan struct{}, 1),
		changes: queue{limit: waitingChanges, most: waitingBytes}, frames: queue{limit: waitingFrames, most: waitingBytes},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if lastID != "" {
		whole := false
		if l.before, whole = b.after(f.Stream, lastID); !whole {
			l.missed = -1
		}
	}
	if b.listeners[f.Stream] == nil {
		b.listeners[f.Stream] = make(map[*Listener]struct{})
	}
	b.listeners[f.Stream][l] = struct{}{}
	b.listening++
	if f.Frames {
		b.frames.Add(1)
	}
	return l
}

// Listener hears events in their order. Not for concurrent use.
type Listener struct {
	bus    *Bus
	filter Filter
	before []numbered    // from the time before it listened
	wake   chan struct{} // has room for one: there is something in a queue

	mu              sync.Mutex
	changes, frames queue
	missed          int
}

// hear is called by Publish.
func (l *Listener) hear(it numbered) {
	q := &l.changes
	if it.e.Kind == Frame {
		if !l.filter.Frames {
			return
		}
		q = &l.frames
	}
	l.mu.Lock()
	if lost, _ := q.push(it); l.missed >= 0 {
		l.missed += lost
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Next blocks until there is an event or ctx ends; err is then the cause of that. missed is how many were lost since the last call
// because the listener was too slow, -1 where the number is not known.
func (l *Listener) Next(ctx context.Context) (e *Event, missed int, err error) {
	for {
		if e, missed = l.take(); e != nil {
			return e, missed, nil
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

func (l *Listener) take() (e *Event, missed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.changes
	if q.count == 0 || l.frames.count > 0 && l.frames.at(0).n < q.at(0).n {
		q = &l.frames
	}
	switch {
	case len(l.before) > 0:
		e = l.before[0].e
		l.before[0].e = nil
		l.before = l.before[1:]
	case q.count > 0:
		e = q.at(0).e
		q.pop()
	default:
		return nil, 0
	}
	missed, l.missed = l.missed, 0
	return e, missed
}

// Close ends the listening.
func (l *Listener) Close() {
	b := l.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.listeners[l.filter.Stream][l]; !ok {
		return
	}
	delete(b.listeners[l.filter.Stream], l)
	if len(b.listeners[l.filter.Stream]) == 0 {
		delete(b.listeners, l.filter.Stream)
	}
	b.listening--
	if l.filter.Frames {
		b.frames.Add(-1)
	}
}
