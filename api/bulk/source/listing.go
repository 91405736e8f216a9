package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hailoclip/api/bulk"
	"hailoclip/api/outbound"
	"hailoclip/api/stream/source"
)

const (
	maxDepth  = 32        // folders of a server within each other
	maxPages  = 100_000   // folders of a server
	maxHeld   = 1 << 20   // entries of a folder and those above it, which are in memory
	maxPage   = 512 << 20 // bytes of one listing
	asksAhead = atOnce    // requests for sizes and times, where a listing lacks them
)

// listing is a folder on a web server, with those below it, in the order of their names; of a bucket, in that of the server.
// Nothing is asked but what is below the address on its host. Names that begin with a dot are ignored, images are known by their
// suffix. What links back to itself is no folder below; a tree without end ends at a depth of 32, and at other limits.
type listing struct {
	*hosts
	root *url.URL // ends with a slash, without user and password
	name string
	room int // for entries of a folder and those above it
}

func openListing(address string, o Options) (bulk.Source, error) {
	u, err := readAddress(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source.Mask(address), err)
	}
	h := newHosts(o, outbound.Any())
	h.user, u.User = u.User, nil
	switch {
	case source.IsImage(u.Path):
		return &oneAddress{h, u}, nil
	case isList(u.Path), compressionOf(u.Path) != none:
		return nil, fmt.Errorf("%s: lists and archives are read from files: download it first", u)
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	return &listing{hosts: h, root: u, name: shown(u), room: maxHeld}, nil
}

// oneAddress is an image alone.
type oneAddress struct {
	*hosts
	u *url.URL
}

func (a *oneAddress) Name() string { return shown(a.u) }

func (a *oneAddress) Each(ctx context.Context, found func(bulk.Item) error) error {
	e := remote{name: a.u.Path, size: -1}
	a.lookAt(ctx, a.u, &e)
	return found(a.remoteItem(a.u, e))
}

// remote is an entry of a listing.
type remote struct {
	name     string // unescaped, without slashes
	size     int64  // -1: not known
	modified int64  // Unix seconds; 0: not known
	folder   bool
}

func (h *hosts) remoteItem(u *url.URL, e remote) bulk.Item {
	item := bulk.Item{Path: label(shown(u)), Size: e.size}
	item.Open = func(ctx context.Context) ([]byte, error) { return h.image(ctx, u) }
	if e.modified != 0 {
		item.Modified = sane(time.Unix(e.modified, 0))
	}
	return item
}

// shown is an address without user and password as others may see it: secrets are in the query only, and no two paths look the same.
func shown(u *url.URL) string {
	path := *u
	if path.RawQuery = ""; u.RawQuery == "" {
		return path.String()
	}
	return path.String() + source.Mask("?"+u.RawQuery)
}

// lookAt asks for size and time of an image. Where that fails they stay unknown.
func (h *hosts) lookAt(ctx context.Context, u *url.URL, e *remote) {
	_ = h.ask(ctx, http.MethodHead, u, "image/*, */*;q=0.5", h.imageTime, func(_ context.Context, resp *http.Response) error {
		if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
			e.modified = t.Unix()
		}
		if resp.ContentLength >= 0 {
			e.size = resp.ContentLength
		}
		return nil
	})
}

func (l *listing) Name() string { return l.name }

func (l *listing) Each(ctx context.Context, found func(bulk.Item) error) error {
	l.total.Store(0)
	c := &crawl{listing: l, ctx: ctx, found: found}
	err := c.folder(l.root, 0)
	if enough, ok := errors.AsType[*enoughError](err); ok {
		return found(failing(shown(l.root), enough))
	}
	return err
}

// enoughError ends a crawl that has gone beyond a limit of the whole.
type enoughError struct{ text string }

func (e *enoughError) Error() string { return e.text }

// crawl is a run through a listing.
type crawl struct {
	*listing
	ctx     context.Context
	found   func(bulk.Item) error
	pages   int
	entries int64
	held    int
	above   [][32]byte // what the folders above have, as far as that is known
}

func (c *crawl) folder(u *url.URL, depth int) error {
	if c.pages++; c.pages > maxPages {
		return &enoughError{fmt.Sprintf("the listing has more than %d folders", maxPages)}
	}
	p := page{url: u, room: c.room - c.held}
	ctx := c.ctx
	if depth == 0 { // may be redirected, such as from http to https: what it is redirected to is the folder then
		ctx = context.WithValue(ctx, atTop{}, true)
	}
	read := p.read(c.hosts) //nolint:bodyclose // ask closes it
	err := c.ask(ctx, http.MethodGet, u, "application/json, text/html;q=0.9, application/xml;q=0.8", c.pageTime, read)
	switch {
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, errBucket) && depth == 0:
		return c.bucket(p.url)
	case err != nil:
		return c.found(failing(shown(u), err))
	case depth == 0:
		c.within.Store(p.url)
	case p.url.Path != u.Path: // another folder, which has a turn of its own
		return c.found(failing(u.String(), errors.New("it is redirected to another folder")))
	}
	if c.entries += int64(len(p.entries)); c.entries > c.o.MaxEntries {
		return &enoughError{fmt.Sprintf("the listing has more than %d entries", c.o.MaxEntries)}
	}
	if p.sum() == [32]byte{} {
		c.askAhead(&p, 0) // so that there is something to know the folder by
	}
	if p.looped(c.above) {
		return c.found(failing(u.String(), errors.New("it has what a folder above it has, so it is that")))
	}
	c.above = append(c.above, p.sum())
	c.held += len(p.entries)
	defer func() { c.held -= len(p.entries); c.above = c.above[:len(c.above)-1] }()
	return c.tell(&p, depth)
}

// tell tells what is on a page and below it.
func (c *crawl) tell(p *page, depth int) error {
	asked := 0
	for i, e := range p.entries {
		u := p.child(e)
		var err error
		switch {
		case c.ctx.Err() != nil:
			return context.Cause(c.ctx)
		case c.total.Load() > c.o.MaxTotalBytes:
			return &enoughError{errTooMuch.Error()}
		case e.folder && depth == maxDepth:
			err = c.found(failing(u.String(), fmt.Errorf("it is more than %d folders deep", maxDepth)))
		case e.folder:
			err = c.folder(u, depth+1)
		case source.IsImage(e.name):
			if asked <= i {
				asked = c.askAhead(p, i)
			}
			err = c.found(c.remoteItem(u, p.entries[i]))
		default:
			c.o.Skipped(kindOf(e.name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// askAhead asks for the sizes and times of the next images whose listing lacks them, and returns up to where.
func (c *crawl) askAhead(p *page, from int) (to int) {
	var group errgroup.Group
	n := 0
	for to = from; to < len(p.entries) && n < asksAhead; to++ {
		if e := &p.entries[to]; source.IsImage(e.name) && !e.folder && (e.size < 0 || e.modified == 0) {
			n++
			group.Go(func() error { c.lookAt(c.ctx, p.child(*e), e); return nil })
		}
	}
	_ = group.Wait()
	return to
}

// order sorts entries by name, and leaves out what is there twice.
func order(entries []remote) []remote {
	slices.SortFunc(entries, func(a, b remote) int { return source.Natural(a.name, b.name) })
	return slices.CompactFunc(entries, func(a, b remote) bool { return a.name == b.name })
}
