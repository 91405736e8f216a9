package source

import (
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/icholy/digest"

	"hailoclip/api/outbound"
)

// camera is an address of http.
type camera struct {
	address
	o        Options
	target   *url.URL // without user and password
	interval time.Duration

	challenge *digest.Challenge // the last one
	count     int               // of requests that it was answered in
	basic     bool              // was asked for
	etag      string            // of the last image
	modified  string
}

func newHTTP(a address, o Options) *camera {
	target := *a.url
	target.User = nil
	c := &camera{address: a, o: o, target: &target, interval: time.Second}
	if o.FPS > 0 {
		c.interval = max(time.Duration(float64(time.Second)/o.FPS), 10*time.Millisecond)
	}
	return c
}

// read asks until a stream ends or something fails.
func (c *camera) read(ctx context.Context, d *delivery) error {
	client := c.o.Allowed.Client()
	defer client.CloseIdleConnections()
	for {
		started := time.Now()
		single, err := c.readOnce(ctx, client, d)
		if err != nil {
			return err
		}
		if !single {
			return fail(codeUnavailable, "the camera has ended the stream")
		}
		select {
		case <-time.After(c.interval - time.Since(started)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errSilence is why a request is given up.
var errSilence = fail(codeTimeout, "no frame came for %v", silence)

// readOnce asks once. single says that the answer was one image, or that it is the one that is known.
func (c *camera) readOnce(ctx context.Context, client *http.Client, d *delivery) (single bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(d.patience, func() { cancel(errSilence) })
	defer watch.Stop()
	defer func() {
		if err != nil && d.failed == nil && errors.Is(context.Cause(ctx), errSilence) {
			err = errSilence
		}
		if err != nil && d.failed == nil {
			err = c.explain(err)
		}
	}()

	resp, err := c.ask(ctx, client)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return true, nil
	}
	if err := status(resp); err != nil {
		return false, err
	}
	media, params, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	for _, no := range []string{"text/", "video/", "audio/", "application/json", "application/xml", "application/vnd.apple"} {
		if strings.HasPrefix(media, no) {
			return false, fail(codeCodec, "the camera sends %.60s, and no images", media)
		}
	}
	multi := strings.HasPrefix(media, "multipart/")
	reader := NewReader(resp.Body, params["boundary"], c.o.Limits)
	for images := 0; ; images++ {
		image, err := d.next(reader)
		switch {
		case errors.Is(err, io.EOF) && images == 1 && !multi:
			c.etag, c.modified = resp.Header.Get("ETag"), ""
			if c.interval >= time.Second { // which is how exact it is
				c.modified = resp.Header.Get("Last-Modified")
			}
			return true, nil
		case errors.Is(err, io.EOF) && images == 0:
			return false, fail(codeCodec, "the camera's answer has no image")
		case errors.Is(err, io.EOF):
			return false, nil
		case errors.Is(err, ErrNoImages):
			return false, fail(codeCodec, "%w", err)
		case err != nil:
			return false, err
		}
		if !watch.Stop() {
			d.put(image)
			return false, errSilence
		}
		if err := d.deliver(Frame{Image: image, Time: -1}); err != nil {
			return false, err
		}
		watch.Reset(d.patience)
	}
}

// ask sends the request, and once more for each thing that the camera wants to be told: who asks, and that by a new nonce. The
// caller closes the body.
func (c *camera) ask(ctx context.Context, client *http.Client) (*http.Response, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.target.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "multipart/x-mixed-replace, image/jpeg, image/*")
		req.Header.Set("User-Agent", "hailo-clip")
		if c.etag != "" {
			req.Header.Set("If-None-Match", c.etag)
		} else if c.modified != "" {
			req.Header.Set("If-Modified-Since", c.modified)
		}
		if err := c.authorize(req); err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || try == 2 || !c.learn(resp, try > 0) {
			return resp, nil
		}
		target := *resp.Request.URL // where it was redirected to, on the same host
		target.User = nil
		c.target = &target
		_, _ = io.CopyN(io.Discard, resp.Body, 16<<10) // so that the connection can be used again
		resp.Body.Close()
	}
}

// authorize answers what the camera has asked for before.
func (c *camera) authorize(req *http.Request) error {
	password, _ := c.url.User.Password()
	switch {
	case c.url.User == nil:
	case c.challenge != nil:
		c.count++
		credentials, err := digest.Digest(c.challenge, digest.Options{
			Method: req.Method, URI: req.URL.RequestURI(), Count: c.count, Username: c.url.User.Username(), Password: password,
		})
		if err != nil {
			return fail(codeAuth, "the camera's digest authentication cannot be answered")
		}
		req.Header.Set("Authorization", credentials.String())
	case c.basic:
		req.SetBasicAuth(c.url.User.Username(), password)
	}
	return nil
}

// learn says whether another answer to a 401 may help: answered says that the camera has refused one to what it asked for just
// now. Cameras shut out who tries a wrong password often.
func (c *camera) learn(resp *http.Response, answered bool) bool {
	c.challenge = nil
	if c.url.User == nil {
		return false
	}
	for _, header := range resp.Header.Values("WWW-Authenticate") {
		switch challenge, err := digest.ParseChallenge(header); {
		case err == nil:
			for i := range challenge.QOP {
				challenge.QOP[i] = strings.TrimSpace(challenge.QOP[i])
			}
			if digest.CanDigest(challenge) && (c.challenge == nil || strength(challenge) > strength(c.challenge)) {
				c.challenge, c.count = challenge, 0
			}
		case len(header) >= 5 && strings.EqualFold(header[:5], "basic"):
			c.basic = true
		}
	}
	if c.challenge != nil {
		return !answered || c.challenge.Stale
	}
	return c.basic && !answered
}

func strength(c *digest.Challenge) int {
	if strings.HasPrefix(strings.ToUpper(c.Algorithm), "SHA") {
		return 1
	}
	return 0
}

// status is what is wrong with an answer by its status.
func status(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return fail(codeAuth, "the camera refuses: %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	case http.StatusNotFound, http.StatusGone:
		return fail(codeNotFound, "the camera has no such address: %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return fail(codeUnavailable, "the camera answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// explain gives an error of the network a code, and takes out of its text what must not be seen.
func (c *camera) explain(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := explain(err)
	text := e.Error()
	if u, ok := errors.AsType[*url.Error](err); ok { // has the address
		text = u.Err.Error()
	}
	return &Error{e.Code, hidden{c.scrub(text), err}}
}

// hidden is an error with another text.
type hidden struct {
	text string
	err  error
}

func (h hidden) Error() string        { return h.text }
func (h hidden) Is(target error) bool { return errors.Is(h.err, target) }

// explain gives an error a code.
func explain(err error) *Error {
	e, ok := errors.AsType[*Error](err)
	n, network := errors.AsType[net.Error](err)
	switch {
	case ok:
		return e
	case err == nil:
		return fail(codeUnavailable, "the source has ended")
	case errors.Is(err, outbound.ErrNotAllowed):
		return &Error{codeNotAllowed, err}
	case errors.Is(err, context.DeadlineExceeded), network && n.Timeout():
		return &Error{codeTimeout, err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fail(codeUnavailable, "the connection was closed")
	}
	return &Error{codeUnavailable, err}
}
