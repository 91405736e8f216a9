package fleet

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// askTime is the limit for an answer of the broker's where nothing else is said. Longer in one test.
var askTime = 5 * time.Second

// life is that of the present connection: its context ends when the connection is lost.
type life struct {
	now atomic.Pointer[lifetime]
}

type lifetime struct {
	ctx context.Context
	end context.CancelFunc
}

func (l *life) begin() {
	ctx, end := context.WithCancel(context.Background())
	if before := l.now.Swap(&lifetime{ctx, end}); before != nil {
		before.end()
	}
}

// ask begins all that is asked of the broker: nats.go would wait for an answer until its time is up also where it was asked on a
// connection that is gone. The context is ctx's, and ends after limit, 0: when ctx does, and as soon as there is no connection. end is
// to be called when nothing more is asked; it makes an error that comes of that ErrNoBroker.
func (c *Conn) ask(ctx context.Context, limit time.Duration) (asking context.Context, end func(*error)) {
	connection := c.life.now.Load().ctx // before it is looked at: what is lost after that ends it
	ctx, lost := context.WithCancelCause(ctx)
	stop := context.AfterFunc(connection, func() { lost(ErrNoBroker) })
	if !c.Connected() {
		lost(ErrNoBroker)
	}
	done := func() {}
	if limit > 0 {
		ctx, done = context.WithTimeout(ctx, limit)
	}
	return ctx, func(err *error) {
		if errors.Is(*err, nats.ErrReconnectBufExceeded) || errors.Is(*err, context.Canceled) && errors.Is(context.Cause(ctx), ErrNoBroker) {
			*err = ErrNoBroker
		}
		stop()
		done()
		lost(nil)
	}
}

// reconnectDelay is after how long a lost broker is tried again, the next time longer: all nodes lose it at once, and must not come
// at once. A broker that can be reached again has all of them two seconds later.
func reconnectDelay(try int) time.Duration {
	longest := 500 * time.Millisecond << min(max(try-1, 0), 2)
	return longest/2 + rand.N(longest/2)
}
