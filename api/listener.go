package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// reserve is how many connections are served beyond the limit at once: /health is answered,
	// everything else refused. Those that are just being closed are among them.
	reserve = 64
	// surplusTime is what a surplus connection has for its only request.
	surplusTime = 2 * time.Second
	// spareFiles are kept open, so that there is something to close when the process or the
	// machine has no file descriptor left for a connection that asks how the service is.
	spareFiles = 8
	// backOff is how long accepting pauses when there is nothing to accept a connection with.
	backOff = 50 * time.Millisecond
	// lastCall is how long a closed listener must have had no connection in its queue before it
	// is really closed. It is time for handshakes that had begun.
	lastCall = 100 * time.Millisecond
	// idleGrace is how long a connection may wait for its next request while the service stops.
	// A client that asks again and again gets an answer that says so, and not a closed connection.
	idleGrace = 500 * time.Millisecond
)

// Descriptors is how many files a server with that limit may have open for its connections.
func (c Config) Descriptors() int { return c.MaxConnections + reserve + spareFiles }

// listener bounds the connections and knows which are open. The server's own bound answers in
// plain text, gives up accepting when descriptors run out, and resets what it has not accepted
// when it closes.
type listener struct {
	net.Listener
	max     int
	refusal func() []byte // makes the whole answer to a connection beyond the reserve
	yield   time.Duration // a connection that has waited for longer for a request makes room for a new one
	log     *slog.Logger

	stop    sync.Once
	closing atomic.Bool
	ended   chan struct{} // closed when Accept has returned its last error

	mu        sync.Mutex
	open      map[*conn]struct{}
	regular   int        // open connections that count among max
	spare     []*os.File // up to spareFiles
	complaint time.Time  // the last one in the log
}

func newListener(ln net.Listener, max int, refusal func() []byte, log *slog.Logger) *listener {
	l := &listener{
		Listener: ln, max: max, refusal: refusal, yield: time.Second, log: log,
		ended: make(chan struct{}), open: make(map[*conn]struct{}),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keepSpares()
	return l
}

// Accept returns the next connection, or io.EOF after Close. What keeps a single connection from
// being accepted, or all of them for a while, does not end it.
func (l *listener) Accept() (net.Conn, error) {
	short := false // a spare descriptor has been given up for the next connection
	quiet := false // none has come since the deadline of the last call was set
	for {
		nc, err := l.Listener.Accept()
		switch {
		case err == nil:
			if c := l.admit(nc, short); c != nil {
				return c, nil
			}
			refuse(nc, l.refusal())
			short, quiet = false, false
		case isAny(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM):
			l.complain(err)
			if short = l.makeRoom(); !short {
				time.Sleep(backOff)
			}
		case isAny(err, passing...):
			l.complain(err)
			time.Sleep(backOff)
		case l.closing.Load() && errors.Is(err, os.ErrDeadlineExceeded) && !quiet:
			quiet = true
			_ = l.Listener.(deadliner).SetDeadline(time.Now().Add(lastCall)) // the one that has passed is Close's
		case l.closing.Load():
			return nil, l.end(io.EOF)
		default:
			return nil, l.end(err)
		}
	}
}

// passing are errors of one connection or of the network, as accept(2) lists them.
var passing = []error{
	unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.EINTR, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN,
	unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH, unix.ETIMEDOUT,
}

func isAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// deadliner is what a listener needs to end without resetting connections.
type deadliner interface{ SetDeadline(t time.Time) error }

// Close stops accepting, but for the connections that clients have opened already: Accept goes
// on until there are none. It does not block and may be called again.
func (l *listener) Close() (err error) {
	l.stop.Do(func() {
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
// find a listener that has been opened meanwhile, or none. Where the kernel cannot do that, a
// connection may be lost between the last look into the queue and its end.
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

// end closes the listener and all that it keeps.
func (l *listener) end(err error) error {
	_ = l.Listener.Close() // it may be closed
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.spare {
		f.Close()
	}
	l.spare = nil
	close(l.ended)
	return err
}

// admit makes a connection of what was accepted; short says that it has a descriptor which is
// needed back soon. It returns nil when there is no room for one.
func (l *listener) admit(nc net.Conn, short bool) *conn {
	now := time.Now()
	c := &conn{Conn: nc, id: connIDs.Add(1), listener: l, since: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.max+reserve {
		l.keepSpares()
		return nil
	}
	if l.regular >= l.max {
		l.retireLongest(now)
	}
	if c.surplus = short || l.regular >= l.max; c.surplus {
		c.latest = now.Add(surplusTime)
	} else {
		c.regular = true
		l.regular++
	}
	l.open[c] = struct{}{}
	return c
}

// makeRoom frees a descriptor for one connection, and ends another one that only waits. It
// returns false when there is none to free.
func (l *listener) makeRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retireLongest(time.Now())
	if len(l.spare) == 0 {
		return false
	}
	last := len(l.spare) - 1
	l.spare[last].Close()
	l.spare = l.spare[:last]
	return true
}

// retireLongest ends the connection that has waited longest for a request, if that is longer
// than yield. The caller holds mu.
func (l *listener) retireLongest(now time.Time) {
	var longest *conn
	oldest := now.Add(-l.yield)
	for c := range l.open {
		if since, ok := c.waitingSince(); ok && !since.After(oldest) {
			longest, oldest = c, since
		}
	}
	if longest != nil && longest.retire() {
		l.discount(longest)
	}
}

// discount gives the place of a connection to another one. The caller holds mu.
func (l *listener) discount(c *conn) {
	if c.regular {
		c.regular = false
		l.regular--
	}
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	l.discount(c)
	select {
	case <-l.ended:
	default:
		l.keepSpares()
	}
}

// keepSpares opens what is missing of the spare files, as far as it can. The caller holds mu.
func (l *listener) keepSpares() {
	for len(l.spare) < spareFiles {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		l.spare = append(l.spare, f)
	}
}

// complain logs why connections are not accepted, at most every ten seconds.
func (l *listener) complain(err error) {
	if now := time.Now(); now.Sub(l.complaint) > 10*time.Second {
		l.complaint = now
		l.log.Error("connections cannot be accepted for the moment", "error", err, "open", l.count())
	}
}

// drain blocks until no connection is left and none will come, or ctx ends. Connections that
// wait for a request end after idleGrace.
func (l *listener) drain(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		l.retireIdle(time.Now().Add(-idleGrace))
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

// busy lists the connections with a request that is being worked on or answered.
func (l *listener) busy() (busy []*conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if c.cancel.Load() != nil {
			busy = append(busy, c)
		}
	}
	return busy
}

// cancelGone cancels the requests that are being worked on for clients that are gone.
func (l *listener) cancelGone() {
	for _, c := range l.busy() {
		// Loaded before the look: the next request of the connection is not the one that is gone.
		if cancel := c.cancel.Load(); cancel != nil && c.hungUp() {
			(*cancel)(errGone)
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

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// closeAll cuts every connection that is still open.
func (l *listener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.Conn.Close()
	}
}

// refuse answers a connection that there is no room for and closes it. The answer fits the empty
// send buffer of a new connection, and of what the client has sent only that is read which has
// arrived, so it does not wait for the client.
func refuse(nc net.Conn, answer []byte) {
	defer nc.Close()
	_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := nc.Write(answer); err != nil {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, _ = io.CopyN(io.Discard, nc, 1<<20)
}
