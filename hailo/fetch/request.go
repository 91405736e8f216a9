package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"hailoclip/hailo/safefile"
)

const validatorSuffix = ".from"

// validator tells whether a part still belongs to what the server has now.
type validator struct {
	URL  string `json:"url"`
	ETag string `json:"etag,omitempty"`
	Date string `json:"last_modified,omitempty"`
}

// request sends one request for what is missing of the part, and appends its answer.
func (d *Download) request(ctx context.Context, client *http.Client) error {
	offset, ifRange := d.resumable()
	if offset > 0 && offset == d.Bytes {
		d.Progress(offset, offset)
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL, nil)
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
		return fmt.Errorf("%w: %w", ErrDownload, cause(ctx, err))
	}
	defer resp.Body.Close()
	offset, total, err := d.judge(resp, offset)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDownload, d.URL, err)
	}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil // the part is whole
	}
	if err := d.prepare(resp.Header, offset, total); err != nil {
		return err
	}
	n, err := d.append(ctx, resp.Body, offset, total, func() { stall.Reset(stallTimeout) })
	var onDisk *fs.PathError
	if err == nil || errors.As(err, &onDisk) {
		return err
	}
	return fmt.Errorf("%w: %s: %w after %d bytes: %w", ErrDownload, d.URL, errStopped, offset+n, cause(ctx, err))
}

// cause is why ctx ended, if it did, else err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// resumable returns how much of the part can be kept, and the If-Range of the request for the
// rest: without one, a file that changed on the server would be glued to the old part, which only
// a known digest would notice.
func (d *Download) resumable() (offset int64, ifRange string) {
	offset = d.size()
	if offset == 0 || d.Bytes != 0 && offset > d.Bytes {
		return 0, ""
	}
	var v validator
	data, err := safefile.ReadFile(d.Part+validatorSuffix, 1<<16)
	switch {
	case err == nil && (json.Unmarshal(data, &v) != nil || v.URL != d.URL):
		return 0, ""
	case v.ETag != "" && !strings.HasPrefix(v.ETag, "W/"):
		return offset, v.ETag
	case v.Date != "":
		return offset, v.Date
	case d.SHA256 != "":
		return offset, ""
	}
	return 0, ""
}

// judge reads the head of an answer: where its body begins in the file, and how long the whole
// file is (-1: not known).
func (d *Download) judge(resp *http.Response, offset int64) (from, total int64, err error) {
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
		return 0, 0, errors.Join(fmt.Errorf("the part of %d bytes does not fit the file there; it is removed, try again", offset), Remove(d.Part))
	default:
		return 0, 0, fmt.Errorf("the server answered %s", resp.Status)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case kind == "text/html":
		err = errors.New("the server answered with a web page")
	case encoding != "" && encoding != "identity":
		err = fmt.Errorf("the server answered with Content-Encoding %q", encoding)
	case d.Bytes != 0 && total >= 0 && total != d.Bytes:
		err = fmt.Errorf("the file there has %d bytes, want %d", total, d.Bytes)
	case total < 0 && d.Bytes == 0 && d.SHA256 == "": // a cut could not be told from the end
		err = errors.New("the server does not say how long the file is")
	case total > maxBytes:
		err = fmt.Errorf("the file there has %d bytes, at most %d", total, int64(maxBytes))
	}
	return from, total, err
}

// prepare empties the part if offset is 0, writes down what it is a part of, and looks for room.
func (d *Download) prepare(h http.Header, offset, total int64) error {
	if offset == 0 {
		if err := Remove(d.Part); err != nil {
			return err
		}
	}
	data, err := json.Marshal(validator{d.URL, h.Get("ETag"), h.Get("Last-Modified")})
	if err != nil {
		return err
	}
	if err := safefile.Replace(d.Part+validatorSuffix, bytes.NewReader(data)); err != nil {
		return err
	}
	return checkSpace(filepath.Dir(d.Part), total-offset)
}
