package source

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/html"
)

const maxToken = 1 << 20 // bytes of a tag, a text, an element of JSON

// page is a listing of one folder.
type page struct {
	url     *url.URL // of the folder; where it was redirected to, once it is read
	room    int      // for entries
	entries []remote // in order
}

// errBucket says that a page is the listing of a bucket.
var errBucket = errors.New("the listing of a bucket is not at the top")

// read returns what reads a page, of any of the forms.
func (p *page) read(h *hosts) func(context.Context, *http.Response) error {
	asked := p.url
	return func(ctx context.Context, resp *http.Response) error {
		at := *resp.Request.URL
		at.User, at.RawQuery = nil, ""
		p.url, p.entries = &at, nil
		body := bufio.NewReaderSize(h.page(resp.Body, maxPage), 64<<10)
		head, err := body.Peek(512)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch head = bytes.TrimLeft(head, "\xef\xbb\xbf \t\r\n"); {
		case bytes.Contains(head, []byte("<ListBucketResult")):
			at.RawQuery = asked.RawQuery
			return errBucket
		case !strings.HasSuffix(at.Path, "/"):
			return fmt.Errorf("it is at %s, which is no folder", at.String())
		case bytes.HasPrefix(head, []byte("[")):
			err = p.readJSON(body)
		default:
			err = p.readHTML(body)
		}
		p.entries = order(p.entries)
		return err
	}
}

// add adds what a listing has, if it is within the folder and not hidden.
func (p *page) add(e remote) error {
	if e.name == "" || e.name[0] == '.' || strings.ContainsAny(e.name, "/\x00") || len(e.name) > maxName {
		return nil
	}
	if len(p.entries) == p.room {
		return fmt.Errorf("the listing has more than %d entries", p.room)
	}
	p.entries = append(p.entries, e)
	return nil
}

// child is the address of an entry.
func (p *page) child(e remote) *url.URL {
	u := *p.url
	u.RawPath = ""
	if u.Path += e.name; e.folder {
		u.Path += "/"
	}
	return &u
}

// readJSON reads the listings of nginx and Caddy.
func (p *page) readJSON(r io.Reader) error {
	allowance := &allowance{r: r, left: maxToken}
	d := json.NewDecoder(allowance)
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		allowance.left = maxToken
		var e struct {
			Name    string
			Type    string `json:"type"`  // of nginx: directory, file, other
			MTime   string `json:"mtime"` // of nginx
			Size    *int64 `json:"size"`
			IsDir   bool   `json:"is_dir"`   // of Caddy, as the others
			ModTime string `json:"mod_time"` // of Caddy
		}
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("the listing cannot be read: %w", err)
		}
		name, slash := strings.CutSuffix(e.Name, "/")
		entry := remote{name: name, size: -1, folder: slash || e.IsDir || e.Type == "directory"}
		if e.Size != nil && *e.Size >= 0 && !entry.folder {
			entry.size = *e.Size
		}
		if t, err := time.Parse(time.RFC3339, e.ModTime); err == nil {
			entry.modified = t.Unix()
		} else if t, err := http.ParseTime(e.MTime); err == nil {
			entry.modified = t.Unix()
		}
		if err := p.add(entry); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// allowance is a reader that may be read by so many bytes.
type allowance struct {
	r    io.Reader
	left int
}

func (a *allowance) Read(b []byte) (int, error) {
	if a.left <= 0 {
		return 0, errors.New("it, or a part of it, is too long")
	}
	n, err := a.r.Read(b[:min(len(b), a.left)])
	a.left -= n
	return n, err
}

// page reads a listing of so many bytes, which count as downloaded.
func (h *hosts) page(r io.Reader, most int) io.Reader { return &allowance{h.metered(r), most} }

// sizes is what nginx writes behind a link: time and size, exactly.
var sizes = regexp.MustCompile(`^\s+(\d\d-[A-Z][a-z][a-z]-\d{4} \d\d:\d\d)\s+(\d+)\s*$`)

// readHTML reads the links of a page to what is in the folder itself.
func (p *page) readHTML(r io.Reader) error {
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	last := -1 // the entry of the last link
	inLink := false
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("the listing cannot be read: %w", err)
			}
			return nil
		case html.StartTagToken:
			name, attributes := z.TagName()
			if inLink = string(name) == "a"; !inLink {
				last = -1
				continue
			}
			e, ok := p.link(z, attributes)
			if last = -1; !ok {
				continue
			}
			n := len(p.entries)
			if err := p.add(e); err != nil {
				return err
			}
			if len(p.entries) > n {
				last = n
			}
		case html.EndTagToken:
			inLink = false
		case html.TextToken:
			if last < 0 || inLink {
				continue
			}
			if m := sizes.FindSubmatch(z.Raw()); m != nil && !p.entries[last].folder {
				t, err := time.Parse("02-Jan-2006 15:04", string(m[1]))
				size, failed := strconv.ParseInt(string(m[2]), 10, 64)
				if err == nil && failed == nil {
					p.entries[last].size, p.entries[last].modified = size, t.Unix()
				}
			}
			last = -1
		}
	}
}

// link reads the address of a link: ok says that it is directly within the folder.
func (p *page) link(z *html.Tokenizer, more bool) (e remote, ok bool) {
	for more {
		var key, value []byte
		key, value, more = z.TagAttr()
		if string(key) != "href" || len(value) > maxAddress {
			continue
		}
		u, err := p.url.Parse(string(value))
		if err != nil || u.Scheme != p.url.Scheme || !strings.EqualFold(u.Host, p.url.Host) || u.User != nil || u.RawQuery != "" ||
			u.ForceQuery || u.Fragment != "" {
			return e, false
		}
		name, within := strings.CutPrefix(u.Path, p.url.Path)
		e = remote{size: -1}
		e.name, e.folder = strings.CutSuffix(name, "/")
		return e, within
	}
	return e, false
}

// sum is the digest of a page with folders, and images whose size and time it knows; else zero.
func (p *page) sum() (sum [32]byte) {
	folders, known := false, false
	h := sha256.New()
	for _, e := range p.entries {
		folders, known = folders || e.folder, known || !e.folder && e.size >= 0 && e.modified != 0
		fmt.Fprintf(h, "%q %d %d %v\n", e.name, e.size, e.modified, e.folder)
	}
	if folders && known {
		h.Sum(sum[:0])
	}
	return sum
}

// looped says whether a folder above has the same, as where a server follows a link to it.
func (p *page) looped(above [][32]byte) bool {
	sum := p.sum()
	for _, other := range above {
		if sum == other && sum != [32]byte{} {
			return true
		}
	}
	return false
}
