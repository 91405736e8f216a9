package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// call is a request, which can be sent more than once.
type call struct {
	method, path string
	query        url.Values
	header       map[string]string
	body         []byte
	err          error // there is no such request

	// once is set where a second time would do more than the first, or be answered otherwise. Such a request is sent
	// again only when it is certain that nothing was done.
	once bool
}

// answer is what came for it.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// getJSON asks and reads the answer into v.
func (c *Client) getJSON(ctx context.Context, r call, v any) error {
	a, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	return a.read(v)
}

func (a *answer) read(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return nil
}

// do sends the request until it is answered well. Other answers are an *Error.
func (c *Client) do(ctx context.Context, r call) (*answer, error) {
	if r.err != nil {
		return nil, r.err
	}
	return c.again(ctx, r, func() (*answer, error) { return c.send(ctx, r) })
}

// again calls send until it fails, or has an answer that is good, or nil for what is better than one.
func (c *Client) again(ctx context.Context, r call, send func() (*answer, error)) (*answer, error) {
	for try := 0; ; try++ {
		a, err := send()
		if err != nil || a == nil || a.status/100 == 2 {
			return a, err
		}
		e := a.fault()
		pause, again := c.pause(r, e, try)
		if end, ok := ctx.Deadline(); !again || ok && time.Until(end) <= pause {
			return nil, e
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, fmt.Errorf("%w, before the service could be asked again: %w", err, e)
		}
	}
}

// sleep returns the cause of ctx where that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send sends the request once and reads the answer, whatever it is.
func (c *Client) send(ctx context.Context, r call) (*answer, error) {
	request, err := c.request(ctx, r, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		request.Header.Set("X-Request-Timeout-Ms", strconv.FormatInt(max(time.Until(end).Milliseconds(), 1), 10))
	}
	if !r.once {
		// It is not sent: with it net/http sends the request again where a connection turns out to be closed that
		// had been idle.
		request.Header["Idempotency-Key"] = nil
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	return c.read(r, response)
}

// request is r as net/http has it, with a body.
func (c *Client) request(ctx context.Context, r call, body io.Reader) (*http.Request, error) {
	address := c.base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, err
	}
	for name, value := range r.header {
		request.Header.Set(name, value)
	}
	if c.options.Key != "" {
		request.Header.Set("Authorization", "Bearer "+c.options.Key)
	}
	if request.Header.Get("Accept") == "" {
		request.Header.Set("Accept", "application/json")
	}
	return request, nil
}

// read reads the answer to a request, and closes it.
func (c *Client) read(r call, response *http.Response) (*answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.options.MaxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	if int64(len(body)) > c.options.MaxAnswer {
		return nil, fmt.Errorf("%s %s: %w: more than %d bytes", r.method, r.path, ErrAnswerTooLarge, c.options.MaxAnswer)
	}
	return &answer{response.StatusCode, response.Header, body}, nil
}

// maxForeign is how much of an answer that is none of the service's is shown.
const maxForeign = 200

// fault is the answer as an error.
func (a *answer) fault() *Error {
	e := &Error{Status: a.status, RequestID: a.header.Get("X-Request-Id")}
	e.RetryAfter = retryAfter(a.header.Get("Retry-After"), time.Now())
	var said struct{ Error, Code string }
	if json.Unmarshal(a.body, &said) == nil && said.Error != "" {
		e.Message, e.Code = said.Error, said.Code
	} else if text := strings.TrimSpace(string(a.body[:min(len(a.body), maxForeign)])); text != "" {
		e.Message = strconv.Quote(text)
	} else {
		e.Message = http.StatusText(a.status)
	}
	return e
}

// retryAfter reads the header, seconds or a date (RFC 9110, 10.2.3). 0: there is none that makes sense, or it is over.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// firstPause is that after the first refusal without a Retry-After. It doubles with each.
const firstPause = 200 * time.Millisecond

// pause says whether a request that was answered with e is sent again, and after which time. Up to a quarter more than
// the service asked for, by chance, keeps clients that were refused together from coming back together.
func (c *Client) pause(r call, e *Error, try int) (time.Duration, bool) {
	wait := e.RetryAfter
	if wait == 0 {
		wait = firstPause << min(try, 16)
	}
	if try >= c.options.Retries || wait > c.options.MaxWait || !e.again(r.once) {
		return 0, false
	}
	return wait + time.Duration(rand.Float64()*float64(wait)/4), true
}

// again says that e passes, and with once also that the request cannot have had an effect: a service that stops, or a
// proxy, may answer 503 to a request whose work is done.
func (e *Error) again(once bool) bool {
	switch e.Status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusServiceUnavailable:
		return !once || e.Code == "not_ready" || e.Code == "too_many_connections"
	}
	return false
}
