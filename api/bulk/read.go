package bulk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"
)

// read starts the goroutines that go through the source and open what has changed. The channel is closed when they have ended.
func (k *keeper) read(ctx context.Context, failed context.CancelCauseFunc) <-chan found {
	items, founds := make(chan opening), make(chan found, k.job.Readers)
	room := semaphore.NewWeighted(memory)
	var readers sync.WaitGroup
	for range k.job.Readers {
		readers.Go(func() {
			for o := range items {
				k.openItem(ctx, o, founds)
			}
		})
	}
	go func() {
		defer close(founds)
		if err := k.each(ctx, room, items); err != nil {
			failed(fmt.Errorf("the source: %w", err))
		}
		close(items)
		readers.Wait()
	}()
	return founds
}

// opening is an item for which there is memory.
type opening struct {
	Item
	room *semaphore.Weighted
	held int64
}

// holds makes held what an item needs that was read. What is larger than the source has said waits for memory without holding any,
// so that nobody waits for it in turn. It returns false when ctx ends before; then nothing is held.
func (o *opening) holds(ctx context.Context, n int64) bool {
	if n <= o.held {
		o.room.Release(o.held - n)
	} else {
		o.room.Release(o.held)
		if o.room.Acquire(ctx, n) != nil {
			return false
		}
	}
	o.held = n
	return true
}

// each goes through the source.
func (k *keeper) each(ctx context.Context, room *semaphore.Weighted, items chan<- opening) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return k.job.Source.Each(ctx, func(i Item) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k.named.Add(1)
		if i.Path == "" || len(i.Path) > maxPath || !utf8.ValidString(i.Path) || strings.ContainsRune(i.Path, 0) {
			path := fmt.Sprintf("%.200q, SHA-256 %.8x", i.Path, sha256.Sum256([]byte(i.Path)))
			i = Item{Path: path, Size: i.Size, Modified: i.Modified, Open: func(context.Context) ([]byte, error) {
				return nil, fmt.Errorf("its path is no text of 1 to %d bytes without zeros", maxPath)
			}}
		}
		now := stamp{i.Size, nanoseconds(i.Modified)}
		if same, err := k.flight.free(ctx, i.Path, now); same || err != nil {
			return err
		}
		old, known, err := k.journal.committed(i.Path)
		if err != nil {
			return err
		}
		if known && old.at(now) && (old.state == stored || old.state == failed || old.state == unreadable && k.seen.has(old.id)) {
			k.seen.add(old.id)
			k.unchanged.Add(1)
			return nil
		}
		o := opening{Item: i, room: room, held: min(max(i.Size, 1), memory)}
		if i.Size < 0 {
			o.held = min(k.job.MaxImageBytes, memory)
		}
		k.flight.begin(i.Path, now)
		if err := room.Acquire(ctx, o.held); err != nil {
			return context.Cause(ctx)
		}
		if i.Once {
			image, err := o.open(ctx)
			o.Open = func(context.Context) ([]byte, error) { return image, err } // the rest is done beside reading the next
		}
		select {
		case items <- o:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// at says that an item has not changed as far as can be told without reading it.
func (r *record) at(now stamp) bool { return r.size == now.size && r.modified == now.modified }

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// justNow says that a file may have changed once more at the same time t, as coarse as its file system or server tells it, and still
// may when it is read now.
func justNow(t, now time.Time) bool {
	coarse := 50 * time.Millisecond
	if t.Nanosecond() == 0 {
		coarse = 2 * time.Second // FAT
	}
	return now.Sub(t).Abs() < coarse
}

// openItem reads an item. It gives the memory back when nobody needs it any more.
func (k *keeper) openItem(ctx context.Context, o opening, founds chan<- found) {
	f := found{path: o.Path, size: o.Size, modified: nanoseconds(o.Modified)}
	if justNow(o.Modified, time.Now()) {
		f.modified-- // the next run reads it again
	}
	f.image.done = func() { o.room.Release(o.held) }
	if f.image.bytes, f.err = o.open(ctx); f.err == nil {
		sum := sha256.Sum256(f.image.bytes)
		f.image.hash = hash(sum[:16])
		k.bytes.Add(int64(len(f.image.bytes)))
		if !o.holds(ctx, min(int64(len(f.image.bytes)), memory)) {
			return
		}
		if k.prepare(ctx, &f); !o.holds(ctx, min(int64(len(f.image.bytes)), o.held)) { // what was made is no larger
			return
		}
	}
	if ctx.Err() == nil {
		select {
		case founds <- f:
			return
		case <-ctx.Done():
		}
	}
	f.image.release()
}

// prepare makes of an image that was read what the encoder gets; a panic is the image's error.
func (k *keeper) prepare(ctx context.Context, f *found) {
	if k.job.Prepare == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			f.fault = fmt.Sprintf("%v: panic: %v", ErrImage, v)
		}
	}()
	prepared, err := k.job.Prepare(ctx, f.image.bytes)
	switch {
	case err == nil:
		f.image.bytes = prepared
	case errors.Is(err, ErrImage):
		f.fault = err.Error()
	default:
		f.err = err
	}
}

// open reads the item; a panic is an error.
func (o *opening) open(ctx context.Context) (image []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if o.Open == nil {
		return nil, errors.New("it cannot be opened")
	}
	return o.Open(ctx)
}
