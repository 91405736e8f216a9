package cache

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
)

// run is one encoder: it encodes what is queued until the store closes.
func (t *TextEmbeddings) run() {
	for b := t.take(); b != nil; b = t.take() {
		entries, errs := t.encodeBatch(b)
		b.cancel()
		t.finish(b, entries, errs)
	}
}

// take waits for flights and takes up to a batch of them, of all callers in turn. It returns nil
// when the store closes.
func (t *TextEmbeddings) take() *batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.queue.Len() == 0 && !t.closed {
		t.work.Wait()
	}
	if t.closed {
		return nil
	}
	b := &batch{}
	b.ctx, b.cancel = context.WithCancel(t.store.ctx)
	for len(b.flights) < t.encoder.Batch {
		next, ok := t.queue.Pop()
		if !ok {
			break
		}
		f := next.flight
		for _, r := range f.waiters {
			if r != next.request {
				t.queue.Remove(r.caller, seat{f, r})
			}
		}
		f.queued, f.batch = false, b
		b.flights = append(b.flights, f)
	}
	b.awaited = len(b.flights)
	t.waiting -= b.awaited
	return b
}

// encodeBatch returns an entry or an error for each flight. When the batch fails, each prompt is
// encoded alone: the callers of the others must not get an error that is about one of them.
func (t *TextEmbeddings) encodeBatch(b *batch) (entries []*entry, errs []error) {
	n := len(b.flights)
	errs = make([]error, n)
	entries, err := t.encode(b.ctx, b.flights)
	if err == nil {
		return entries, errs
	}
	entries = make([]*entry, n)
	for i := range b.flights {
		if errs[i] = err; n > 1 && b.ctx.Err() == nil {
			var one []*entry
			if one, errs[i] = t.encode(b.ctx, b.flights[i:i+1]); errs[i] == nil {
				entries[i] = one[0]
			}
		}
	}
	return entries, errs
}

// encode calls the encode func and checks what it returns.
func (t *TextEmbeddings) encode(ctx context.Context, flights []*flight) (entries []*entry, err error) {
	defer func() {
		if v := recover(); v != nil {
			t.store.log.Error("panic in the text encoder", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: panic: %v", ErrEncode, v)
		}
	}()
	texts := make([]string, len(flights))
	for i, f := range flights {
		texts[i] = f.prompt
	}
	vectors, err := t.encoder.Encode(ctx, slices.Clone(texts))
	if err != nil {
		return nil, fmt.Errorf("encoding %d prompts: %w", len(texts), err)
	}
	if len(vectors) != len(texts) {
		return nil, fmt.Errorf("%w: %d embeddings for %d prompts", ErrEncode, len(vectors), len(texts))
	}
	entries = make([]*entry, len(texts))
	for i, v := range vectors {
		if err := v.check(t.encoder.Dim); err != nil {
			return nil, err
		}
		v.Embedding = slices.Clone(v.Embedding) // it may be part of something large, or used again
		entries[i] = &entry{namespace: t.encoder.Namespace, prompt: texts[i], vector: v}
	}
	return entries, nil
}

// finish remembers the vectors of a batch and ends its flights.
func (t *TextEmbeddings) finish(b *batch, entries []*entry, errs []error) {
	var keys []diskKey
	var fresh []*entry
	for i, e := range entries {
		if e != nil {
			keys, fresh = append(keys, b.flights[i].key), append(fresh, e)
		}
	}
	// Before anybody is answered, so that closing the store afterwards loses nothing.
	t.store.memory.setVectors(fresh)
	t.store.disk.put(keys, fresh)
	t.store.counts.encoded.Add(uint64(len(fresh)))
	t.store.counts.failed.Add(uint64(len(b.flights) - len(fresh)))
	t.end(b, entries, errs)
	if len(fresh) > 0 {
		// Who asks until memory shows the vectors joins flights that have ended.
		t.store.memory.settle()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(b.flights...)
}

// end hands the results of a batch to those who wait. Failed flights cannot be joined any more.
func (t *TextEmbeddings) end(b *batch, entries []*entry, errs []error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range b.flights {
		if errs[i] != nil {
			t.forget(f)
		}
		f.end(entries[i], errs[i])
	}
}
