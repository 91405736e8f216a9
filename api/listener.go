package api

import (
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
	// surplusTime is what a surplus connection has for its only request.
	surplusTime = 2 * time.Second
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

// listener bounds the connections and knows which are open. The server's own bound answers in
// plain text, gives up accepting when descriptors run out, and resets what it has not accepted
// when it closes.
type listener struct {
	net.Listener
	max     int
	reserve int
	refusal func() []byte // makes the whole answer to a connection beyond the reserve
	yield   time.Duration // a connection that has waited for longer for a request makes room for a new one
	hurry   time.Duration // a surplus connection that is older makes room where the reserve is used up
	grace   time.Duration // for how long one may wait for a request while the service stops, see idleGrace
	log     *slog.Logger

	complaint time.Time // the last one in the log; of Accept

	accepted atomic.Int64 // when a connection came that is not dealt with yet, in Unix nanoseconds; 0: none

	stop    sync.Once
	closing atomic.Bool
	until   time.Time     // when a closed listener stops to accept at the latest; set before closing
	ended   chan struct{} // closed when Accept has returned its last error

	mu       sync.Mutex
	open     map[*conn]struct{}
	regular  int                  // open connections that count among max
	networks map[netip.Prefix]int // how many of those each network of clients has
	spare    []*os.File           // up to spareFiles
}

func newListener(ln net.Listener, c Config, refusal func() []byte, log *slog.Logger) *listener {
	l := &listener{
		Listener: ln, max: c.MaxConnections, reserve: c.reserve(), refusal: refusal, yield: time.Second, hurry: partingTime, grace: idleGrace, log: log,
		ended: make(chan struct{}), open: make(map[*conn]struct{}), networks: make(map[netip.Prefix]int),
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
		l.accepted.Store(0)
		nc, err := l.Listener.Accept()
		l.accepted.Store(time.Now().UnixNano())
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
		case l.closing.Load() && errors.Is(err, os.ErrDeadlineExceeded) && !quiet && time.Now().Before(l.until):
			quiet = true
			_ = l.Listener.(deadliner).SetDeadline(time.Now().Add(lastCall)) // the one that has passed is Close's
		case l.closing.Load():
			return nil, l.end(io.EOF)
		default:
			return nil, l.end(err)
		}
	}
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
	c := &conn{Conn: nc, id: connIDs.Add(1), listener: l, network: networkOf(nc.RemoteAddr()), opened: now, since: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.regular >= l.max {
		l.retireLongest(now)
	}
	if l.regular >= l.max {
		l.evictFor(c.network)
	}
	c.surplus = short || l.regular >= l.max
	if len(l.open) >= l.max+l.reserve && !l.cut(now, c.surplus) {
		l.keepSpares()
		return nil
	}
	if c.surplus {
		c.latest = now.Add(surplusTime)
		c.last.Store(true)
	} else {
		c.regular = true
		l.regular++
		l.networks[c.network]++
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

// evictFor gives a place of the network with most connections to another one that has fewer: it ends the one that
// was opened first of those whose request is still being sent. Slow senders hold no place that others need, however
// many they are. The caller holds mu.
func (l *listener) evictFor(network netip.Prefix) {
	most, greedy := l.networks[network]+1, netip.Prefix{}
	for n, count := range l.networks {
		if count > most {
			most, greedy = count, n
		}
	}
	if most == l.networks[network]+1 {
		return
	}
	var first []*conn
	for c := range l.open {
		if c.regular && c.network == greedy {
			first = append(first, c)
		}
	}
	slices.SortFunc(first, func(a, b *conn) int { return a.opened.Compare(b.opened) })
	for _, c := range first {
		if c.evict() || c.retire() {
			l.discount(c)
			return
		}
	}
}

// cut ends at once the connection that was opened first of those that can be spared, and says whether there was one:
// the surplus ones whose client has had the time for a request, if it is for another surplus one; otherwise all surplus
// ones and those that have lost their place. The caller holds mu.
func (l *listener) cut(now time.Time, surplus bool) bool {
	oldest := now
	if surplus {
		oldest = now.Add(-l.hurry)
	}
	var first *conn
	for c := range l.open {
		if (c.surplus || !c.regular && !surplus) && !c.opened.After(oldest) {
			first, oldest = c, c.opened
		}
	}
	if first == nil {
		return false
	}
	first.Conn.Close()
	delete(l.open, first)
	return true
}

// discount gives the place of a connection to another one. The caller holds mu.
func (l *listener) discount(c *conn) {
	if c.regular {
		c.regular = false
		l.regular--
		if l.networks[c.network]--; l.networks[c.network] == 0 {
			delete(l.networks, c.network)
		}
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

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
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
	b := make([]byte, 16<<10)
	for range (1 << 20) / len(b) { // left unread, it would make a reset of the end
		if readNow(nc, b) == 0 {
			return
		}
	}
}
