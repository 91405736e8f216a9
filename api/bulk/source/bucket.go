package source

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"hailoclip/api/stream/source"
)

const maxBucketPage = 16 << 20 // bytes of a page of at most 1,000 keys

// bucketPage is what S3 and its like answer (ListObjectsV2; of an answer of the first version also what it has).
type bucketPage struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	IsTruncated bool
	Next        string `xml:"NextContinuationToken"`
	NextMarker  string
	Contents    []struct {
		Key          string
		LastModified time.Time
		Size         int64
	}
}

// bucket lists a bucket, or what is below the prefix in the query of its address.
func (c *crawl) bucket(u *url.URL) error {
	prefix := u.Query().Get("prefix")
	base := *u
	base.RawQuery = ""
	c.within.Store(&base)
	query := url.Values{"list-type": {"2"}, "max-keys": {"1000"}}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	for ; ; c.pages++ {
		at := base
		at.RawQuery = query.Encode()
		var p bucketPage
		err := c.ask(c.ctx, http.MethodGet, &at, "application/xml", c.pageTime, func(_ context.Context, resp *http.Response) error {
			p = bucketPage{}
			err := xml.NewDecoder(c.page(resp.Body, maxBucketPage)).Decode(&p)
			if _, wrong := errors.AsType[*xml.SyntaxError](err); wrong {
				return fmt.Errorf("the listing cannot be read: %w", err)
			}
			return err
		})
		switch {
		case c.ctx.Err() != nil:
			return context.Cause(c.ctx)
		case err != nil:
			return c.found(failing(base.String(), err))
		case c.pages > maxPages:
			return &enoughError{fmt.Sprintf("the listing has more than %d pages", maxPages)}
		}
		if c.entries += int64(len(p.Contents)); c.entries > c.o.MaxEntries {
			return &enoughError{fmt.Sprintf("the listing has more than %d entries", c.o.MaxEntries)}
		}
		last := ""
		for _, o := range p.Contents {
			last = o.Key
			if err := c.key(&base, o.Key, remote{size: max(o.Size, -1), modified: o.LastModified.Unix()}); err != nil {
				return err
			}
		}
		if !p.IsTruncated {
			return nil
		}
		before := query.Get("continuation-token") + query.Get("marker")
		switch {
		case p.Next != "":
			query.Set("continuation-token", p.Next)
		case p.NextMarker != "" || last != "": // the first version
			query.Set("marker", max(p.NextMarker, last))
		}
		if query.Get("continuation-token")+query.Get("marker") == before {
			return c.found(failing(base.String(), errors.New("the listing does not go on, but says that there is more")))
		}
	}
}

// key tells an object.
func (c *crawl) key(base *url.URL, key string, e remote) error {
	names := strings.Split(key, "/")
	u := *base
	u.Path, u.RawPath = base.Path+key, ""
	switch {
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case strings.HasSuffix(key, "/"): // stands for a folder
		return nil
	case len(key) > maxName, slices.Contains(names, ".."), slices.Contains(names, "."), strings.Contains(key, "\x00"):
		return c.found(failing(u.String(), errors.New("it is no name of an object")))
	case slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, ".") }):
		return nil
	case !source.IsImage(key):
		c.o.Skipped(kindOf(key))
		return nil
	}
	return c.found(c.remoteItem(&u, e))
}
