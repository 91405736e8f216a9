package api

import (
	"context"
	"log/slog"
	"math"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lastCall is how long a closed listener must have had no connection in its queue before it
	// is really closed. It is time for handshakes that had begun.
	lastCall = 100 * time.Millisecond
	// lastCalls is how long it accepts at most, where the kernel goes on to take new connections.
	lastCalls = time.Second
	// idleGrace is how long a connection may wait for its next request while the service stops.
	// A client that asks again and again gets an answer that says so, and not a closed connection.
	idleGrace = 500 * time.Millisecond
)

// deadliner is what a listener needs to end without resetting connections.
type deadliner interface{ SetDeadline(t time.Time) error }

// Close stops accepting, but for the connections that clients have opened already: Accept goes
// on until there are none. It does not block and may be called again.
func (l *listener) Close() (err error) {
	l.stop.Do(func() {
		l.until = time.Now().Add(lastCalls)
		l.closing.Store(true)
		d, ok := l.Listener.(deadliner)
		if !ok {
			err = l.Listener.Close()
			return
		}
		dropNewcomers(l.Listener)
		err = d.SetDeadline(time.Unix(1, 0)) // wakes Accept
	})
	return err
}

// dropNewcomers makes the kernel ignore new connections, which it would otherwise go on to accept
// in our name and reset when the listener closes. Their clients try again after a second, and
// find a listener that has been opened meanwhile, or none. Where the kernel cannot do that, as for
// multipath TCP, a connection may be lost between the last look into the queue and its end.
func dropNewcomers(ln net.Listener) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	filter := []unix.SockFilter{ // on TCP segments: drop those with SYN
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: 0x02},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
}

// Dismiss closes a listener that nobody will serve, because the service ends before it has begun. Clients
// that have connected meanwhile and sent something are told so with a 503, where closing alone would reset
// their connections. It blocks for some seconds at most, and for a moment where there are none.
func (c Config) Dismiss(ln net.Listener) error {
	l := newListener(ln, c, nil, slog.New(slog.DiscardHandler))
	l.max = math.MaxInt / 2 // they are no more than the kernel lets wait
	err := l.Close()
	var answers sync.WaitGroup
	for {
		nc, end := l.Accept()
		if end != nil {
			break
		}
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
	c.linger.Store(int64(lingerTime))
	_, _ = c.Conn.Write(refusal(errStopping, ""))
}

// drain blocks until no connection is left and none will come, or ctx ends. Connections that
// wait for a request end after grace.
func (l *listener) drain(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		l.retireIdle(time.Now().Add(-l.grace))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-l.ended:
			if l.count() == 0 {
				return
			}
		default:
		}
	}
}

// retireIdle ends the connections that have waited for a request since before then.
func (l *listener) retireIdle(then time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if since, ok := c.waitingSince(); ok && since.Before(then) {
			c.retire()
		}
	}
}

// waitAnswered blocks until no request is being worked on or answered, or ctx ends.
func (l *listener) waitAnswered(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(l.busy()) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// closeAll cuts every connection that is still open.
func (l *listener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.Conn.Close()
	}
}
