package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"hailoclip/api/stream/event"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/clip"
)

// outbox publishes the events of a stream in their order, off the path of frames: those that are to be stored when they are. What cannot
// be stored is published all the same, and says so. Safe for concurrent use.
type outbox struct {
	stream *stream

	mu      sync.Mutex
	queue   []*batch
	added   int64
	gone    int64     // of those, published
	changed sync.Cond // gone has
	running bool      // a goroutine works on the queue
	failed  bool      // the last one could not be stored
}

// batch is the events of a frame. But for taken, it is immutable once it is added.
type batch struct {
	changes []change
	store   bool
	job     *job // which has the frame for thumbnails; nil: none are wanted
	taken   bool // it is being stored
}

func (b *batch) drop() {
	if b.job != nil {
		b.job.drop()
	}
}

const (
	// maxOutbox is how many frames may have events that are not stored yet: of one more the oldest are published without.
	maxOutbox = 64
	// storeTime is how long the events of a frame may take to be stored.
	storeTime = 10 * time.Second
)

func (o *outbox) add(b *batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !b.store && b.job == nil && len(o.queue) == 0 {
		o.publish(b, nil, nil)
		return
	}
	o.queue = append(o.queue, b)
	o.added++
	if len(o.queue) > maxOutbox {
		o.lose("too many wait")
	}
	if !o.running {
		o.running = true
		o.stream.hub.running.Go(o.run)
	}
}

// lose publishes the oldest batch as not stored. The caller holds mu.
func (o *outbox) lose(why string) {
	oldest := o.next()
	o.publish(oldest, nil, fmt.Errorf("%w: %s", event.ErrLost, why))
	if !oldest.taken {
		oldest.drop()
	}
}

// next takes the oldest batch out of the queue, to be published. The caller holds mu.
func (o *outbox) next() *batch {
	b := o.queue[0]
	o.gone++
	o.changed.Broadcast()
	o.queue[0] = nil
	o.queue = o.queue[1:]
	return b
}

// run works on the queue until it is empty.
func (o *outbox) run() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 {
		b := o.queue[0]
		b.taken = true
		o.mu.Unlock()
		thumbnails, err := o.keep(b)
		b.drop()
		o.mu.Lock()
		if len(o.queue) > 0 && o.queue[0] == b { // else it was published because too many wait
			o.publish(o.next(), thumbnails, err)
		}
	}
	o.running, o.queue = false, nil
}

// wait blocks until all events that have been added are published: after storeTime those that still wait are, as not stored.
func (o *outbox) wait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	until := o.added
	patience := time.AfterFunc(storeTime, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for o.gone < until {
			o.lose("the disk has not answered")
		}
	})
	defer patience.Stop()
	for o.gone < until {
		o.changed.Wait()
	}
}

// keep makes the thumbnails of a batch, and stores it. A panic is an error.
func (o *outbox) keep(b *batch) (thumbnails [][]byte, err error) {
	defer o.stream.caught("events of a stream", "events have not been stored", &err)
	ctx, cancel := context.WithTimeout(o.stream.hub.abort, storeTime)
	defer cancel()
	if b.job != nil {
		thumbnails, err = o.thumbnails(ctx, b)
		if err != nil {
			o.stream.hub.log.Warn("events have no thumbnails", "stream", o.stream.id, "error", err)
		}
	}
	if !b.store {
		return thumbnails, nil
	}
	if o.stream.hub.parts.Store == nil {
		return thumbnails, fmt.Errorf("%w: %w", event.ErrLost, o.stream.hub.parts.Lost)
	}
	for i := range b.changes {
		if !b.changes[i].store {
			continue
		}
		kept := *b.changes[i].event
		if kept.Thumbnail = thumbnails != nil; kept.Thumbnail {
			kept.JPEG = thumbnails[i]
		}
		if err := o.stream.hub.parts.Store.Add(ctx, &kept); err != nil {
			return thumbnails, err
		}
	}
	return thumbnails, nil
}

// thumbnails makes one for each event of a batch, of its part of the frame. It decodes the frame once more: events are rare.
func (o *outbox) thumbnails(ctx context.Context, b *batch) ([][]byte, error) {
	r := &clip.Request{
		Image: b.job.request.Image, Raw: b.job.request.Raw, Release: b.job.release,
		Lane: pipeline.NewLane(b.job.feed.caller, pipeline.Bulk),
	}
	at := make([]int, len(b.changes)) // which of the parts each has
	for i, c := range b.changes {
		part := clip.Region{X: c.part.X, Y: c.part.Y, W: c.part.W, H: c.part.H}
		if c.part == (stages.Region{}) {
			part.W, part.H = 1, 1
		}
		if at[i] = slices.Index(r.Regions, part); at[i] < 0 {
			at[i] = len(r.Regions)
			r.Regions = append(r.Regions, part)
		}
	}
	b.job.holders.Add(1)
	made, err := o.stream.hub.parts.Engine.Thumbnails(ctx, r)
	if err != nil {
		return nil, err
	}
	thumbnails := make([][]byte, len(at))
	for i := range at {
		thumbnails[i] = made[at[i]]
	}
	return thumbnails, nil
}

// publish tells the events of a batch, which could not be stored if err is not nil. The caller holds mu.
func (o *outbox) publish(b *batch, thumbnails [][]byte, err error) {
	h := o.stream.hub
	if err != nil && !o.failed {
		h.log.Error("events cannot be stored; they are told all the same", "stream", o.stream.id, "error", err)
	}
	if b.store {
		o.failed = err != nil
	}
	for i := range b.changes {
		e := *b.changes[i].event
		e.Unstored = b.changes[i].store && err != nil
		e.Thumbnail = thumbnails != nil && !e.Unstored
		if e.Unstored {
			o.stream.changed(0, 1)
		}
		h.parts.Bus.Publish(&e)
	}
}
