package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"hailoclip/api/outbound"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
)

// FetchesAtOnce is how many images are fetched at once, for all callers.
const FetchesAtOnce = 16

const (
	fetchesOfOne = 4                // at once, for one caller, by address or key
	fetchTime    = 10 * time.Second // for one image, from the name of its host to the last byte
	maxAddress   = 2048             // bytes of an address
)

// fetcher asks hosts for images. Safe for concurrent use.
type fetcher struct {
	allowed  outbound.Allowed
	client   *http.Client // keeps no connections
	patience time.Duration
	*shares
}

func newFetcher(allowed outbound.Allowed) *fetcher {
	client := allowed.Client()
	client.Transport.(*http.Transport).DisableKeepAlives = true // few ask the same host soon again, and what is not kept need not be counted
	return &fetcher{allowed: allowed, client: client, patience: fetchTime, shares: newShares(FetchesAtOnce, fetchesOfOne)}
}

// target reads an address, as far as that can be judged without asking anybody.
func (f *fetcher) target(address string) (*url.URL, error) {
	if len(address) > maxAddress {
		return nil, fail(errInvalidRequest, "Invalid 'image_url': at most %d bytes are allowed", maxAddress)
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return nil, fail(errInvalidRequest, "Invalid 'image_url': it is no address that can be read")
	case u.Scheme != "http" && u.Scheme != "https", u.Opaque != "", u.Hostname() == "":
		return nil, fail(errInvalidRequest, "Invalid 'image_url': it must begin with http:// or https:// and a host")
	case u.User != nil:
		return nil, fail(errInvalidRequest, "Invalid 'image_url': it must have no user and no password")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if f.allowed.Check(u.Hostname(), port) != nil {
		return nil, errAllow
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// errAllow is the same for a host that is not in the list and for one whose address is not.
var errAllow = fail(errInvalidRequest, "The host of image_url may not be asked: fetch.allow does not have it, or not the private address that it is at")

// fetch returns the file of the image at an address, which it copies. The image is good until the request ends; its memory counts as
// memory for the bodies of the caller, and its bytes as bytes of a body with many images (Config.batchBody). It blocks until the
// caller's turn has come, and then for at most fetchTime, but not beyond the deadline in r.work. Of what the host has answered no
// error has more than the status: errInvalidRequest for an address that is not to be asked, errInvalidImage for what else is wrong
// there, errBodyTooLarge, errBodyMemory, pipeline.ErrDeadline. Safe for concurrent use, until the handler's hold ends.
func (r *request) fetch(address string) (image []byte, err error) {
	f := r.server.fetcher
	target, err := f.target(address)
	if err != nil {
		return nil, err
	}
	done, err := f.take(r.work, r.caller)
	if err != nil {
		return nil, pipeline.Late(r.work)
	}
	defer done()
	ctx, cancel := context.WithTimeout(r.work, f.patience)
	defer cancel()
	image, err = r.get(ctx, target)
	refused, known := errors.AsType[*failure](err)
	switch {
	case err == nil:
		return slices.Clip(image), nil
	case r.work.Err() != nil:
		return nil, pipeline.Late(r.work)
	case errors.Is(err, outbound.ErrNotAllowed):
		return nil, errAllow
	case known:
		return nil, refused
	case errors.Is(err, errBodyMemory):
		return nil, err
	case ctx.Err() != nil:
		return nil, fail(errInvalidImage, "The image did not come from image_url within %v", f.patience)
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // without the address, which may have secrets
	}
	r.server.svc.Log.Debug("an image could not be fetched", "host", target.Host, "error", err, "request_id", r.id)
	return nil, fmt.Errorf("%w: %w", errNotFetched, err)
}

// get asks once, and keeps the answer.
func (r *request) get(ctx context.Context, target *url.URL) (image []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "image/jpeg, image/png, image/webp, image/*;q=0.5")
	req.Header.Set("User-Agent", "hailo-clip")
	resp, err := r.server.fetcher.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	limit := r.server.cfg.MaxBodyBytes
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fail(errInvalidImage, "The host of image_url answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	case resp.ContentLength > int64(limit):
		return nil, fetchedTooMuch(limit)
	}
	memory := r.server.bodies
	defer func() {
		if err != nil {
			memory.put(r.caller.Address, image)
			image = nil
		}
	}()
	if image, err = memory.readAll(r.caller.Address, nil, resp.Body, limit); errors.Is(err, errTooLong) {
		err = fetchedTooMuch(limit)
	}
	if err != nil {
		return image, err
	}
	if _, err := decode.Format(image); errors.Is(err, decode.ErrNotImage) { // whose text has bytes of it
		return image, fail(errInvalidImage, "What the host of image_url answers is not an image")
	}
	return image, r.fetched.keep(image, r.server.cfg.batchBody())
}

func fetchedTooMuch(limit int) error {
	return fail(errBodyTooLarge, "The image at image_url is larger than %d bytes", limit)
}

// fetched is what a request has fetched.
type fetched struct {
	mu     sync.Mutex
	images [][]byte // of Server.bodies
	size   int      // of them together, in bytes
}

func (f *fetched) keep(image []byte, limit int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size+len(image) > limit {
		return fail(errBodyTooLarge, "The images at the addresses are larger than %d bytes together", limit)
	}
	f.images, f.size = append(f.images, image), f.size+len(image)
	return nil
}
