package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/safefile"
)

var content = strings.Repeat("0123456789", 10_000)

func sumOf(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

type handler func(s *site, w http.ResponseWriter, r *http.Request)

// site is a server of one file that can be made to misbehave.
type site struct {
	*httptest.Server
	handle handler
	ranges []string // Range header of each request
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"`+sumOf(content)+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
}

// newSite starts a site, which behaves where no handler says otherwise, and returns a download of its file to an empty folder.
func newSite(t *testing.T, handle handler) (*site, Download) {
	if handle == nil {
		handle = (*site).serve
	}
	s := &site{handle: handle}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		s.handle(s, w, r)
	}))
	t.Cleanup(s.Close)
	return s, Download{URL: s.URL + "/file", Part: filepath.Join(t.TempDir(), "file.part"), Client: s.Client()}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	assert.Must(t, os.WriteFile(path, []byte(text), 0o600))
}

// read returns the content of a file, "" where it is not there.
func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

// breaking answers with 40,000 bytes at a time and then breaks off.
func breaking(s *site, w http.ResponseWriter, r *http.Request) {
	end := min(40_000*len(s.ranges), len(content))
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(strings.NewReader(content[:end]), 0, int64(len(content))))
}

func TestDownload(t *testing.T) {
	const size = 100_000
	sum := sumOf(content)
	for name, c := range map[string]struct {
		part      string // what is there,
		validator string // what it is a part of: its ETag,
		url       string // and address, if not that of the download
		bytes     int64  // what is known of the file
		sum       string
		handle    handler
		ranges    []string
	}{
		"nothing there":           {ranges: []string{""}},
		"known digest":            {part: content[:1000], bytes: size, sum: sum, ranges: []string{"bytes=1000-"}},
		"same file on the server": {part: content[:1000], validator: sum, ranges: []string{"bytes=1000-"}},
		"another file there now":  {part: "\x08other", validator: "old", ranges: []string{"bytes=6-"}}, // If-Range gets all of it
		"part of another address": {part: "\x08other", validator: sum, url: "https://host/x", bytes: size, sum: sum, ranges: []string{""}},
		"nothing known":           {part: content[:1000], ranges: []string{""}},
		"whole":                   {part: content, bytes: size, sum: sum},
		"whole, size not known":   {part: content, sum: sum, ranges: []string{"bytes=100000-"}},
		"too long":                {part: content + "x", bytes: size, sum: sum, ranges: []string{""}},
		"server ignores ranges": {part: content[:1000], bytes: size, sum: sum, ranges: []string{"bytes=1000-"},
			handle: func(s *site, w http.ResponseWriter, r *http.Request) {
				r.Header.Del("Range")
				s.serve(w, r)
			}},
		"breaks twice": {bytes: size, sum: sum, ranges: []string{"", "bytes=40000-", "bytes=80000-"}, handle: breaking},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := newSite(t, c.handle)
			d.Bytes, d.SHA256 = c.bytes, c.sum
			var last int64
			d.Progress = func(done, total int64) {
				if last = done; total != size {
					t.Errorf("progress %d of %d", done, total)
				}
			}
			if c.part != "" {
				write(t, d.Part, c.part)
			}
			if c.validator != "" {
				write(t, d.Part+".from", fmt.Sprintf(`{"url": %q, "etag": "\"%s\""}`, cmp.Or(c.url, d.URL), c.validator))
			}
			got, err := d.Run(t.Context())
			assert.MustTrue(t, err == nil && got == sum, "digest %q, %v", got, err)
			assert.True(t, read(d.Part) == content && (last == size || c.part == content), "%d bytes, heard of %d", len(read(d.Part)), last)
			assert.True(t, slices.Equal(s.ranges, c.ranges), "asked for %q, want %q", s.ranges, c.ranges)
		})
	}
}

func TestDownloadRefuses(t *testing.T) {
	const text, kept = "\x08\x07text", "\x08\x07t"
	answer := func(status int, header, body string) handler {
		return func(_ *site, w http.ResponseWriter, _ *http.Request) {
			if k, v, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	partial := func(contentRange string) handler {
		return answer(206, "Content-Range: "+contentRange, text[3:])
	}
	// flushed answers in chunks, without a length.
	flushed := func(body string) handler { return answer(200, "Transfer-Encoding: chunked", body) }
	some := sumOf("something")
	for name, c := range map[string]struct {
		bytes  int64
		sum    string
		part   string // what is there
		handle handler
		is     error
		says   string
		left   string // of the part
	}{
		"not found":          {0, "", "", answer(404, "", "<Error>"), ErrDownload, "404 Not Found", ""},
		"forbidden":          {0, "", "", answer(403, "", "<Error>"), ErrDownload, "403 Forbidden", ""},
		"server error":       {0, "", "", answer(500, "", ""), ErrDownload, "500", ""},
		"no content":         {0, "", "", answer(204, "", ""), ErrDownload, "204", ""},
		"range not asked":    {0, "", "", answer(206, "Content-Range: bytes 0-5/6", text), ErrDownload, "asked for bytes 0", ""},
		"range from before":  {0, sumOf(text), kept, partial("bytes 2-5/6"), ErrDownload, "asked for bytes 3", kept},
		"range too short":    {0, sumOf(text), kept, partial("bytes 3-4/6"), ErrDownload, "asked for bytes 3", kept},
		"range of all":       {0, sumOf(text), kept, partial("bytes 0-5/6"), ErrDownload, "asked for bytes 3", kept},
		"range of unknown":   {0, sumOf(text), kept, partial("bytes 3-5/*"), ErrDownload, "asked for bytes 3", kept},
		"range without unit": {0, sumOf(text), kept, partial("3-5/6"), ErrDownload, "asked for bytes 3", kept},
		"no range":           {0, sumOf(text), kept, partial(""), ErrDownload, "asked for bytes 3", kept},
		"range of another":   {0, sumOf(text), kept, answer(416, "Content-Range: bytes */2", ""), ErrDownload, "does not fit", ""},
		"login page":         {0, "", "", answer(200, "Content-Type: text/html; charset=utf-8", "<html>"), ErrDownload, "web page", ""},
		"compressed":         {0, "", "", answer(200, "Content-Encoding: gzip", text), ErrDownload, "gzip", ""},
		"wrong size":         {6, "", "", answer(200, "Content-Type: x/y", text+"!"), ErrDownload, "want 6", ""},
		"wrong digest":       {0, some, "", answer(200, "Content-Type: x/y", text), ErrMismatch, "want " + some, ""},
		"part of another":    {6, some, "other", answer(206, "Content-Range: bytes 5-5/6", "!"), ErrMismatch, "want " + some, ""},
		"size not said":      {0, "", "", flushed(text), ErrDownload, "how long", ""},
		"longer than known":  {6, "", "", flushed(text + "!"), ErrDownload, "more than 6", ""},
		"shorter than known": {6, "", "", flushed(text[:5]), ErrMismatch, "want 6", ""},
		"broken off":         {6, "", "", answer(200, "Content-Length: 6", text[:3]), ErrDownload, "stopped after 3 bytes: unexpected EOF", kept},
		"endless": {6, "", "", func(_ *site, w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<16))
			}
		}, ErrDownload, "more than 6", ""},
		"redirect to http":   {0, "", "", answer(302, "Location: http://host/file", ""), ErrDownload, "not https", ""},
		"redirects for ever": {0, "", "", answer(302, "Location: /file", ""), ErrDownload, "too many redirects", ""},
	} {
		_, d := newSite(t, c.handle)
		d.Bytes, d.SHA256 = c.bytes, c.sum
		if c.part != "" {
			write(t, d.Part, c.part)
		}
		assert.ErrorSays(t, assert.Err(d.Run(t.Context())), c.is, c.says, "%s", name)
		assert.Equal(t, read(d.Part), c.left, "%s: the part is", name)
	}
}

func TestCancelled(t *testing.T) {
	s, d := newSite(t, func(_ *site, w http.ResponseWriter, r *http.Request) { // three bytes, and then nothing until the client goes
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		io.WriteString(w, content[:3])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	d.SHA256 = sumOf(content)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the user")
	d.Progress = func(int64, int64) { cancel(stop) }
	assert.ErrorIs(t, assert.Err(d.Run(ctx)), stop)
	assert.Equal(t, read(d.Part), content[:3], "the part")
	s.handle = (*site).serve
	assert.NoError(t, assert.Err(d.Run(t.Context())))
	assert.Equal(t, s.ranges[len(s.ranges)-1], "bytes=3-", "resumed from")
	d.Bytes = int64(len(content))
	for name, d := range map[string]Download{"hashing": d, "copying": {Local: d.Part, Part: d.Part + ".copy"}} {
		assert.ErrorIs(t, assert.Err(d.Run(ctx)), stop, "%s", name)
	}
}

type transport func(r *http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A download may take as long as it likes, but not stop for longer than the stall timeout.
func TestStalls(t *testing.T) {
	for name, c := range map[string]struct {
		waits []time.Duration // before each byte
		want  error
	}{
		"slow":         {slices.Repeat([]time.Duration{stallTimeout - time.Second}, 20), nil},
		"stalled":      {[]time.Duration{time.Second, 2 * stallTimeout, time.Second}, errStalled},
		"never begins": {[]time.Duration{2 * stallTimeout}, errStalled},
	} {
		part := filepath.Join(t.TempDir(), "part")
		synctest.Test(t, func(t *testing.T) {
			client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
				body, feed := io.Pipe()
				go func() {
					for _, wait := range c.waits {
						select {
						case <-time.After(wait):
							feed.Write([]byte("x"))
						case <-r.Context().Done(): // as a connection does
							feed.CloseWithError(r.Context().Err())
						}
					}
					feed.Close()
				}()
				return &http.Response{StatusCode: http.StatusOK, ContentLength: int64(len(c.waits)), Body: body, Header: http.Header{}}, nil
			})}
			_, err := (Download{URL: "https://host/file", Part: part, Client: client}).Run(t.Context())
			assert.ErrorIs(t, err, c.want, "%s", name)
		})
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	d := Download{Local: filepath.Join(dir, "file"), Part: filepath.Join(dir, "file.part"), Bytes: 4, SHA256: sumOf("text")}
	write(t, d.Part, "te of another")
	for content, want := range map[string]error{"text": nil, "tixt": ErrMismatch, "texts": ErrMismatch} {
		write(t, d.Local, content)
		sum, err := d.Run(t.Context())
		assert.ErrorIs(t, err, want, "%s", content)
		assert.True(t, err != nil || sum == sumOf("text") && read(d.Part) == "text", "%s: %q %q", content, sum, read(d.Part))
	}
	for _, d.Local = range []string{dir, "/dev/zero"} {
		assert.ErrorIs(t, assert.Err(d.Run(t.Context())), safefile.ErrNotRegular, "%s", d.Local)
	}
}

// TestPartOfAnother: what another user may have put in place of a part is begun anew and not written to.
func TestPartOfAnother(t *testing.T) {
	for name, put := range map[string]func(old, new string) error{"link": os.Symlink, "second name": os.Link} {
		s, d := newSite(t, nil)
		kept := filepath.Join(filepath.Dir(d.Part), "kept")
		write(t, kept, content[:3])
		assert.Must(t, put(kept, d.Part), put(kept, d.Part+".from"))
		d.SHA256 = sumOf(content)
		assert.NoError(t, assert.Err(d.Run(t.Context())), "%s", name)
		assert.True(t, s.ranges[0] == "" && read(kept) == content[:3], "%s: asked for %q, kept %q", name, s.ranges, read(kept))
	}
}

func TestNoRoom(t *testing.T) {
	d := Download{Local: filepath.Join(t.TempDir(), "huge"), Part: filepath.Join(t.TempDir(), "part")}
	write(t, d.Local, "")
	if err := os.Truncate(d.Local, 1<<43); err != nil {
		t.Skip(err)
	}
	assert.ErrorSays(t, assert.Err(d.Run(t.Context())), syscall.ENOSPC, "no room in "+filepath.Dir(d.Part), "room for 8 TB")
}
