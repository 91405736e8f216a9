package main

import (
	"context"
	"sync"
	"time"

	"hailoclip/api/stream/source"
)

// watchedFrame is a frame on its way.
type watchedFrame struct {
	image  []byte
	format string        // of pixels; "": it is compressed
	name   string        // of its file, in a folder
	time   time.Duration // since the start of a file; -1: live
	seq    uint64
}

// mailbox hands frames from a source to a stream. With wait the source waits until each is taken, otherwise a newer frame takes the
// place of the one that waits.
type mailbox struct {
	wait      bool
	mu        sync.Mutex
	frame     watchedFrame
	full      bool
	closed    bool
	seq, lost uint64
	put, took chan struct{} // with room for one: something was
}

func newMailbox(wait bool) *mailbox {
	return &mailbox{wait: wait, put: make(chan struct{}, 1), took: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add copies a frame of the source.
func (b *mailbox) add(ctx context.Context, f source.Frame) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.full && b.wait {
		b.mu.Unlock()
		select {
		case <-b.took:
		case <-ctx.Done():
		}
		b.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if b.full {
		b.lost++
	}
	b.frame = watchedFrame{append(b.frame.image[:0], f.Image...), f.Raw.String(), f.Name, f.Time, b.seq}
	b.seq++
	b.full = true
	poke(b.put)
	return nil
}

func (b *mailbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	poke(b.put)
}

// take blocks until there is a frame, none is to come, or done is closed. It reuses the memory of f.
func (b *mailbox) take(f *watchedFrame, done <-chan struct{}) bool {
	for {
		b.mu.Lock()
		if b.full {
			b.full = false
			*f, b.frame = b.frame, *f
			b.mu.Unlock()
			poke(b.took)
			return true
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return false
		}
		select {
		case <-b.put:
		case <-done:
			return false
		}
	}
}
