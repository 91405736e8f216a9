package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// reportQueues adds the streams of images, results and dead letters that the broker has.
func (n *Node) reportQueues(ctx context.Context, s *Status) error {
	if !n.Connected() {
		return ErrNoBroker
	}
	for _, name := range []string{BulkStream, ResultStream, DeadStream} {
		q, err := n.queue(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue // nobody has indexed anything yet
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.Queues = append(s.Queues, q)
	}
	return nil
}

// mostConsumers bounds what is summed of a stream: there is one consumer for each model, or for each job.
const mostConsumers = 1000

func (n *Node) queue(ctx context.Context, name string) (q QueueStatus, err error) {
	ctx, end := n.ask(ctx, 0)
	defer end(&err)
	stream, err := n.js.Stream(ctx, name)
	if err != nil {
		return q, err
	}
	info := stream.CachedInfo()
	q = QueueStatus{Stream: name, Messages: info.State.Msgs, Bytes: info.State.Bytes, Limit: info.Config.MaxBytes, Consumers: info.State.Consumers}
	if q.Consumers == 0 {
		q.Pending = q.Messages
		return q, nil
	}
	list, seen := stream.ListConsumers(ctx), 0
	for c := range list.Info() {
		if seen++; seen > mostConsumers {
			continue // the channel must be read to its end
		}
		q.Pending += c.NumPending
		q.AckPending += uint64(max(c.NumAckPending, 0))
		q.Waiting += max(c.NumWaiting, 0)
		q.Redelivers += uint64(max(c.NumRedelivered, 0))
	}
	return q, list.Err()
}
