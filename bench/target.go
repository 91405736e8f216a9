package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// maxAnswer bounds the body of an answer. That of a classification has a few kilobytes.
const maxAnswer = 4 << 20

// Target is a service under load. Safe for concurrent use.
type Target struct {
	base    string // without a slash at the end
	bodies  *Bodies
	timeout time.Duration
	http    *fasthttp.HostClient

	cut     context.Context // ends at Close, and with it what is being dialled
	cutDial context.CancelFunc
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	closed  bool
}

// NewTarget prepares to ask the service at base, such as http://127.0.0.1:5000, with bodies. A
// request fails after timeout. Close it after use.
func NewTarget(base string, bodies *Bodies, timeout time.Duration) (*Target, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("url %q is not of the form http://HOST:PORT or https://HOST:PORT, with a path at most", base)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	t := &Target{base: strings.TrimRight(base, "/"), bodies: bodies, timeout: timeout, conns: map[net.Conn]struct{}{}}
	t.cut, t.cutDial = context.WithCancel(context.Background())
	t.http = &fasthttp.HostClient{
		Addr: net.JoinHostPort(u.Hostname(), port), IsTLS: u.Scheme == "https",
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()},
		MaxConns:  MaxClients + 8, ConnPoolStrategy: fasthttp.LIFO, DialTimeout: t.dial,
		MaxResponseBodySize: maxAnswer, ReadBufferSize: 16 << 10,
		NoDefaultUserAgentHeader: true, DisableHeaderNamesNormalizing: false,
		RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
	}
	return t, nil
}

// dial keeps hold of the connection, so that Close can cut it.
func (t *Target) dial(addr string, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 || timeout > t.timeout {
		timeout = t.timeout
	}
	dialer := net.Dialer{Timeout: timeout}
	c, err := dialer.DialContext(t.cut, "tcp", addr)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	t.conns[c] = struct{}{}
	return &heldConn{Conn: c, target: t}, nil
}

type heldConn struct {
	net.Conn
	target *Target
}

func (c *heldConn) Close() error {
	c.target.mu.Lock()
	delete(c.target.conns, c.Conn)
	c.target.mu.Unlock()
	return c.Conn.Close()
}

// Close cuts all connections: requests that are under way fail. Later requests fail too.
func (t *Target) Close() {
	t.cutDial()
	t.mu.Lock()
	t.closed = true
	conns := t.conns
	t.conns = map[net.Conn]struct{}{}
	t.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	t.http.CloseIdleConnections()
}

// exchange is the memory for one request at a time and its answer.
type exchange struct {
	request  *fasthttp.Request
	response *fasthttp.Response
}

func (t *Target) newExchange() *exchange {
	x := &exchange{fasthttp.AcquireRequest(), fasthttp.AcquireResponse()}
	x.request.SetRequestURI(t.base + t.bodies.path)
	x.request.Header.SetMethod(fasthttp.MethodPost)
	x.request.Header.SetContentType(t.bodies.contentType)
	return x
}

// ask sends the next body and reads the answer. It returns "" for a good answer, else the code
// under which it is counted: the status, or what happened to the connection, or codeBad.
func (t *Target) ask(x *exchange) string {
	b := t.bodies.get()
	x.request.SetBodyRaw(b.bytes)
	err := t.http.DoTimeout(x.request, x.response, t.timeout)
	x.request.SetBodyRaw(nil)
	t.bodies.put(b)
	if err != nil {
		return codeOf(err)
	}
	code := statusCode(x.response.StatusCode())
	if code == "" && !t.bodies.looksGood(x.response.Body()) {
		return codeBad
	}
	return code
}

// timing is the Server-Timing header of the last answer.
func (x *exchange) timing() []byte { return x.response.Header.Peek("Server-Timing") }

func statusCode(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status < 100 || status > 599:
		return "bad status"
	}
	return strconv.Itoa(status)
}

// Codes of requests that got no answer.
const (
	codeTimeout = "timeout"
	codeRefused = "refused"
	codeClosed  = "closed"     // the connection, before the whole answer
	codeLate    = "late"       // not sent: every connection was busy until the request had timed out
	codeBad     = "bad answer" // a good status, and not what was asked for
	codeOther   = "other"
)

func codeOf(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, fasthttp.ErrTimeout), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return codeTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return codeRefused
	case errors.Is(err, fasthttp.ErrConnectionClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return codeClosed
	}
	return codeOther
}

// get reads a small document of the service into memory.
func (t *Target) get(path string, limit int) (status int, body []byte, err error) {
	x := t.newExchange()
	x.request.Header.SetMethod(fasthttp.MethodGet)
	x.request.SetRequestURI(t.base + path)
	if err := t.http.DoTimeout(x.request, x.response, min(t.timeout, 5*time.Second)); err != nil {
		return 0, nil, err
	}
	if body = x.response.Body(); len(body) > limit {
		return 0, nil, fmt.Errorf("%s: an answer of %d bytes, more than %d", path, len(body), limit)
	}
	return x.response.StatusCode(), body, nil
}

// firstTimeout is what the first requests have at least: they may bring a thousand prompts that
// the service has to encode, which it remembers then.
const firstTimeout = time.Minute

// Check asks once with every body, and says what is wrong when the service does not do its
// main job. It also warms up the service. Close ends it early.
func (t *Target) Check(ctx context.Context) error {
	x := t.newExchange()
	timeout := max(t.timeout, firstTimeout)
	for range t.bodies.Pictures() {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := t.bodies.get()
		x.request.SetBodyRaw(b.bytes)
		err := t.http.DoTimeout(x.request, x.response, timeout)
		t.bodies.put(b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fasthttp.ErrTimeout) {
			return fmt.Errorf("%s%s: a first request with %d prompts had no answer in %v", t.base, t.bodies.path, t.bodies.Prompts(), timeout)
		}
		if err != nil {
			return fmt.Errorf("%s%s: %w", t.base, t.bodies.path, err)
		}
		if code := statusCode(x.response.StatusCode()); code != "" {
			return fmt.Errorf("%s%s: status %s: %.300q", t.base, t.bodies.path, code, x.response.Body())
		}
		if err := t.bodies.checkAnswer(x.response.Body()); err != nil {
			return fmt.Errorf("%s%s: %w: %.300q", t.base, t.bodies.path, err, x.response.Body())
		}
	}
	return nil
}
