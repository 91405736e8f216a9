package api

import (
	"context"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"
)

const (
	// backlogQuiet is how long a closed listener must have had no connection in its queue before it
	// is really closed. It is time for handshakes that had begun.
	backlogQuiet = 100 * time.Millisecond
	// backlogTime is how long it accepts at most, where the kernel goes on to take new connections.
	backlogTime = time.Second
	// stopIdleTime is how long a connection may wait for its next request while the service stops.
	// A client that asks again and again gets an answer that says so, and not a closed connection.
	stopIdleTime = 500 * time.Millisecond
)

// deadliner is what a listener needs to end without resetting connections.
type deadliner interface{ SetDeadline(t time.Time) error }

// Handed marks a listening socket that outlives this process, such as one of systemd's, from which another process will accept
// next. A server that stops only closes its own descriptor of such a socket: connections in the kernel's queue are left to the
// successor. Requests on connections that it has accepted are still served, not refused with 503.
type Handed struct{ net.Listener }

// Close stops accepting, but for the connections that clients have opened already: Accept goes
// on until there are none. Those of a socket that was handed over are left where they are. It does not block and may be called again.
func (l *listener) Close() error {
	if until := time.Now().Add(backlogTime); !l.closed.CompareAndSwap(nil, &until) {
		return nil
	}
	if l.handed {
		return l.Listener.Close()
	}
	d, ok := l.Listener.(deadliner)
	if !ok {
		return l.Listener.Close()
	}
	dropNewcomers(l.Listener)
	return d.SetDeadline(past) // wakes Accept
}

// drain blocks until no connection is left and none will come, or ctx ends. Connections that
// are idle end after stopIdleTime, which those from a socket that was handed over have in any case: their next request is served.
func (l *listener) drain(ctx context.Context) {
	var began time.Time
	if l.handed {
		began = time.Now()
	}
	wait(ctx, func() bool {
		l.mu.Lock()
		for c := range l.open {
			p, since, _ := c.doing()
			if p == idle && min(time.Since(since), time.Since(began)) > l.stopIdleTime {
				c.makeWay(false)
			}
		}
		l.mu.Unlock()
		select {
		case <-l.ended:
			return l.count() == 0
		default:
			return false
		}
	})
}

// wait blocks until something is done, which it looks at again and again, or ctx ends.
func wait(ctx context.Context, done func() bool) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// busy lists the connections with a request that is being worked on or answered.
func (l *listener) busy() (busy []*conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if _, _, cancel := c.doing(); cancel != nil {
			busy = append(busy, c)
		}
	}
	return busy
}

// watchEvery is how often the clients of requests that are being worked on are looked at.
const watchEvery = 500 * time.Millisecond

// watch cancels the requests of clients that are gone until no connection is left and none will come, or all requests are over.
func (l *listener) watch(over <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for ended := l.ended; ended != nil || l.count() > 0; {
		select {
		case <-tick.C:
			l.cancelGone()
		case <-ended:
			ended = nil
		case <-over:
			return
		}
	}
}

// cancelGone cancels the requests that are being worked on for clients that are gone.
func (l *listener) cancelGone() {
	for _, c := range l.busy() {
		// Asked before the look: the next request of the connection is not the one that is gone.
		if p, _, cancel := c.doing(); p == working && cancel != nil && hungUp(c.wire) {
			cancel(errGone)
		}
	}
}

// closeAll cuts every connection that is still open.
func (l *listener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.wire.Close()
	}
}

// Dismiss closes a listener that nobody will serve, because the service ends before it has begun. Clients
// that have connected meanwhile and sent something are told so with a 503, where closing alone would reset
// their connections. It blocks for some seconds at most, and for a moment where there are none.
func (c Config) Dismiss(ln net.Listener) error {
	if _, handed := ln.(Handed); handed {
		return ln.Close() // who has connected is served by the next start
	}
	l := newListener(ln, c, nil, slog.New(slog.DiscardHandler))
	if c.speaksTLS(ln) {
		if cert, err := c.TLS.certificate(l.log); err == nil { // else they get what they cannot read
			l.tls = cert.config()
		}
	}
	l.max = math.MaxInt / 2 // they are no more than the kernel lets wait
	err := l.Close()
	var answers sync.WaitGroup
	for nc, end := l.Accept(); end == nil; nc, end = l.Accept() {
		answers.Go(func() { dismiss(nc.(*conn)) })
	}
	answers.Wait()
	return err
}

// dismiss answers a connection that has waited with its request, or is about to send one, and closes it.
func dismiss(c *conn) {
	defer func() { _ = c.Close() }()               // it is lost either way
	_ = c.SetDeadline(time.Now().Add(partingTime)) // fails on a closed connection, and so will what follows
	if n, _ := c.Conn.Read(make([]byte, 1)); n == 0 {
		return
	}
	c.lingers.Store(true)
	_, _ = c.Conn.Write(refusal(errStopping, ""))
}
