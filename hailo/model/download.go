package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hailoclip/hailo/safefile"
)

const (
	validatorSuffix  = ".from" // beside NAME.part: what it is a part of
	stallTimeout     = time.Minute
	downloadAttempts = 5 // in a row that gain something
)

var errStalled = errors.New("no data for too long")

// download brings one file by HTTPS into part, and goes on with what is in it.
type download struct {
	client   *http.Client // nil: a new one
	url      string
	part     string
	want     File // Bytes and SHA256, where known
	stall    time.Duration
	progress func(done, total int64)
}

// validator tells whether a part still belongs to what the server has now.
type validator struct {
	URL  string `json:"url"`
	ETag string `json:"etag,omitempty"`
	Date string `json:"last_modified,omitempty"`
}

// run fetches until the part is whole. A connection that breaks is taken up again as long as each
// attempt brings something.
func (d *download) run(ctx context.Context) error {
	client := http.Client{}
	if d.client != nil {
		client = *d.client
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = stallTimeout
		client.Transport = t
		defer t.CloseIdleConnections()
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" {
			return fmt.Errorf("redirect to %s refused: not https", r.URL.Redacted())
		}
		if len(via) >= 10 {
			return errors.New("too many redirects")
		}
		return nil
	}
	for attempt := 1; ; attempt++ {
		before := size(d.part)
		err := d.once(ctx, &client)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var broken *brokenError
		if !errors.As(err, &broken) || size(d.part) <= before || attempt == downloadAttempts {
			return err
		}
	}
}

// brokenError is a download that stopped in the middle.
type brokenError struct{ error }

func (b *brokenError) Unwrap() error { return b.error }

// size is that of a part; 0 where it is not there or somebody else may have made it.
func size(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil || !safefile.IsOwn(info) {
		return 0
	}
	return info.Size()
}

// once sends one request and writes its answer to the part.
func (d *download) once(ctx context.Context, client *http.Client) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	offset, ifRange := d.resumable()
	if offset > 0 && offset == d.want.Bytes {
		d.progress(offset, offset)
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "hailo-clip")
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if ifRange != "" {
			req.Header.Set("If-Range", ifRange)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDownload, err)
	}
	defer resp.Body.Close()
	offset, total, err := d.judge(resp, offset)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDownload, d.url, err)
	}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil // the part is whole
	}
	if err := d.prepare(resp, offset, total); err != nil {
		return err
	}
	return d.write(ctx, cancel, resp.Body, offset, total)
}

// resumable returns how much of the part can be kept, and the If-Range of the request for the
// rest: without one, a file that changed on the server would be glued to the old part, which only
// a known digest would notice.
func (d *download) resumable() (offset int64, ifRange string) {
	offset = size(d.part)
	if offset == 0 || d.want.Bytes != 0 && offset > d.want.Bytes {
		return 0, ""
	}
	var v validator
	data, err := readLimited(d.part+validatorSuffix, 1<<16)
	switch {
	case err == nil && (json.Unmarshal(data, &v) != nil || v.URL != d.url):
		return 0, ""
	case v.ETag != "" && !strings.HasPrefix(v.ETag, "W/"):
		return offset, v.ETag
	case v.Date != "":
		return offset, v.Date
	case d.want.SHA256 != "":
		return offset, ""
	}
	return 0, ""
}

// judge reads the head of an answer: where its body begins in the file, and how long the whole
// file is (-1: not known).
func (d *download) judge(resp *http.Response, offset int64) (from, total int64, err error) {
	rangeHeader := resp.Header.Get("Content-Range")
	switch resp.StatusCode {
	case http.StatusOK:
		from, total = 0, resp.ContentLength
	case http.StatusPartialContent:
		var last int64
		if n, _ := fmt.Sscanf(rangeHeader, "bytes %d-%d/%d", &from, &last, &total); n != 3 || from != offset || offset == 0 || last != total-1 {
			return 0, 0, fmt.Errorf("asked for bytes %d on, the server answered %q", offset, rangeHeader)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if n, _ := fmt.Sscanf(rangeHeader, "bytes */%d", &total); n == 1 && total == offset && offset > 0 {
			return offset, total, nil
		}
		return 0, 0, errors.Join(fmt.Errorf("the part of %d bytes does not fit the file there; it is removed, pull again", offset), removeParts(d.part))
	default:
		return 0, 0, fmt.Errorf("the server answered %s", resp.Status)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/html" {
		return 0, 0, errors.New("the server answered with a web page")
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return 0, 0, fmt.Errorf("the server answered with Content-Encoding %q", e)
	}
	if d.want.Bytes != 0 && total >= 0 && total != d.want.Bytes {
		return 0, 0, fmt.Errorf("the file there has %d bytes, want %d", total, d.want.Bytes)
	}
	if total < 0 && d.want.Bytes == 0 && d.want.SHA256 == "" { // a cut could not be told from the end
		return 0, 0, errors.New("the server does not say how long the file is")
	}
	if total > maxModelFile {
		return 0, 0, fmt.Errorf("the file there has %d bytes, at most %d", total, int64(maxModelFile))
	}
	return from, total, nil
}

// prepare cuts the part to offset, notes what it is a part of, and looks for room.
func (d *download) prepare(resp *http.Response, offset, total int64) error {
	data, err := json.Marshal(validator{d.url, resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")})
	if err != nil {
		return err
	}
	if offset == 0 {
		if err := removeParts(d.part); err != nil {
			return err
		}
	}
	if err := safefile.Replace(d.part+validatorSuffix, data); err != nil {
		return err
	}
	if total > offset {
		return checkSpace(filepath.Dir(d.part), total-offset)
	}
	return nil
}

// write appends the body to the part and puts it on disk, whole or not.
func (d *download) write(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader, offset, total int64) (err error) {
	f, err := safefile.OpenOwn(d.part, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	limit := total
	if limit < 0 {
		limit = d.want.Bytes
	}
	if limit <= 0 {
		limit = maxModelFile
	}
	stall := time.AfterFunc(d.stall, func() { cancel(errStalled) })
	defer stall.Stop()
	w := &progressWriter{w: f, done: offset, total: max(total, d.want.Bytes), progress: func(done, total int64) {
		stall.Reset(d.stall)
		d.progress(done, total)
	}}
	n, err := io.Copy(w, io.LimitReader(body, limit-offset))
	switch {
	case err == nil && total >= 0 && offset+n < total:
		err = io.ErrUnexpectedEOF
	case err == nil && total < 0:
		var one [1]byte
		if k, _ := io.ReadFull(body, one[:]); k > 0 { // removed, or it would be taken for whole
			return errors.Join(fmt.Errorf("%w: %s: more than %d bytes came", ErrDownload, d.url, limit), removeParts(d.part))
		}
	}
	if err == nil {
		return f.Sync()
	}
	var onDisk *os.PathError
	if errors.As(err, &onDisk) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &brokenError{fmt.Errorf("%w: %s: stopped after %d bytes: %w", ErrDownload, d.url, offset+n, err)}
}
