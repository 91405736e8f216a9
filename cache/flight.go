package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// flight is one prompt on its way, for everyone who asked for it. TextEmbeddings.mu guards it,
// but for entry and err, which are set before done is closed and then stay.
type flight struct {
	prompt  string
	key     diskKey
	waiters int
	queued  bool          // waits for an encoder
	batch   *batch        // is being encoded in it
	ended   bool          // done is closed, or nobody waits and it was given up
	done    chan struct{} // closed when entry or err is there
	entry   *entry
	err     error
}

// batch is flights that are encoded in one call.
type batch struct {
	flights []*flight
	awaited int // flights that somebody waits for; at 0 the call is cancelled
	ctx     context.Context
	cancel  context.CancelFunc
}

// join returns the flight of every missing prompt, nil where the row was filled instead, and
// counts the caller among those who wait for them.
func (t *TextEmbeddings) join(prompts []string, missing []int, rows []*entry) ([]*flight, error) {
	flights := make([]*flight, len(missing))
	var fresh []*flight
	joined := 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	for n, i := range missing {
		f := t.flights[prompts[i]]
		if f == nil {
			// A flight leaves the map when memory has its vector, so this misses none.
			if rows[i] = t.store.memory.vector(t.encoder.Namespace, prompts[i], t.encoder.Dim); rows[i] != nil {
				continue
			}
			if t.waiting >= t.store.config.MaxPending {
				t.store.counts.busy.Add(1)
				t.abandon(flights[:n]) // the fresh ones too
				return nil, fmt.Errorf("%w: %d", ErrBusy, t.waiting)
			}
			f = &flight{prompt: strings.Clone(prompts[i]), done: make(chan struct{})}
			t.flights[f.prompt] = f
			fresh = append(fresh, f)
		} else {
			joined++
		}
		if f.waiters++; f.waiters == 1 && f.batch != nil {
			f.batch.awaited++
		}
		flights[n] = f
	}
	t.store.counts.shared.Add(uint64(joined))
	t.waiting += len(fresh)
	switch {
	case len(fresh) == 0:
	case t.store.disk == nil:
		t.enqueue(fresh)
	default:
		t.running.Go(func() { t.lookUp(fresh) })
	}
	return flights, nil
}

// leave takes a caller out of flights that it does not want any more.
func (t *TextEmbeddings) leave(flights []*flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.abandon(flights)
}

// abandon gives up flights that nobody waits for, and cancels batches of such flights.
func (t *TextEmbeddings) abandon(flights []*flight) {
	before := t.waiting
	for _, f := range flights {
		if f == nil || f.ended {
			continue
		}
		if f.waiters--; f.waiters > 0 {
			continue
		}
		if f.batch != nil {
			if f.batch.awaited--; f.batch.awaited == 0 {
				f.batch.cancel()
				t.forget(f.batch.flights) // who asks now must not get the cancelled ones
			}
			continue // while others want the batch, so may somebody this flight
		}
		f.ended = true
		t.forget([]*flight{f})
		if f.queued {
			t.waiting--
		}
	}
	if t.waiting != before {
		t.queue = slices.DeleteFunc(t.queue, func(f *flight) bool { return f.ended })
	}
}

// forget lets nobody join flights any more.
func (t *TextEmbeddings) forget(flights []*flight) {
	for _, f := range flights {
		if t.flights[f.prompt] == f {
			delete(t.flights, f.prompt)
		}
	}
}

// end hands the result of a flight to those who wait for it.
func (f *flight) end(e *entry, err error) {
	if !f.ended {
		f.ended, f.entry, f.err = true, e, err
		close(f.done)
	}
}

// lookUp ends the flights that the disk knows and queues the others. It runs beside the
// callers, so that a disk that hangs does not hold them past their deadline.
func (t *TextEmbeddings) lookUp(fresh []*flight) {
	keys := make([]diskKey, len(fresh))
	prompts := make([]string, len(fresh))
	for i, f := range fresh {
		keys[i] = keyOf(t.encoder.Namespace, f.prompt)
		prompts[i] = f.prompt
	}
	found := t.store.disk.get(keys, t.encoder.Namespace, prompts, t.encoder.Dim)
	known := slices.DeleteFunc(slices.Clone(found), func(e *entry) bool { return e == nil })
	t.store.memory.setVectors(known)
	t.store.counts.diskHits.Add(uint64(len(known)))

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return // stop has ended them
	}
	var unknown []*flight
	for i, f := range fresh {
		f.key = keys[i]
		switch {
		case found[i] != nil:
			f.end(found[i], nil)
			t.forget([]*flight{f})
			t.waiting--
		case f.ended:
			t.waiting--
		default:
			unknown = append(unknown, f)
		}
	}
	t.enqueue(unknown)
}

// enqueue lines flights up for the encoders.
func (t *TextEmbeddings) enqueue(flights []*flight) {
	for _, f := range flights {
		f.queued = true
	}
	t.queue = append(t.queue, flights...)
	t.work.Broadcast()
}

// pending is how many prompts wait for an encoder or the disk.
func (t *TextEmbeddings) pending() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting
}

// stop answers everyone who waits and lets the encoders end. The store's context has ended.
func (t *TextEmbeddings) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, f := range t.flights {
		f.end(nil, ErrClosed)
	}
	clear(t.flights)
	t.queue, t.waiting = nil, 0
	t.work.Broadcast()
}
