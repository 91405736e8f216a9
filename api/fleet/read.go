package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of what is read of a stream at once, which anybody may have filled.
const (
	mostRead  = 4096
	readBytes = 4 << 20
	readTime  = 2 * time.Second
)

// errReadEnough says that a stream has more than is read of it.
var errReadEnough = fmt.Errorf("more than %d messages or %d bytes are not read", mostRead, readBytes)

// read hands the messages of a stream to take, the oldest first: those of the subject filter from sequence from on that are there when it
// begins. It takes two seconds at most. Errors: those of the broker, and errReadEnough after as many as are read.
func (c *Conn) read(ctx context.Context, stream, filter string, from uint64, take func(jetstream.Msg)) (err error) {
	ctx, end := c.ask(ctx, readTime)
	defer end(&err)
	consumer, err := c.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject: filter, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1), AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: 2 * readTime,
	})
	if err != nil {
		return c.verdict(err, stream)
	}
	defer func() { _ = c.js.DeleteConsumer(ctx, stream, consumer.CachedInfo().Name) }() // where there is no time left it goes by itself
	left := consumer.CachedInfo().NumPending
	if left == 0 {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(256, readBytes/2), jetstream.PullExpiry(readTime))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for n, bytes := 0, 0; left > 0; left-- {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		n, bytes = n+1, bytes+len(m.Subject())+len(m.Data())
		if n > mostRead || bytes > readBytes {
			return errReadEnough
		}
		take(m)
	}
	return nil
}
