package api

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// How a connection ends whose client may still be sending: it has this long and this many
// bytes to notice the answer. Closed at once, the kernel would answer what still arrives with a
// reset, and many clients would never see why they were refused.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
)

// listener bounds the connections and knows which are open. The server's own bound answers in
// plain text, and has no way to close what is left at the end.
type listener struct {
	net.Listener
	max int

	closing sync.Once
	mu      sync.Mutex
	open    map[*conn]struct{}
}

func newListener(ln net.Listener, max int) *listener {
	return &listener{Listener: ln, max: max, open: make(map[*conn]struct{})}
}

// Accept returns the next connection. It answers those over the limit itself.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, listener: l}
		if l.add(c) {
			return c, nil
		}
		refuse(nc)
	}
}

func (l *listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.max {
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// Close stops accepting. It may be called again.
func (l *listener) Close() (err error) {
	l.closing.Do(func() { err = l.Listener.Close() })
	return err
}

// waitEmpty blocks until no connection is open or ctx ends.
func (l *listener) waitEmpty(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.count() > 0 {
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

// refuse answers a connection that is one too many. The answer fits the empty send buffer of a
// new connection, so this does not wait for the client.
func refuse(nc net.Conn) {
	o := outcomeOf(errTooManyConns)
	id := newRequestID()
	body := appendError(nil, o, id)
	b := []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n" + headerRequestID + ": ")
	b = append(append(b, id...), "\r\nRetry-After: "...)
	b = strconv.AppendInt(b, int64(o.retry), 10)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	b = append(b, body...)
	_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = nc.Write(b) // the connection is lost either way
	nc.Close()
}

// conn is an accepted connection.
type conn struct {
	net.Conn
	listener *listener
	linger   atomic.Bool // the client may still be sending when the connection is closed
	late     atomic.Bool // a read ended because its deadline passed
	closed   atomic.Bool
}

// Read remembers that the client was too slow: between two chunks of a body the HTTP server
// reports a timeout as something else.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.late.Store(true)
	}
	return n, err
}

// tooSlow says that the read deadline of the request's connection has passed.
func tooSlow(ctx *fasthttp.RequestCtx) bool {
	c, ok := ctx.Conn().(*conn)
	return ok && c.late.Load()
}

// Close ends the connection; see lingerTime. Safe to call more than once.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	defer c.listener.remove(c)
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger.Load() && half.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	return c.Conn.Close()
}
