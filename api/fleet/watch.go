package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// watchEvery is how often a watch asks whether the bucket is still the one that it watches.
const watchEvery = time.Second

// watch tells of each key that a bucket has, then nil, and then of each change. It returns nil when the connection was lost, or the bucket
// made anew, and what was seen of it may not hold any more: the task is to begin again. tick is called every second. The first error
// of both ends it.
func (n *Node) watch(
	ctx context.Context, bucket string, told func(jetstream.KeyValueEntry) error, tick func() error, options ...jetstream.WatchOpt,
) (err error) {
	ctx, end := n.ask(ctx, 0)
	defer end(&err)
	if err := n.Setup(ctx); err != nil {
		return err
	}
	created, err := n.bucketCreated(ctx, bucket)
	if err != nil {
		return err
	}
	kv, err := n.js.KeyValue(ctx, bucket)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx, options...)
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }() // the connection may be gone
	check := time.NewTicker(watchEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			if !ok {
				return nil
			}
			if err := told(e); err != nil {
				return err
			}
		case <-check.C:
			now, err := n.bucketCreated(ctx, bucket)
			if ctx.Err() != nil || errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !now.Equal(created) {
				return nil
			}
			if err := tick(); err != nil {
				return err
			}
		}
	}
}

// bucketCreated is when a bucket was made.
func (n *Node) bucketCreated(ctx context.Context, bucket string) (made time.Time, err error) {
	ctx, end := n.ask(ctx, askTime)
	defer end(&err)
	stream, err := n.js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return time.Time{}, err
	}
	return stream.CachedInfo().Created, nil
}
