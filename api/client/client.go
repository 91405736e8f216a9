// Package client asks a hailo-clip service. It needs nothing but the standard library.
//
//	c, err := client.New("http://127.0.0.1:5000", client.Options{})
//	answer, err := c.Classify(ctx, client.Question{Image: client.Image{Data: jpeg}, PromptSet: "door"})
//
// Images are sent as they are, not in base64, and embeddings come as bytes. Where the service is busy (429, 503) the
// client asks again after the time that the service names. Frames of a camera or a video go over a Stream, or a Push; Events
// says what changes.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options says how a service is asked. The zero value is a good choice.
type Options struct {
	// HTTP sends the requests; nil: a client with connections of its own. Redirects are not followed unless it has a
	// CheckRedirect: an image is for the service that was named.
	HTTP *http.Client

	Key string // that the service wants (access.keys); "": none

	Retries   int           // how often a request is sent again when the service is busy; 0: 4, below 0: never
	MaxWait   time.Duration // the longest pause before that: a service that wants a longer one is not asked again; 0: 30 s
	MaxAnswer int64         // bytes of an answer, of which more is ErrAnswerTooLarge; 0: 64 MiB
}

// Client is a service as its clients see it. Safe for concurrent use; all of its methods block until the answer is there or
// ctx has ended, and tell the service the deadline of ctx. Errors: *Error for what the service says, those of net/http,
// ErrAnswer and ErrAnswerTooLarge.
type Client struct {
	base    string // without a slash at the end
	http    *http.Client
	long    *http.Client // for what lasts: a new connection each, and no time limit
	options Options      // without zeros
}

// New returns a client of the service at base, such as http://127.0.0.1:5000 or https://example.org/clip, or of the one at a Unix
// socket: unix:/run/hailo-clip/hailo-clip.sock, unless there is an Options.HTTP. It does not connect yet.
func New(base string, o Options) (*Client, error) {
	socket, isSocket := strings.CutPrefix(base, "unix:")
	if isSocket = isSocket && o.HTTP == nil && strings.HasPrefix(socket, "/"); isSocket {
		base = "http://localhost"
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("url %q is not of the form http://HOST:PORT or https://HOST:PORT, with a path at most", base)
	}
	o.Retries, o.MaxWait, o.MaxAnswer = cmp.Or(o.Retries, 4), cmp.Or(o.MaxWait, 30*time.Second), cmp.Or(o.MaxAnswer, 64<<20)
	c := &Client{base: strings.TrimRight(base, "/"), options: o}
	if o.HTTP != nil {
		own := *o.HTTP
		c.http = &own
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 64
		t.IdleConnTimeout = 30 * time.Second // the service's own is longer, so that it does not close what we are about to use
		t.DisableCompression = true
		if isSocket {
			t.Proxy = nil
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}
		}
		c.http = &http.Client{Transport: t}
	}
	if c.http.CheckRedirect == nil {
		c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	long := *c.http
	long.Timeout = 0
	if t, ok := cmp.Or(long.Transport, http.DefaultTransport).(*http.Transport); ok {
		t = t.Clone()
		t.DisableKeepAlives = true
		long.Transport = t
	}
	c.long = &long
	return c, nil
}

// Close closes the connections that no request is using. The client can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Errors of answers.
var (
	ErrAnswer         = errors.New("not an answer of hailo-clip")
	ErrAnswerTooLarge = errors.New("the answer is too large")
)

// Error is what a service answers instead of what it was asked for. For errors.As.
type Error struct {
	Status     int           // of HTTP; 0 for an item of a batch
	Code       string        // stable, such as "prompt_set_not_found"; "" from another program, such as a proxy
	Message    string        // a sentence for people
	RequestID  string        // by which the service's log knows the request
	RetryAfter time.Duration // after which the service may be asked again; 0: it does not say
}

func (e *Error) Error() string {
	text := e.Message
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Status != 0 {
		text = fmt.Sprintf("status %d: %s", e.Status, text)
	}
	if e.RequestID != "" {
		text += ", request " + e.RequestID
	}
	return text
}
