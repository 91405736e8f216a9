package fleet

import (
	"bytes"
	"net"
	"strconv"
	"sync"
	"testing"

	"hailoclip/api/fleet/broker"
)

// way is the way to a broker: an address that is the same when another broker is at its end, and nobody else's while there is none.
type way struct {
	net.Listener

	mu        sync.Mutex
	to        string // host:port of the broker; "": there is none
	swallows  bool   // what is sent to the broker is taken and not passed on
	swallowed bytes.Buffer
	open      []net.Conn
}

// newWay leads to b. The test ends it.
func newWay(t *testing.T, b *broker.Broker) *way {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &way{Listener: l}
	w.lead(b)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.pass(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); w.cut(); running.Wait() })
	return w
}

func (w *way) url() string { return "nats://" + w.Addr().String() }

// lead has new connections end at b; nil: nowhere.
func (w *way) lead(b *broker.Broker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.to = ""; b != nil {
		w.to = net.JoinHostPort("127.0.0.1", strconv.Itoa(b.Port()))
	}
}

// close ends the broker, and the way to it.
func (w *way) close(b *broker.Broker) {
	w.lead(nil)
	b.Close()
	w.cut()
}

// pass passes on what comes by c until one of both sides ends.
func (w *way) pass(c net.Conn) {
	defer c.Close()
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	if to == "" {
		return
	}
	b, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer b.Close()
	w.mu.Lock()
	gone := w.to != to
	w.open = append(w.open, c, b)
	w.mu.Unlock()
	if gone {
		return
	}
	var both sync.WaitGroup
	copies := func(from, to net.Conn, put func([]byte) error) {
		defer to.Close()
		buf := make([]byte, 1<<16)
		for n, err := from.Read(buf); err == nil; n, err = from.Read(buf) {
			if put(buf[:n]) != nil {
				return
			}
		}
	}
	both.Go(func() { copies(b, c, func(p []byte) error { _, err := c.Write(p); return err }) })
	copies(c, b, func(p []byte) (err error) {
		w.mu.Lock()
		swallows := w.swallows
		if swallows {
			w.swallowed.Write(p)
		}
		w.mu.Unlock()
		if !swallows {
			_, err = b.Write(p)
		}
		return err
	})
	both.Wait()
}

// swallow has nothing reach the broker from now on.
func (w *way) swallow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swallows = true
}

// published is how many messages were swallowed.
func (w *way) published() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Count(w.swallowed.Bytes(), []byte("PUB "))
}

// cut ends all connections.
func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}
