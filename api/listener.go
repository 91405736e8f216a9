package api

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// overLimitTime is what a connection over the limit has for its only request.
	overLimitTime = 2 * time.Second
	// spareFiles are kept open, so that there is something to close when the process or the
	// machine has no file descriptor left for a connection that asks how the service is.
	spareFiles = 8
	// backOff is how long accepting pauses when there is nothing to accept a connection with.
	backOff = 50 * time.Millisecond
)

// reserve is how many connections are served beyond the limit at once: /health is answered,
// everything else refused. Those that are just being closed are among them.
func (c Config) reserve() int { return min(max(c.MaxConnections/16, 8), 64) }

// Descriptors is how many files a server may have open for its connections.
func (c Config) Descriptors() int { return c.MaxConnections + c.reserve() + spareFiles }

// listener bounds the connections and knows which are open. The server's own bound answers in plain text, gives up
// accepting when descriptors run out, and resets what it has not accepted when it closes.
type listener struct {
	net.Listener
	handed  bool          // see Handed
	immich  bool          // see ForImmich
	max     int           // connections in a regular place
	reserve int           // others
	refusal func() []byte // makes the whole answer to a connection beyond the reserve
	log     *slog.Logger
	tls     *tls.Config // nil: it is plain

	idleTime      time.Duration // a connection that has been idle for longer makes room for a new one
	handshakeTime time.Duration // for one of TLS
	overLimitTime time.Duration // one over the limit that is older makes room where the reserve is used up
	stopIdleTime  time.Duration // for how long one may be idle while the service stops, see stopIdleTime

	warned   time.Time                 // when the log was last told of trouble; of Accept
	accepted atomic.Int64              // when a connection came that is not dealt with yet, in Unix nanoseconds; 0: none
	admitted atomic.Uint64             // connections that were accepted, refused ones too
	refused  atomic.Uint64             // that there was no room for
	evicted  atomic.Uint64             // that made room for another one
	closed   atomic.Pointer[time.Time] // when accepting ends at the latest; nil: the listener is not closed
	ended    chan struct{}             // closed when Accept has returned its last error

	mu       sync.Mutex
	open     map[*conn]struct{}
	regular  int                  // open connections in a regular place
	networks map[netip.Prefix]int // how many of those each network of clients has
	spare    []*os.File           // up to spareFiles
}

func newListener(ln net.Listener, c Config, refusal func() []byte, log *slog.Logger) *listener {
	handed, isHanded := ln.(Handed)
	if isHanded {
		ln = handed.Listener
	}
	own, isOwn := ln.(ForImmich)
	if isOwn {
		ln = own.Listener
	}
	l := &listener{
		Listener: ln, handed: isHanded, immich: isOwn, max: c.MaxConnections, reserve: c.reserve(), refusal: refusal, log: log,
		idleTime: time.Second, overLimitTime: partingTime, stopIdleTime: stopIdleTime, handshakeTime: handshakeTime,
		ended: make(chan struct{}), open: make(map[*conn]struct{}), networks: make(map[netip.Prefix]int),
	}
	l.openSpares()
	return l
}

// Accept returns the next connection, or io.EOF after Close. What keeps a single connection from
// being accepted, or all of them for a while, does not end it.
func (l *listener) Accept() (net.Conn, error) {
	short := false // a spare descriptor has been given up for the next connection
	quiet := false // none has come since the deadline of the last call was set
	for {
		l.accepted.Store(0)
		nc, err := l.Listener.Accept()
		l.accepted.Store(time.Now().UnixNano())
		switch {
		case err == nil:
			if c := l.admit(nc, short); c != nil {
				return c, nil
			}
			l.refused.Add(1)
			answer := l.refusal
			if l.tls != nil {
				answer = alert
			}
			refuse(nc, answer())
			short, quiet = false, false
		case isAny(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM):
			l.warn(err)
			if short = l.makeRoom(); !short {
				time.Sleep(backOff)
			}
		case isAny(err, passing...):
			l.warn(err)
			time.Sleep(backOff)
		case l.closed.Load() == nil:
			return nil, l.end(err)
		case errors.Is(err, os.ErrDeadlineExceeded) && !quiet && time.Now().Before(*l.closed.Load()):
			quiet = true
			_ = l.Listener.(deadliner).SetDeadline(time.Now().Add(backlogQuiet)) // the one that has passed is Close's
		default:
			return nil, l.end(io.EOF)
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
	l.admitted.Add(1)
	c := &conn{Conn: nc, wire: nc, id: connIDs.Add(1), listener: l, network: networkOf(addressOf(nc.RemoteAddr())), opened: now, since: now}
	if !c.network.IsValid() {
		c.peer = peerOf(nc)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.regular >= l.max {
		l.retireLongest(now)
	}
	if l.regular >= l.max {
		l.evictFor(c.network)
	}
	over := short || l.regular >= l.max
	if len(l.open) >= l.max+l.reserve && !l.cut(now, over) {
		l.openSpares()
		return nil
	}
	if over {
		c.latest = now.Add(overLimitTime)
		c.holds.Store(int32(overLimit))
	} else {
		l.regular++
		l.networks[c.network]++
	}
	if l.tls != nil {
		if c.secure(l.tls); !over {
			c.latest = c.tls.until
		}
	}
	l.open[c] = struct{}{}
	return c
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	l.giveAway(c, retired)
	select {
	case <-l.ended:
	default:
		l.openSpares()
	}
}

// openSpares opens what is missing of the spare files, as far as it can. The caller holds mu, once there are connections.
func (l *listener) openSpares() {
	for len(l.spare) < spareFiles {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		l.spare = append(l.spare, f)
	}
}

// warn logs why connections are not accepted, at most every ten seconds.
func (l *listener) warn(err error) {
	if now := time.Now(); now.Sub(l.warned) > 10*time.Second {
		l.warned = now
		l.log.Error("connections cannot be accepted for the moment", "error", err, "open", l.count())
	}
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// stuckAccept is how long one connection may keep the loop that accepts them; the longest that it waits is a second.
const stuckAccept = 10 * time.Second

// stuck says that the loop does not come back for the next connection. One that waits in the kernel is well.
func (l *listener) stuck(now time.Time) bool {
	at := l.accepted.Load()
	return at != 0 && now.Sub(time.Unix(0, at)) > stuckAccept
}

// Accepting says that new connections are served, or would be if they came. Once Shutdown is called it means nothing.
func (s *Server) Accepting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return !slices.ContainsFunc(s.listeners, func(l *listener) bool { return l.stuck(now) })
}
