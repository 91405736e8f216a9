package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// How a connection ends whose client may still be sending: it has this long and this many
// bytes to notice the answer. Closed at once, the kernel would answer what still arrives with a
// reset, and clients that send all before they read would never see why they were refused: with
// 1 MiB, Python's http.client and urllib met a broken pipe in place of a 413 of 17 MB, five times of
// five; with this much they see it up to 64 MiB. Bytes that are read in vain cost 0.6 ms of CPU a
// MiB, no more than those of a body that is welcome, and whoever sends them as much.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
	// A connection that ends between two requests has nothing to read; it only waits for a
	// request that crosses its end.
	partingTime = 250 * time.Millisecond
)

// phase is what a connection does.
type phase uint8

const (
	waiting phase = iota // for the first byte of a request
	serving
	leaving // it was waiting, and has been told to go
)

var connIDs atomic.Uint64

// conn is an accepted connection. The HTTP server owns it; retire and hungUp may be called by others.
type conn struct {
	net.Conn
	id       uint64 // never used again
	listener *listener
	network  netip.Prefix // of the client, see networkOf
	opened   time.Time
	surplus  bool // one too many: only /health is answered
	regular  bool // it counts among listener.max; guarded by listener.mu

	linger atomic.Int64 // time.Duration: the client may still be sending when the connection is closed
	late   atomic.Bool  // a read ended because its deadline passed
	last   atomic.Bool  // the request that comes next, or is being served, is the last one
	pushed atomic.Bool  // out by evict
	closed atomic.Bool
	cancel atomic.Pointer[context.CancelCauseFunc] // ends the request that is being worked on; nil between requests

	mu       sync.Mutex
	phase    phase
	since    time.Time // when it began to wait
	deadline time.Time // of reads, as the HTTP server wants it
	latest   time.Time // no read ends later; zero: no bound
}

// connOf returns the connection of a request; nil in a test that calls a handler without one.
func connOf(ctx *fasthttp.RequestCtx) *conn {
	c, _ := ctx.Conn().(*conn)
	return c
}

// connID tells the connections apart that requests come on; 0 where there is none.
func connID(ctx *fasthttp.RequestCtx) uint64 {
	if c := connOf(ctx); c != nil {
		return c.id
	}
	return 0
}

// tooSlow says that the read deadline of the request's connection has passed.
func tooSlow(ctx *fasthttp.RequestCtx) bool {
	c := connOf(ctx)
	return c != nil && c.late.Load()
}

// crowdedOut says that the connection did not have the usual time to send its request, because there are too many.
func crowdedOut(ctx *fasthttp.RequestCtx) bool {
	c := connOf(ctx)
	return c != nil && (c.surplus || c.pushed.Load())
}

// linger makes the connection wait for a client that is still sending, once it is closed.
func linger(ctx *fasthttp.RequestCtx) {
	if c := connOf(ctx); c != nil {
		d := lingerTime
		if c.pushed.Load() { // its place has been given away
			d = partingTime
		}
		c.linger.Store(int64(d))
	}
}

// Read remembers that the client was too slow: between two chunks of a body the HTTP server
// reports a timeout as something else. For a connection that has been told to go it returns
// io.EOF, unless a request has come.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	timedOut := errors.Is(err, os.ErrDeadlineExceeded)
	if timedOut && c.toldToGo() {
		if n = readNow(c.Conn, b); n == 0 {
			return 0, io.EOF
		}
		err, timedOut = nil, false
	}
	if n > 0 {
		c.enter(serving)
	}
	if timedOut {
		c.late.Store(true)
	}
	return n, err
}

// toldToGo says whether a read ended because of retire, and makes another one possible.
func (c *conn) toldToGo() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase == leaving && c.Conn.SetReadDeadline(time.Time{}) == nil
}

// readNow reads what has arrived, without waiting for more, and returns its length.
func readNow(nc net.Conn, b []byte) (n int) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Read(func(fd uintptr) bool {
		n, _ = unix.Read(int(fd), b) // nothing there is EAGAIN
		return true
	})
	return max(n, 0)
}

// enter changes the phase to waiting or serving. A connection that serves after all has its deadline again.
func (c *conn) enter(p phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == serving && c.phase == leaving {
		_ = c.Conn.SetReadDeadline(c.deadline) // fails on a closed connection, and so will the next read
	}
	if c.phase = p; p == waiting {
		c.since = time.Now()
		c.cancel.Store(nil)
	}
}

// SetReadDeadline is for the HTTP server.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.latest.IsZero() && (t.IsZero() || t.After(c.latest)) {
		t = c.latest
	}
	c.deadline = t
	if c.phase == leaving {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// waitingSince returns since when the connection has waited for a request, false if it does not.
func (c *conn) waitingSince() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since, c.phase == waiting
}

// retire ends the connection if it waits, and says whether it did. It does not block. A request
// that has arrived is still answered; one that crosses the end sees it closed, not reset.
func (c *conn) retire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != waiting {
		return false
	}
	c.phase = leaving
	c.last.Store(true)
	c.linger.CompareAndSwap(0, int64(partingTime))
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes the read
	return true
}

// evict ends the connection if its request is still being sent, and says whether it is. It does not block. The
// request is answered all the same when all of it has arrived meanwhile.
func (c *conn) evict() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != serving || c.cancel.Load() != nil || c.pushed.Load() {
		return false
	}
	c.pushed.Store(true)
	c.last.Store(true)
	c.latest = time.Unix(1, 0)
	_ = c.Conn.SetReadDeadline(c.latest)
	return true
}

// hungUp says that the client has closed the connection, or at least its side of it. It neither
// blocks nor takes anything from the connection.
func (c *conn) hungUp() (gone bool) {
	nc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := nc.SyscallConn()
	if err != nil {
		return true // closed
	}
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n > 0 // POLLERR and POLLHUP come unasked
	})
	return gone || err != nil
}

// Close ends the connection; see lingerTime. Safe to call more than once.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.cancel.Store(nil)
	defer c.listener.remove(c)
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if d := time.Duration(c.linger.Load()); ok && d > 0 && half.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(d))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	return c.Conn.Close()
}
