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
	"time"

	"github.com/valyala/fasthttp"
)

// How a connection ends whose client may still be sending: it has this long and this many bytes to notice the answer.
// Closed at once, the kernel would answer what still arrives with a reset, and clients that send all before they read
// would never see why they were refused: with 1 MiB, Python's http.client and urllib met a broken pipe in place of a
// 413 of 17 MB, five times of five; with this much they see it up to 64 MiB. Bytes that are read in vain cost 0.6 ms of
// CPU a MiB, no more than those of a body that is welcome, and whoever sends them as much.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
	// A connection that ends between two requests has nothing to read; it only waits for a
	// request that crosses its end. One whose place has been given away gets no longer either.
	partingTime = 250 * time.Millisecond
)

// phase is what a connection does.
type phase uint8

const (
	idle      phase = iota // it waits for the first byte of a request
	receiving              // a request comes, or is answered without the engine
	working                // the request is complete, and the engine has it, or it is being answered
	streaming              // frames come, for as long as the client likes; it is never taken for idle or slow
	leaving                // it was idle, and has been told to go
	closing                // it has been closed by the HTTP server; its client may still be sending
)

// place is what a connection has of the places for Config.MaxConnections. All but regular ones serve one more request
// at most.
type place int32

const (
	regular   place = iota // one of them
	overLimit              // none: only probePaths are answered, for which it has little time
	retired                // its place was given away while it was idle
	evicted                // its place was given away while a request was coming
)

var connIDs atomic.Uint64

// conn is an accepted connection. The HTTP server owns it; makeWay may be called by others.
type conn struct {
	net.Conn          // what HTTP is spoken on: wire, or TLS on it
	wire     net.Conn // as it was accepted
	tls      *secured // nil: it is plain
	id       uint64   // never used again
	listener *listener
	network  netip.Prefix // of the client, see networkOf
	peer     string       // who is at the other end of a Unix socket, see peerOf; "": it is none
	opened   time.Time

	holds   atomic.Int32 // its place; changed with listener.mu held
	late    atomic.Bool  // a read ended because its deadline passed
	lingers atomic.Bool  // the client may still be sending when the connection is closed

	mu       sync.Mutex
	phase    phase
	since    time.Time               // when it became idle
	cancel   context.CancelCauseFunc // ends the request, in phases working and streaming; nil: it needs no end
	deadline time.Time               // of reads, as the HTTP server wants it
	latest   time.Time               // no read ends later; zero: no bound
}

// noConn is the connection of requests in tests that call a handler without one.
var noConn conn

// connOf returns the connection of a request.
func connOf(ctx *fasthttp.RequestCtx) *conn {
	if c, ok := ctx.Conn().(*conn); ok {
		return c
	}
	return &noConn
}

func (c *conn) place() place { return place(c.holds.Load()) }

// work says that the request is complete, and how to end it.
func (c *conn) work(cancel context.CancelCauseFunc) { c.enter(working, cancel) }

// stream says that frames come, and how to end that. That the client has closed its side is for the reader of the frames to
// see, after the last of them.
func (c *conn) stream(cancel context.CancelCauseFunc) { c.enter(streaming, cancel) }

// enter begins a phase, unless the connection is closed already.
func (c *conn) enter(p phase, cancel context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == closing {
		cancel(net.ErrClosed)
		return
	}
	c.phase, c.cancel = p, cancel
}

// connState keeps the phase of a connection.
func connState(nc net.Conn, state fasthttp.ConnState) {
	c, ok := nc.(*conn)
	switch {
	case !ok:
	case state == fasthttp.StateActive:
		c.receive()
	case state == fasthttp.StateIdle:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.phase, c.since, c.cancel = idle, time.Now(), nil
	}
}

// receive says that a request comes, which gives a connection that was to leave its deadline again.
func (c *conn) receive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == leaving {
		_ = c.Conn.SetReadDeadline(c.bounded()) // fails on a closed connection, and so will the next read
	}
	if c.phase == leaving || c.phase == idle {
		c.phase = receiving
	}
}

// Read remembers that the client was too slow: between two chunks of a body the HTTP server reports a timeout as
// something else. For a connection that has been told to go it returns io.EOF, unless a request has come.
func (c *conn) Read(b []byte) (int, error) {
	if c.tls != nil && !c.tls.ready && !c.shake() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if !c.toldToGo() {
			c.late.Store(true)
			return n, err
		}
		if n, err = c.readNow(b), nil; n == 0 {
			return 0, io.EOF
		}
	}
	if n > 0 {
		c.receive()
	}
	return n, err
}

// toldToGo says whether a read ended because of makeWay, and makes another one possible.
func (c *conn) toldToGo() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase == leaving && c.Conn.SetReadDeadline(time.Time{}) == nil
}

// SetReadDeadline is for the HTTP server.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.phase == leaving {
		return nil
	}
	return c.Conn.SetReadDeadline(c.bounded())
}

// bounded is the deadline of reads. The caller holds mu.
func (c *conn) bounded() time.Time {
	if t := c.deadline; c.latest.IsZero() || !t.IsZero() && t.Before(c.latest) {
		return t
	}
	return c.latest
}

// doing returns the phase of the connection, since when it is idle, if it is, and what ends its request, if anything does.
func (c *conn) doing() (phase, time.Time, context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase, c.since, c.cancel
}

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// makeWay ends the connection if it is idle, or, to evict it, if it has a regular place and its request is still coming or
// its client still sending after it. It says whether it does, and does not block. A request that has arrived is still
// answered; one that crosses the end sees the connection closed, not reset. The caller holds listener.mu.
func (c *conn) makeWay(evict bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.phase == idle:
		c.phase = leaving
		c.listener.giveAway(c, retired)
	case evict && c.place() == regular && (c.phase == receiving || c.phase == closing):
		c.listener.giveAway(c, evicted)
		c.latest = past
	default:
		return false
	}
	_ = c.Conn.SetReadDeadline(past)
	return true
}

// Close ends the connection, see lingerTime, and what goes on for it. Safe to call more than once, and by anybody.
func (c *conn) Close() error {
	c.mu.Lock()
	was, cancel := c.phase, c.cancel
	c.phase, c.cancel = closing, nil
	c.mu.Unlock()
	if was == closing {
		return net.ErrClosed
	}
	if cancel != nil {
		cancel(net.ErrClosed)
	}
	defer c.listener.remove(c)
	var d time.Duration
	switch {
	case c.lingers.Load() && c.place() != evicted:
		d = lingerTime
	case c.lingers.Load(), was == leaving:
		d = partingTime
	}
	c.sayEnd()
	half, ok := c.wire.(interface{ CloseWrite() error })
	if ok && d > 0 && half.CloseWrite() == nil {
		_ = c.wire.SetReadDeadline(time.Now().Add(d))
		_, _ = io.CopyN(io.Discard, c.wire, lingerBytes)
	}
	return c.wire.Close()
}
