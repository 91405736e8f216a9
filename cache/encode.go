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
		entries, err := t.encode(b)
		b.cancel()
		t.finish(b, entries, err)
	}
}

// take waits for flights and takes up to a batch of them. It returns nil when the store closes.
func (t *TextEmbeddings) take() *batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) == 0 && !t.closed {
		t.work.Wait()
	}
	if t.closed {
		return nil
	}
	n := min(len(t.queue), t.encoder.Batch)
	b := &batch{flights: slices.Clone(t.queue[:n]), awaited: n}
	b.ctx, b.cancel = context.WithCancel(t.store.ctx)
	t.queue = slices.Delete(t.queue, 0, n)
	t.waiting -= n
	for _, f := range b.flights {
		f.queued, f.batch = false, b
	}
	return b
}

// encode calls the encode func and checks what it returns.
func (t *TextEmbeddings) encode(b *batch) (entries []*entry, err error) {
	defer func() {
		if v := recover(); v != nil {
			t.store.log.Error("panic in the text encoder", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: panic: %v", ErrEncode, v)
		}
	}()
	texts := make([]string, len(b.flights))
	for i, f := range b.flights {
		texts[i] = f.prompt
	}
	vectors, err := t.encoder.Encode(b.ctx, slices.Clone(texts))
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
func (t *TextEmbeddings) finish(b *batch, entries []*entry, err error) {
	if err == nil {
		// Before anybody is answered, so that closing the store afterwards loses nothing.
		t.store.memory.setVectors(entries)
		if t.store.disk != nil {
			keys := make([]diskKey, len(b.flights))
			for i, f := range b.flights {
				keys[i] = f.key
			}
			t.store.disk.put(keys, entries)
		}
		t.store.counts.encoded.Add(uint64(len(b.flights)))
	} else {
		t.store.counts.failed.Add(uint64(len(b.flights)))
	}
	t.end(b, entries, err)
	if err == nil {
		// Who asks until memory shows the vectors joins flights that have ended.
		t.store.memory.settle()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(b.flights)
}

// end hands the results of a batch to those who wait. Failed flights cannot be joined any more.
func (t *TextEmbeddings) end(b *batch, entries []*entry, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.forget(b.flights)
	}
	for i, f := range b.flights {
		if err == nil {
			f.end(entries[i], nil)
		} else {
			f.end(nil, err)
		}
	}
}
