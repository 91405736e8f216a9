package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hailoclip/api/bulk"
	"hailoclip/api/outbound"
	"hailoclip/api/stream/source"
)

const (
	maxAddress = 4096 // bytes
	atOnce     = 16   // requests under way
	tries      = 4    // of a request
	firstPause = 500 * time.Millisecond
	longPause  = 30 * time.Second // at most, also where a server asks for more
	imageTime  = 30 * time.Second // for a try
	pageTime   = 5 * time.Minute
)

// hosts asks web servers. Safe for concurrent use.
type hosts struct {
	o      Options
	client *http.Client
	user   *url.Userinfo           // sent with each request; nil: none
	within atomic.Pointer[url.URL] // redirects stay below it; nil: anywhere that client goes
	turns  chan struct{}
	total  atomic.Int64 // bytes read
	lost   atomic.Int64 // requests in a row that were of no use although they were tried again

	pause, imageTime, pageTime time.Duration
}

func newHosts(o Options, allowed outbound.Allowed) *hosts {
	h := &hosts{
		o: o, client: allowed.Client(), turns: make(chan struct{}, atOnce),
		pause: firstPause, imageTime: imageTime, pageTime: pageTime,
	}
	transport := h.client.Transport.(*http.Transport)
	transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = atOnce, 10*time.Second
	follow := h.client.CheckRedirect
	h.client.CheckRedirect = func(to *http.Request, via []*http.Request) error {
		if base := h.within.Load(); base != nil && via[0].Context().Value(atTop{}) == nil && !below(base, to.URL) {
			return errors.New("a redirect away from the folder is not followed")
		}
		return follow(to, via)
	}
	return h
}

// atTop is in the context of the request for a source itself, which may be redirected on its host.
type atTop struct{}

// below says whether an address is the folder at base, or within it.
func below(base, u *url.URL) bool {
	return u.Scheme == base.Scheme && strings.EqualFold(u.Host, base.Host) && strings.HasPrefix(u.Path, base.Path) &&
		!strings.Contains(u.Path+"/", "/../")
}

// readAddress reads an address of http or https.
func readAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxAddress || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return nil, fmt.Errorf("an address has at most %d bytes, none of them white space", maxAddress)
	case err != nil: // its text has the address
		return nil, errors.New("it is no address that can be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%.20q is no kind of source: http, https", u.Scheme)
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("the address has no host")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// item is the item of an address in a list.
func (h *hosts) item(text string) bulk.Item {
	u, err := readAddress(text)
	switch {
	case err != nil:
		return failing(source.Mask(text[:min(len(text), maxAddress)]), err)
	case u.User != nil:
		return failing(source.Mask(text), errors.New("addresses in lists have no user and no password"))
	}
	return bulk.Item{Path: label(text), Size: -1, Open: func(ctx context.Context) ([]byte, error) { return h.image(ctx, u) }}
}

// image fetches an image.
func (h *hosts) image(ctx context.Context, u *url.URL) (image []byte, err error) {
	err = h.ask(ctx, http.MethodGet, u, "image/*, */*;q=0.5", h.imageTime, func(ctx context.Context, resp *http.Response) error {
		image, err = readAll(ctx, h.metered(resp.Body), resp.ContentLength, h.o.MaxImageBytes)
		return err
	})
	return image, err
}

// passing is an error that may pass by itself.
type passing struct {
	err   error
	pause time.Duration // as the server wants it; 0: none
}

func (p *passing) Error() string   { return p.err.Error() }
func (p *passing) Unwrap() error   { return p.err }
func (p *passing) Temporary() bool { return true }

// ask sends a request, again after a pause while the host is busy or cannot be reached, and has the body of its answer read, which
// may be begun again, too. Each try has so much time. Errors that may pass by themselves are *passing.
func (h *hosts) ask(ctx context.Context, method string, u *url.URL, accept string, patience time.Duration,
	read func(context.Context, *http.Response) error) error {
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for try, pause := 1, h.pause; ; try, pause = try+1, 2*pause {
		err := h.once(ctx, method, u, accept, patience, read)
		p, again := errors.AsType[*passing](err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !again:
			h.lost.Store(0)
			return err
		case try == tries, h.lost.Load() >= atOnce: // nobody is there: not so long for each of a million
			h.lost.Add(1)
			return err
		}
		select {
		case <-time.After(min(max(pause, p.pause), longPause)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *hosts) once(ctx context.Context, method string, u *url.URL, accept string, patience time.Duration,
	read func(context.Context, *http.Response) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it took more than %v", patience))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "hailo-clip")
	if password, ok := h.user.Password(); ok || h.user != nil {
		req.SetBasicAuth(h.user.Username(), password)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return explain(ctx, err)
	}
	defer resp.Body.Close()
	if err := status(resp); err != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 16<<10) // so that the connection can be used again
		return err
	}
	if err := read(ctx, resp); err != nil {
		return explain(ctx, err)
	}
	return nil
}

// status is what is wrong with an answer by its status.
func status(resp *http.Response) error {
	code := resp.StatusCode
	err := fmt.Errorf("the host answers %d %s", code, http.StatusText(code))
	switch {
	case code == http.StatusOK:
		return nil
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout,
		code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &passing{err, time.Duration(min(max(seconds, 0), 3600)) * time.Second}
	}
	return err
}

// explain leaves the address out of an error, and says whether it may pass.
func explain(ctx context.Context, err error) error {
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err
	}
	name, unknown := errors.AsType[*net.DNSError](err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errTooMuch):
		return err
	case ctx.Err() != nil:
		return &passing{err: context.Cause(ctx)}
	case unknown && name.IsNotFound, errors.Is(err, outbound.ErrNotAllowed):
		return err
	case network, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &passing{err: err}
	}
	return err
}

var errTooMuch = errors.New("more bytes have been downloaded than a source may have")

// metered reads what counts as downloaded.
func (h *hosts) metered(r io.Reader) io.Reader { return &meter{h, r} }

type meter struct {
	h *hosts
	r io.Reader
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.h.total.Add(int64(n)) > m.h.o.MaxTotalBytes {
		return 0, errTooMuch
	}
	return n, err
}
