package npu

import (
	"context"
	"slices"
	"sync"
)

// textCall is one call of EncodeTexts.
type textCall struct {
	ctx     context.Context
	tokens  [][]int32
	ends    []int // position of each end token
	vectors [][]float32
	next    int           // the first text not taken yet
	open    int           // texts not finished yet
	err     error         // the first
	done    chan struct{} // closed when open is 0
}

// textItem is one text of a call.
type textItem struct {
	call  *textCall
	index int
}

// textQueue holds the calls that wait. Batches are gathered over all of them, one text of each
// in turn, so that a request with one text does not wait behind one with a thousand.
type textQueue struct {
	mu     sync.Mutex
	some   *sync.Cond
	calls  []*textCall
	closed bool
}

func (q *textQueue) init() { q.some = sync.NewCond(&q.mu) }

func (q *textQueue) put(c *textCall) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, c)
	q.some.Signal()
}

func (q *textQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}

// wait blocks until there are texts, true, or the queue is closed.
func (q *textQueue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.calls) == 0 && !q.closed {
		q.some.Wait()
	}
	return len(q.calls) > 0
}

// take returns at most n texts of those that wait; it does not block.
func (q *textQueue) take(n int) []textItem {
	q.mu.Lock()
	defer q.mu.Unlock()
	var items []textItem
	for len(items) < n && len(q.calls) > 0 {
		c := q.calls[0]
		q.calls = q.calls[1:]
		if c.ctx.Err() != nil {
			q.drop(c, context.Cause(c.ctx))
			continue
		}
		items = append(items, textItem{c, c.next})
		if c.next++; c.next < len(c.tokens) {
			q.calls = append(q.calls, c)
		}
	}
	return items
}

// drop finishes the texts of a call that were not taken. The caller holds q.mu.
func (q *textQueue) drop(c *textCall, err error) {
	if c.err == nil {
		c.err = err
	}
	c.open -= len(c.tokens) - c.next
	c.next = len(c.tokens)
	if c.open == 0 {
		close(c.done)
	}
}

// fail finishes all texts that were not taken: who waits for a device that is lost may have another
// encoder.
func (q *textQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.calls {
		q.drop(c, err)
	}
	q.calls = nil
}

// finish notes the outcome of a text. A call is given up at its first error.
func (q *textQueue) finish(item textItem, v []float32, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := item.call
	c.vectors[item.index] = v
	c.open--
	if err != nil && c.err == nil {
		c.err = err
		if i := slices.Index(q.calls, c); i >= 0 {
			q.calls = slices.Delete(q.calls, i, i+1)
			q.drop(c, err)
			return
		}
	}
	if c.open == 0 {
		close(c.done)
	}
}
