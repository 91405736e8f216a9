package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
)

// ForwardsAtOnce is how many requests are with the other server at once, for all callers.
const ForwardsAtOnce = 64

const (
	forwardsOfOne  = 48              // at once, of one address
	upstreamDial   = 5 * time.Second // to connect, and as much for a handshake of TLS
	upstreamHeader = 64 << 10        // bytes of the head of an answer
	maxHops        = 8               // that a request may have made before
)

// newUpstreamClient makes what asks other servers. Each request has a connection of its own: one that is kept may be closed by the
// server just when it is used, and nobody would send the request again.
func newUpstreamClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // whatever the environment says
			DialContext:            (&net.Dialer{Timeout: upstreamDial}).DialContext,
			TLSHandshakeTimeout:    upstreamDial,
			MaxResponseHeaderBytes: upstreamHeader,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// UpstreamAnswers asks the server at compat.immich.upstream whether it is there, as Immich does. It blocks until that is known or ctx
// ends.
func UpstreamAnswers(ctx context.Context, upstream string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(upstream, "/")+"/ping", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := newUpstreamClient().Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", request.URL, answer.Status)
	}
	return nil
}

// forward has compat.immich.upstream answer the request: it gets the body as it came and, of the headers, those that say what that is
// and where it has been, so no key of ours. Its answer is passed on with its status once all of it is there, so that a server that
// breaks off is told as an error. It blocks until the caller's turn has come and then until that, or until the deadline of the request.
func (r *request) forward() error {
	s := r.server
	if r.compat.decoded {
		return fail(errInvalidRequest, "A form that is for another server must not have escapes in the names of its parts")
	}
	body := &sentBody{rest: r.body}
	defer func() { _ = body.Close() }()
	ask, err := http.NewRequestWithContext(r.work, http.MethodPost, strings.TrimRight(r.rules.compat.Immich.Upstream, "/")+r.dialects.path, body)
	if err != nil {
		return r.upstreamFailed(err)
	}
	ask.ContentLength = int64(len(r.body))
	for _, name := range [...]string{fasthttp.HeaderContentType, fasthttp.HeaderAccept, fasthttp.HeaderUserAgent, fasthttp.HeaderVia} {
		values := r.ctx.Request.Header.PeekAll(name)
		value := string(bytes.Join(values, []byte(", ")))
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return fail(errInvalidRequest, "The header %s has control characters", name)
		}
		if len(values) > 0 {
			ask.Header.Set(name, value)
		}
	}
	via := ask.Header.Get(fasthttp.HeaderVia)
	if strings.Contains(via, s.pseudonym) || strings.Count(via, ",") >= maxHops-1 {
		return errLoop
	}
	ask.Header.Set(fasthttp.HeaderVia, strings.TrimPrefix(via+", 1.1 "+s.pseudonym, ", "))
	ask.Header.Set(headerRequestID, r.id)
	done, err := s.forwards.take(r.work, r.caller)
	if err != nil {
		return pipeline.Late(r.work)
	}
	defer done()
	answer, err := s.upstream.Do(ask)
	if err != nil {
		return r.upstreamFailed(err)
	}
	defer answer.Body.Close()
	if code := answer.StatusCode; code < 200 || code >= 300 && code < 400 || code > 599 {
		return r.upstreamFailed(fmt.Errorf("it has answered %s, which is not passed on", answer.Status))
	}
	a, err := r.newAnswer(int(min(max(answer.ContentLength+1, 0), largestPooled))) // one more: to see the end
	if err != nil {
		return err
	}
	defer a.unlessSent()
	if err := a.fill(answer.Body, s.cfg.batchBody()); err != nil {
		return r.upstreamFailed(err)
	}
	r.ctx.SetStatusCode(answer.StatusCode)
	if coding := answer.Header.Get(fasthttp.HeaderContentEncoding); coding != "" {
		r.ctx.Response.Header.Set(fasthttp.HeaderContentEncoding, coding)
	}
	return a.send(answer.Header.Get(fasthttp.HeaderContentType))
}

// upstreamFailed is what a client gets for an error of the other server.
func (r *request) upstreamFailed(err error) error {
	switch {
	case r.work.Err() != nil:
		return pipeline.Late(r.work)
	case errors.Is(err, errBodyMemory):
		return err
	}
	return fmt.Errorf("%w: %w", errUpstream, err)
}

// sentBody is a body that a client of net/http sends, which may go on reading it for a while after it has the answer: not after Close.
type sentBody struct {
	mu   sync.Mutex
	rest []byte
	over bool
}

func (b *sentBody) Read(to []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch n = copy(to, b.rest); {
	case b.over:
		return 0, net.ErrClosed
	case n == 0 && len(to) > 0:
		return 0, io.EOF
	}
	b.rest = b.rest[n:]
	return n, nil
}

func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest, b.over = nil, true
	return nil
}
