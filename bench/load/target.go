package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/client"
	"hailoclip/bench/report"
)

// maxAnswer bounds the body of an answer. That of a classification has a few kilobytes.
const maxAnswer = 4 << 20

// Target is a service under load. Safe for concurrent use.
type Target struct {
	base    string // without a slash at the end
	key     string // that the service wants; "": none
	bodies  *Bodies
	timeout time.Duration
	host    string // and port
	tls     bool
	http    *fasthttp.HostClient // for the load
	service *client.Client       // for what is asked beside it
	open    context.Context      // ends at Close, and with it every connection
	close   context.CancelFunc
}

// NewTarget prepares to ask the service at base, such as http://127.0.0.1:5000, with bodies and, unless
// it is "", a key. A request fails after timeout. Close it after use.
func NewTarget(base, key string, bodies *Bodies, timeout time.Duration) (*Target, error) {
	t := &Target{base: strings.TrimRight(base, "/"), key: key, bodies: bodies, timeout: timeout}
	t.open, t.close = context.WithCancel(context.Background())
	own := http.DefaultTransport.(*http.Transport).Clone()
	own.Proxy = nil // the load takes no detour either
	own.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) { return t.dial(addr, 0) }
	var err error
	t.service, err = client.New(base, client.Options{HTTP: &http.Client{Transport: own}, Key: key, Retries: -1, MaxAnswer: maxAnswer})
	if err != nil {
		t.close()
		return nil, err
	}
	u, _ := url.Parse(base) // as New has found
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	t.host, t.tls = net.JoinHostPort(u.Hostname(), port), u.Scheme == "https"
	t.http = t.newHTTP()
	return t, nil
}

// newHTTP makes connections for the load.
func (t *Target) newHTTP() *fasthttp.HostClient {
	name, _, _ := net.SplitHostPort(t.host)
	return &fasthttp.HostClient{
		Addr: t.host, IsTLS: t.tls,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name},
		MaxConns:  MaxClients + 8, ConnPoolStrategy: fasthttp.LIFO, DialTimeout: t.dial,
		MaxResponseBodySize: maxAnswer, ReadBufferSize: 16 << 10,
		NoDefaultUserAgentHeader: true,
		RetryIfErr:               func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
	}
}

// apart is the target for one client alone, who has connections of its own. The caller closes the idle ones; Close of t cuts all.
func (t *Target) apart() *Target {
	own := *t
	own.http = t.newHTTP()
	return &own
}

// dial opens a connection that Close cuts.
func (t *Target) dial(addr string, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 || timeout > t.timeout {
		timeout = t.timeout
	}
	c, err := (&net.Dialer{Timeout: timeout}).DialContext(t.open, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{c, context.AfterFunc(t.open, func() { c.Close() })}, nil
}

type conn struct {
	net.Conn
	forget func() bool // that Close cuts it
}

func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// Close cuts all connections: requests that are under way fail. Later requests fail too.
func (t *Target) Close() {
	t.close()
	t.http.CloseIdleConnections()
	t.service.Close()
}

// exchange is the memory for one request at a time and its answer.
type exchange struct {
	request  *fasthttp.Request
	response *fasthttp.Response
	body     []byte // of fresh prompts
	good     []byte // what a good answer to the last request contains
}

func (t *Target) newExchange() *exchange {
	x := &exchange{request: fasthttp.AcquireRequest(), response: fasthttp.AcquireResponse()}
	x.request.SetRequestURI(t.base + t.bodies.path)
	x.request.Header.SetMethod(fasthttp.MethodPost)
	if t.key != "" {
		x.request.Header.Set(fasthttp.HeaderAuthorization, "Bearer "+t.key)
	}
	x.request.Header.SetContentType(t.bodies.contentType)
	return x
}

// post sends the next body and reads the answer.
func (t *Target) post(x *exchange, timeout time.Duration) error {
	body, frame, good := t.bodies.get(&x.body)
	x.good = good
	x.request.SetBodyRaw(body)
	if frame != "" {
		x.request.Header.Set("X-Frame-Format", frame)
	}
	return t.http.DoTimeout(x.request, x.response, timeout)
}

// ask returns "" for a good answer to the next body, else the code under which it is counted: the
// status, or what happened to the connection, or codeBad.
func (t *Target) ask(x *exchange) string {
	if err := t.post(x, t.timeout); err != nil {
		return codeOf(err)
	}
	code := statusCode(x.response.StatusCode())
	if code == "" && !bytes.Contains(x.response.Body(), x.good) { // a quick look: checkAnswer would cost too much
		return codeBad
	}
	return code
}

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

// beside is the time for what is asked beside the load. The caller cancels it.
func (t *Target) beside() (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.open, min(t.timeout, 5*time.Second))
}

// describe is the URL and what the service says it is.
func (t *Target) describe() string {
	ctx, cancel := t.beside()
	defer cancel()
	h, err := t.service.Health(ctx)
	if err != nil || h.Service == "" {
		return t.base
	}
	text := fmt.Sprintf("%s %s, model %s, backend %s", h.Service, h.Version, h.Model, h.Backend)
	if h.RuntimeMode == "simulated" {
		text += " (simulated)"
	}
	return fmt.Sprintf("%s: %.200s", t.base, report.Printable(text))
}

// firstTimeout is what the first requests have at least, with perhaps a thousand prompts to encode.
const firstTimeout = time.Minute

// Check asks once with every body, and says what is wrong when the service does not do its
// main job. It also warms up the service. Close ends it early.
func (t *Target) Check(ctx context.Context) error {
	x, timeout := t.newExchange(), max(t.timeout, firstTimeout)
	for range t.bodies.list {
		err := t.post(x, timeout)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fasthttp.ErrTimeout):
			err = fmt.Errorf("a first request with %d prompts had no answer in %v", t.bodies.ask.Prompts, timeout)
		case err == nil:
			err = t.bodies.checkAnswer(statusCode(x.response.StatusCode()), x.response.Body(), x.good)
		}
		if err != nil {
			return fmt.Errorf("%s%s: %w", t.base, t.bodies.path, err)
		}
	}
	return nil
}
