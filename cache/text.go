package cache

import (
	"context"
	"fmt"
	"sync"

	"hailoclip/pipeline/fair"
)

// TextEmbeddings gives the embeddings of prompts by one text encoder. Safe for concurrent use.
type TextEmbeddings struct {
	store   *Store
	encoder Encoder
	running sync.WaitGroup // encoders and look-ups on disk

	mu      sync.Mutex
	work    sync.Cond          // queue is no longer empty, or closed
	closed  bool               // no flight is added any more
	flights map[string]*flight // those that can be joined, by prompt
	queue   fair.Queue[seat]   // those that wait for an encoder, once for each who wants them
	waiting int                // those that wait for the disk or an encoder, given up ones on disk included
}

// Get returns the embeddings of prompts, in their order. It encodes what it has not seen
// before, which blocks until that is done or ctx ends. It keeps no reference to prompts or
// their bytes.
//
// New prompts are encoded for one caller after the other; a request is taken whole, however many
// it brings. While Config.MaxPending or more wait, one that brings new ones takes the place of
// requests whose callers have more waiting than it would have, which end with ErrBusy; where
// there are none it gets ErrBusy itself.
//
// Errors: ErrBusy, ErrClosed, ErrEncode, the cause of ctx, or what the encode func returned.
func (t *TextEmbeddings) Get(ctx context.Context, caller fair.Caller, prompts []string) (*Prompts, error) {
	memory, counts := t.store.memory, &t.store.counts
	namespace, dim := t.encoder.Namespace, t.encoder.Dim
	counts.requests.Add(1)
	keepList := memory != nil && len(prompts) > 1
	var key uint64
	if keepList {
		key = memory.key(namespace, prompts...)
		if p := memory.list(key, namespace, prompts, dim); p != nil {
			counts.listHits.Add(1)
			return p, nil
		}
	}
	rows, err := t.rows(ctx, caller, prompts)
	if err != nil {
		return nil, err
	}
	p := newPrompts(namespace, dim, rows)
	if keepList {
		memory.setList(key, p)
	}
	return p, nil
}

// rows returns the entries of prompts, from wherever they are.
func (t *TextEmbeddings) rows(ctx context.Context, caller fair.Caller, prompts []string) ([]*entry, error) {
	rows := make([]*entry, len(prompts))
	var missing []int
	for i, prompt := range prompts {
		rows[i] = t.store.memory.vector(t.encoder.Namespace, prompt, t.encoder.Dim)
		if rows[i] == nil {
			missing = append(missing, i)
		}
	}
	t.store.counts.memoryHits.Add(uint64(len(prompts) - len(missing)))
	if len(missing) > 0 {
		if err := t.fetch(ctx, caller, prompts, missing, rows); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// fetch fills the missing rows from flights.
func (t *TextEmbeddings) fetch(ctx context.Context, caller fair.Caller, prompts []string, missing []int, rows []*entry) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	given := func() error { return fmt.Errorf("waiting for the text encoder: %w", context.Cause(ctx)) }
	if ctx.Err() != nil {
		return given() // nobody makes room for it
	}
	r := &request{caller: caller, flights: make([]*flight, len(missing)), giveUp: giveUp}
	if err := t.join(r, prompts, missing, rows); err != nil {
		return err
	}
	for n, f := range r.flights {
		if f == nil {
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			t.leave(r)
			return given()
		}
		if f.err != nil {
			t.leave(r)
			return f.err
		}
		rows[missing[n]] = f.entry
	}
	return nil
}
