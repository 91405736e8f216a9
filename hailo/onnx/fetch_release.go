package onnx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/safefile"
)

// releaseURL is the vendor's release page.
const releaseURL = "https://github.com/microsoft/onnxruntime/releases/download/v" + FetchVersion

// fetchRelease downloads the vendor's tarball and takes the library out. What was downloaded is
// kept when it breaks off, and the next try goes on from there.
func fetchRelease(ctx context.Context, o FetchOptions, b build, path string) error {
	url := o.ReleaseURL
	if url == "" {
		url = releaseURL
	}
	part := filepath.Join(o.Dir, b.release+".part")
	f, err := openPart(part)
	if err != nil {
		return err
	}
	defer f.Close() // the last step, because it ends the lock
	if err := download(ctx, url+"/"+b.release, f, b.releaseBytes, o.Progress); err != nil {
		if info, statErr := f.Stat(); statErr == nil && info.Size() == 0 {
			os.Remove(part) // nothing came: nothing to go on with
		}
		return err
	}
	defer os.Remove(part) // it is whole: right or wrong, there is nothing to go on with
	digest, err := fileDigest(part)
	if err != nil {
		return err
	}
	if digest != b.releaseDigest {
		return fmt.Errorf("%w: %s has %s, must be %s", ErrDigest, b.release, digest, b.releaseDigest)
	}
	return unpack(ctx, part, path, b.releaseLibrary, "")
}

// openPart opens the file that a download goes to, for this process alone until it is closed.
func openPart(path string) (*os.File, error) {
	f, err := safefile.OpenOwn(path, os.O_RDWR)
	if errors.Is(err, safefile.ErrForeign) {
		err = fmt.Errorf("%w; remove it", err)
	}
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		// Who held the lock before may have removed the file since we opened it.
		var ours, there os.FileInfo
		if ours, err = f.Stat(); err == nil {
			if there, err = os.Stat(path); err == nil && os.SameFile(ours, there) {
				return f, nil
			}
		}
	}
	f.Close()
	return nil, fmt.Errorf("%s: another process is downloading it", filepath.Base(path))
}

// stallTimeout ends a download in which nothing arrives for so long.
const stallTimeout = time.Minute

// download brings f to exactly total bytes of url, beginning after those that it has.
func download(ctx context.Context, url string, f *os.File, total int64, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("nothing arrived for %v", stallTimeout)) })
	defer stalled.Stop()

	have, err := f.Seek(0, io.SeekEnd)
	if err != nil || have == total {
		return err
	}
	if have > total {
		have = 0
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return cause(ctx, err)
	}
	defer response.Body.Close()
	var from int64
	switch response.StatusCode {
	case http.StatusOK: // from the beginning, whatever we asked for
	case http.StatusPartialContent:
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != have {
			return fmt.Errorf("%s: asked for bytes from %d, got %q", url, have, response.Header.Get("Content-Range"))
		}
	default:
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err
	}
	if err := f.Truncate(from); err != nil {
		return err
	}
	w := &meter{file: f, done: from, total: total, progress: progress, alive: func() { stalled.Reset(stallTimeout) }}
	if _, err := io.Copy(w, response.Body); err != nil {
		return cause(ctx, fmt.Errorf("%s: %w", url, err))
	}
	if w.done < total {
		return fmt.Errorf("%s: ended after %d of %d bytes", url, w.done, total)
	}
	return nil
}

// cause is why ctx ended, where that is what err comes from.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// meter writes to a file, reports the progress, and refuses more than total bytes.
type meter struct {
	file        *os.File
	done, total int64
	progress    func(done, total int64)
	alive       func()
}

func (m *meter) Write(p []byte) (int, error) {
	if int64(len(p)) > m.total-m.done {
		return 0, errors.Join(ErrDigest, fmt.Errorf("more than %d bytes", m.total))
	}
	n, err := m.file.Write(p)
	m.done += int64(n)
	m.progress(m.done, m.total)
	m.alive()
	return n, err
}
