package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"hailoclip/pipeline/fair"
)

// flight is one prompt on its way, for everyone who asked for it. TextEmbeddings.mu guards it,
// but for entry and err, which are set before done is closed and then stay.
type flight struct {
	prompt  string
	key     diskKey
	waiters []*request
	queued  bool          // waits for an encoder: each waiter has a seat in the queue
	batch   *batch        // is being encoded in it
	ended   bool          // done is closed, or nobody waits and it was given up
	done    chan struct{} // closed when entry or err is there
	entry   *entry
	err     error
}

// request is a call of Get that waits.
type request struct {
	caller  fair.Caller
	flights []*flight               // one for each missing prompt; nil where memory has it by now
	giveUp  context.CancelCauseFunc // ends the wait
}

// seat is the place of a flight among those that a caller waits for.
type seat struct {
	flight  *flight
	request *request
}

// batch is flights that are encoded in one call.
type batch struct {
	flights []*flight
	awaited int // flights that somebody waits for; at 0 the call is cancelled
	ctx     context.Context
	cancel  context.CancelFunc
}

// join makes r wait for the flight of every missing prompt, or fills the row instead.
func (t *TextEmbeddings) join(r *request, prompts []string, missing []int, rows []*entry) error {
	var fresh []*flight
	joined := 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	for n, i := range missing {
		f := t.flights[prompts[i]]
		if f == nil {
			// A flight leaves the map when memory has its vector, so this misses none.
			if rows[i] = t.store.memory.vector(t.encoder.Namespace, prompts[i], t.encoder.Dim); rows[i] != nil {
				continue
			}
			if len(fresh) == 0 && !t.makeRoom(r.caller, len(missing)-n) {
				t.refuse(r)
				return t.busy()
			}
			f = &flight{prompt: strings.Clone(prompts[i]), done: make(chan struct{})}
			t.flights[f.prompt] = f
			fresh = append(fresh, f)
		} else {
			joined++
		}
		r.flights[n] = f
		t.await(r, f)
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
	return nil
}

// await counts r among those who wait for f, once.
func (t *TextEmbeddings) await(r *request, f *flight) {
	if n := len(f.waiters); n > 0 && f.waiters[n-1] == r {
		return // the prompt stands in the request twice
	}
	f.waiters = append(f.waiters, r)
	if f.queued {
		t.queue.Push(r.caller, seat{f, r})
	} else if f.batch != nil && len(f.waiters) == 1 {
		f.batch.awaited++
	}
}

// makeRoom says whether a caller may bring n more prompts. For that it refuses requests of callers
// who have more waiting, in a full queue. The program's own prompts wait until there is room.
func (t *TextEmbeddings) makeRoom(c fair.Caller, n int) bool {
	for t.waiting >= t.store.config.MaxPending {
		s, ok := seat{}, false
		if c != (fair.Caller{}) {
			s, ok = t.queue.DisplaceFor(c, n)
		}
		if !ok {
			return false
		}
		t.refuse(s.request)
	}
	return true
}

// refuse ends a request with ErrBusy, as a whole: half of an answer is none.
func (t *TextEmbeddings) refuse(r *request) {
	t.store.counts.busy.Add(1)
	r.giveUp(t.busy())
	t.abandon(r)
}

func (t *TextEmbeddings) busy() error { return fmt.Errorf("%w: %d", ErrBusy, t.waiting) }

// leave takes a request out of all that it waits for.
func (t *TextEmbeddings) leave(r *request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.abandon(r)
}

// abandon is leave for who holds mu. It gives up flights that nobody waits for any more, and
// cancels batches of such flights.
func (t *TextEmbeddings) abandon(r *request) {
	for _, f := range r.flights {
		if f == nil || f.ended {
			continue
		}
		i := slices.Index(f.waiters, r)
		if i < 0 {
			continue
		}
		f.waiters = slices.Delete(f.waiters, i, i+1)
		if f.queued {
			t.queue.Remove(r.caller, seat{f, r})
		}
		switch {
		case len(f.waiters) > 0:
		case f.batch != nil: // while others want the batch, so may somebody this flight
			if f.batch.awaited--; f.batch.awaited == 0 {
				f.batch.cancel()
				t.forget(f.batch.flights...) // who asks now must not get the cancelled ones
			}
		default:
			f.ended = true
			t.forget(f)
			if f.queued {
				t.waiting--
			}
		}
	}
}

// forget lets nobody join flights any more.
func (t *TextEmbeddings) forget(flights ...*flight) {
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
			t.forget(f)
			t.waiting--
		case f.ended:
			t.waiting--
		default:
			unknown = append(unknown, f)
		}
	}
	t.enqueue(unknown)
}

// enqueue lines flights up for the encoders, behind what each of their callers waits for already.
func (t *TextEmbeddings) enqueue(flights []*flight) {
	for _, f := range flights {
		f.queued = true
		for _, r := range f.waiters {
			t.queue.Push(r.caller, seat{f, r})
		}
	}
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
	t.queue, t.waiting = fair.Queue[seat]{}, 0
	t.work.Broadcast()
}
