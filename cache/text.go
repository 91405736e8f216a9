package cache

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"hailoclip/pipeline/fair"
)

// TextEmbeddings gives the embeddings of prompts by one text encoder. Safe for concurrent use.
type TextEmbeddings struct {
	store   *Store
	encoder Encoder

	// Guarded by Store.mu.
	pending map[string]*pendingPrompt // those that can be joined, by text
	queue   fair.Queue[place]         // those that no batch has taken, once for each request that may be refused
	patient fair.Queue[place]         // once for each that may not
	turn    bool                      // of patient
	calls   int                       // goroutines that encode
}

// pendingPrompt is a prompt that is to be encoded, for everyone who asked for it.
type pendingPrompt struct {
	text     string
	patient  bool       // a patient request has brought it: Config.MaxPending does not count it
	requests []*request // that wait for it
	batch    *batch     // that it is encoded in; nil while it is queued

	done   chan struct{} // closed when result or err is set
	result *Prompts
	err    error
}

// request is a call that waits for prompts.
type request struct {
	caller  fair.Caller
	patient bool                    // it is never refused
	cancel  context.CancelCauseFunc // ends the wait
	prompts []*pendingPrompt        // one for each missing text; nil where memory has it by now
}

// place is the place of a queued prompt in the lane of a request's caller.
type place struct {
	prompt  *pendingPrompt
	request *request
}

// batch is prompts that are encoded in one call.
type batch struct {
	prompts []*pendingPrompt
	ctx     context.Context // ends when nobody waits for any of them
	cancel  context.CancelFunc
}

// Get returns the embeddings of prompts, in their order. It encodes what it has not seen before, which blocks until
// that is done or ctx ends. It keeps no reference to prompts or their bytes.
//
// New prompts are encoded for one caller after the other; a request is taken whole, however many it brings. While
// Config.MaxPending or more wait, one that brings new ones takes the place of requests whose callers have more
// waiting than it would have, which end with ErrBusy; where there are none it gets ErrBusy itself.
//
// Errors: ErrBusy, ErrClosed, ErrEncode, the cause of ctx, or what the encode func returned.
func (t *TextEmbeddings) Get(ctx context.Context, caller fair.Caller, prompts []string) (*Prompts, error) {
	if p := t.known(prompts); p != nil {
		return p, nil
	}
	rows, err := t.rows(ctx, caller, false, prompts, nil)
	if err != nil {
		return nil, err
	}
	return t.list(rows), nil
}

// known counts a request, and returns the list of its embeddings if that is remembered, else nil.
func (t *TextEmbeddings) known(prompts []string) (p *Prompts) {
	t.store.counts.requests.Add(1)
	if len(prompts) > 1 {
		if p = t.store.lists.get(t.encoder.Namespace, t.encoder.Dim, prompts); p != nil {
			t.store.counts.listHits.Add(1)
		}
	}
	return p
}

// list makes one list of the embeddings of prompts, and remembers it.
func (t *TextEmbeddings) list(rows []*Prompts) *Prompts {
	p := concat(t.encoder.Namespace, t.encoder.Dim, rows)
	if len(rows) > 1 {
		t.store.lists.set(false, p)
	}
	return p
}

// Await is Get for who would rather wait than be refused: it never ends with ErrBusy, nor makes others end so. It
// brings few batches of new prompts at a time, and while prompts of Get wait, those of both kinds have every second turn.
func (t *TextEmbeddings) Await(ctx context.Context, caller fair.Caller, prompts []string) (*Prompts, error) {
	if p := t.known(prompts); p != nil {
		return p, nil
	}
	rows, errs := t.each(ctx, caller, prompts)
	if err := cmp.Or(errs...); err != nil {
		return nil, err
	}
	return t.list(rows), nil
}

// AwaitEach is Await for texts that are no list: each has a vector or an error of its own, and the list is not
// remembered.
func (t *TextEmbeddings) AwaitEach(ctx context.Context, caller fair.Caller, texts []string) ([]Vector, []error) {
	t.store.counts.requests.Add(1)
	rows, errs := t.each(ctx, caller, texts)
	vectors := make([]Vector, len(texts))
	for i, row := range rows {
		if row != nil {
			vectors[i] = row.Rows[0]
		}
	}
	return vectors, errs
}

// each returns the embedding of each prompt, or its error, and gives the encoder some batches at a time.
func (t *TextEmbeddings) each(ctx context.Context, caller fair.Caller, prompts []string) ([]*Prompts, []error) {
	rows, errs := make([]*Prompts, len(prompts)), make([]error, len(prompts))
	var running errgroup.Group
	running.SetLimit(t.encoder.Calls + 1) // one is ready when the encoder is
	for from := 0; from < len(prompts); from += t.encoder.Batch {
		to := min(from+t.encoder.Batch, len(prompts))
		running.Go(func() error {
			found, err := t.rows(ctx, caller, true, prompts[from:to], errs[from:to])
			copy(rows[from:to], found)
			for i := from; i < to; i++ {
				errs[i] = cmp.Or(errs[i], err)
			}
			return nil
		})
	}
	_ = running.Wait() // errors are in errs
	return rows, errs
}

// Remember makes sure that the embeddings of prompts are known, as AwaitEach does for the program itself.
func (t *TextEmbeddings) Remember(ctx context.Context, prompts []string) error {
	_, errs := t.each(ctx, fair.Caller{}, prompts)
	return cmp.Or(errs...)
}

// rows returns the embedding of each prompt, from memory, else from the disk, else from the encoder. An error of a prompt
// fails all, or, where errs is not nil, goes there.
func (t *TextEmbeddings) rows(ctx context.Context, caller fair.Caller, patient bool, prompts []string, errs []error) ([]*Prompts, error) {
	s, rows, missing := t.store, make([]*Prompts, len(prompts)), 0
	for i := range prompts {
		if rows[i] = s.singles.get(t.encoder.Namespace, t.encoder.Dim, prompts[i:i+1]); rows[i] == nil {
			missing++
		}
	}
	s.counts.memoryHits.Add(uint64(len(prompts) - missing))
	if missing == 0 {
		return rows, nil
	}
	texts := make([]string, len(prompts))
	for i, prompt := range prompts {
		texts[i] = strings.Clone(prompt) // it may point into a body that is used again
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrClosed) })()
	for i, p := range s.disk.get(ctx, t.encoder.Namespace, t.encoder.Dim, texts, rows) {
		if rows[i] == nil && p != nil {
			rows[i] = p
			s.singles.set(false, p)
			s.counts.diskHits.Add(1)
		}
	}
	r := &request{caller: caller, patient: patient, cancel: cancel, prompts: make([]*pendingPrompt, len(texts))}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.abandon(r)
	}()
	if err := t.join(ctx, r, texts, rows); err != nil {
		return nil, err
	}
	for i, p := range r.prompts {
		if p == nil {
			continue
		}
		select {
		case <-p.done:
			switch rows[i] = p.result; {
			case p.err == nil:
			case errs == nil:
				return nil, p.err
			default:
				rows[i], errs[i] = nil, p.err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the text encoder: %w", context.Cause(ctx))
		}
	}
	return rows, nil
}

// join makes r wait for all texts that have no row, and sets the rows of those that were encoded since.
func (t *TextEmbeddings) join(ctx context.Context, r *request, texts []string, rows []*Prompts) error {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx) // nobody makes room for it
	}
	fits := false
	for i, text := range texts {
		p := t.pending[text]
		if rows[i] == nil && p == nil {
			rows[i] = s.singles.get(t.encoder.Namespace, t.encoder.Dim, texts[i:i+1]) // which has what leaves pending
		}
		switch {
		case rows[i] != nil:
			continue
		case p != nil && (p.batch == nil || p.batch.ctx.Err() == nil): // not one that was given up
			s.counts.shared.Add(1)
		case fits || r.patient || t.makeRoom(r.caller, len(texts)-i):
			fits = true
			p = &pendingPrompt{text: text, patient: r.patient, done: make(chan struct{})}
			t.pending[text] = p
			s.counts.wait(p, 1)
		default:
			return t.busy()
		}
		r.prompts[i] = p
		if n := len(p.requests); n == 0 || p.requests[n-1] != r { // it may stand in the request twice
			p.requests = append(p.requests, r)
			if p.batch == nil {
				t.queueOf(r).Push(r.caller, place{p, r})
			}
		}
	}
	for n := min(t.encoder.Calls-t.calls, t.queue.Len()+t.patient.Len()); n > 0 && s.ctx.Err() == nil; n-- { // beside those at work
		t.calls++
		s.running.Go(t.encodeQueued)
	}
	return nil
}

// queueOf is where the prompts of r wait. The caller holds Store.mu.
func (t *TextEmbeddings) queueOf(r *request) *fair.Queue[place] {
	if r.patient {
		return &t.patient
	}
	return &t.queue
}

// next takes the prompt whose turn it is out of its queue. The caller holds Store.mu.
func (t *TextEmbeddings) next() (place, bool) {
	first, second := &t.queue, &t.patient
	if t.turn {
		first, second = second, first
	}
	t.turn = !t.turn
	if p, ok := first.Pop(); ok {
		return p, true
	}
	return second.Pop()
}

// makeRoom says whether a caller may bring n more prompts. For that it refuses requests of callers who have more
// waiting, in a full queue.
func (t *TextEmbeddings) makeRoom(c fair.Caller, n int) bool {
	counts := &t.store.counts
	for counts.waiting.Load()-counts.patient.Load() >= int64(t.store.config.MaxPending) {
		greedy, ok := t.queue.DisplaceFor(c, n)
		if !ok {
			return false
		}
		greedy.request.cancel(t.busy()) // as a whole: half of an answer is none
		t.abandon(greedy.request)
	}
	return true
}

func (t *TextEmbeddings) busy() error {
	t.store.counts.busy.Add(1)
	return fmt.Errorf("%w: %d", ErrBusy, t.store.counts.waiting.Load())
}

// abandon takes a request out of all that it waits for. It gives up prompts that nobody waits for any more, and cancels
// batches of such prompts. While others want a batch, somebody may still join its prompts.
func (t *TextEmbeddings) abandon(r *request) {
	for _, p := range r.prompts {
		if p == nil || !slices.Contains(p.requests, r) {
			continue
		}
		p.requests = slices.DeleteFunc(p.requests, func(other *request) bool { return other == r })
		if p.batch == nil {
			t.queueOf(r).Remove(r.caller, place{p, r})
		}
		switch {
		case len(p.requests) > 0:
		case p.batch == nil:
			t.store.counts.wait(p, -1)
			delete(t.pending, p.text)
		case !slices.ContainsFunc(p.batch.prompts, func(p *pendingPrompt) bool { return len(p.requests) > 0 }):
			p.batch.cancel()
		}
	}
}

// encodeQueued encodes what is queued until nothing is.
func (t *TextEmbeddings) encodeQueued() {
	for b := t.take(); b != nil; b = t.take() {
		t.encodeBatch(b)
		t.store.mu.Lock()
		for _, p := range b.prompts {
			if t.pending[p.text] == p {
				delete(t.pending, p.text)
			}
			if p.err != nil {
				t.store.counts.failed.Add(1)
			}
			p.requests = nil
			close(p.done)
		}
		t.store.mu.Unlock()
		b.cancel()
	}
}

// take takes up to a batch of the queued prompts, of all callers in turn; nil when there are none or the store closes,
// which ends the goroutine.
func (t *TextEmbeddings) take() *batch {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	if t.queue.Len()+t.patient.Len() == 0 || t.store.ctx.Err() != nil {
		t.calls--
		return nil
	}
	b := &batch{}
	b.ctx, b.cancel = context.WithCancel(context.Background()) // when the store closes, nobody waits any more
	for len(b.prompts) < t.encoder.Batch {
		next, ok := t.next()
		if !ok {
			break
		}
		p := next.prompt
		for _, r := range p.requests {
			if r != next.request {
				t.queueOf(r).Remove(r.caller, place{p, r})
			}
		}
		p.batch = b
		b.prompts = append(b.prompts, p)
		t.store.counts.wait(p, -1)
	}
	return b
}

// encodeBatch sets the result or error of each prompt of b. When the batch fails, each prompt is encoded alone,
// because the callers of the others must not get an error that is about one of them, until an error is about all.
func (t *TextEmbeddings) encodeBatch(b *batch) {
	err := t.encode(b.ctx, b.prompts...)
	alone := err != nil && len(b.prompts) > 1
	for _, p := range b.prompts {
		if alone = alone && (err == nil || t.encoder.RetryAlone == nil || t.encoder.RetryAlone(err)); alone {
			if err = b.ctx.Err(); err == nil {
				err = t.encode(b.ctx, p)
			}
		}
		p.err = err
	}
}

// encode calls the encode func, checks what it returns, sets the results and remembers them.
func (t *TextEmbeddings) encode(ctx context.Context, prompts ...*pendingPrompt) (err error) {
	defer func() {
		if v := recover(); v != nil {
			t.store.log.Error("panic in the text encoder", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: panic: %v", ErrEncode, v)
		}
	}()
	texts := make([]string, len(prompts))
	for i, p := range prompts {
		texts[i] = p.text
	}
	vectors, err := t.encoder.Encode(ctx, texts)
	if err != nil {
		return fmt.Errorf("encoding %d prompts: %w", len(texts), err)
	}
	if len(vectors) != len(prompts) {
		return fmt.Errorf("%w: %d embeddings for %d prompts", ErrEncode, len(vectors), len(prompts))
	}
	results := make([]*Prompts, len(prompts))
	for i, v := range vectors {
		if err := v.check(t.encoder.Dim); err != nil {
			return err
		}
		v.Embedding = slices.Clone(v.Embedding) // it may be part of something large, or used again
		results[i] = single(t.encoder.Namespace, prompts[i].text, v)
		prompts[i].result = results[i]
	}
	// Before the prompts leave pending, so that nobody encodes them again, and before anybody is answered, so that
	// closing the store afterwards loses nothing.
	t.store.disk.put(results)
	t.store.singles.set(true, results...)
	t.store.counts.encoded.Add(uint64(len(results)))
	return nil
}
