// Package fetch brings one file from the network or from a folder. What breaks off is resumed, what
// came is verified.
package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"hailoclip/hailo/safefile"
)

var (
	// ErrDownload says that the server or the network did not give the file.
	ErrDownload = errors.New("download failed")
	// ErrMismatch says that the file has another size or digest than it must have.
	ErrMismatch = errors.New("not the file that it should be")

	errStopped = errors.New("stopped") // in the middle
	errStalled = errors.New("no data for too long")
)

const (
	stallTimeout = time.Minute // without any data
	maxAttempts  = 5           // in a row that bring something
	maxBytes     = 16 << 30
)

// Download is one file to bring. It collects the file in Part, whose folder must exist; beside it,
// Part.from says what it is a part of. Two downloads must not share a Part at the same time.
type Download struct {
	URL    string // https; a redirect to anything else is refused
	Local  string // path of a file to copy instead; "": from URL
	Part   string
	Bytes  int64  // what it must have; 0: not known
	SHA256 string // in hex; "": not known

	// Progress, if not nil, hears often of bytes there and bytes in all, 0 or less where that is not
	// known. Run calls it and waits for it.
	Progress func(done, total int64)
	// Client, if not nil, is used instead of one that takes the proxy from the environment.
	Client *http.Client
}

// Run blocks until Part is whole, on disk, and has the size and digest that it must have, and
// returns its SHA-256. After any error but ErrMismatch, the next Run goes on with what is there.
// Errors: ErrDownload, ErrMismatch (the part is removed), those of the disk, or the cause of ctx.
func (d Download) Run(ctx context.Context) (sum string, err error) {
	if d.Progress == nil {
		d.Progress = func(int64, int64) {}
	}
	if d.Local != "" {
		err = d.copyLocal(ctx)
	} else {
		err = d.download(ctx)
	}
	if err == nil {
		sum, err = d.verify(ctx)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("no room in %s: %w; make room and try again", filepath.Dir(d.Part), err)
	}
	return sum, err
}

// download requests the file until it is whole: a connection that breaks is taken up again as long
// as each one brings something.
func (d *Download) download(ctx context.Context) error {
	client := http.Client{}
	if d.Client != nil {
		client = *d.Client
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
		before := d.size()
		err := d.request(ctx, &client)
		if err == nil || ctx.Err() != nil || !errors.Is(err, errStopped) || d.size() <= before || attempt == maxAttempts {
			return err
		}
	}
}

func (d *Download) copyLocal(ctx context.Context) error {
	src, err := safefile.OpenRegular(d.Local)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if d.Bytes != 0 && info.Size() != d.Bytes {
		return fmt.Errorf("%w: %s has %d bytes, want %d", ErrMismatch, d.Local, info.Size(), d.Bytes)
	}
	if err := errors.Join(Remove(d.Part), checkSpace(filepath.Dir(d.Part), info.Size())); err != nil {
		return err
	}
	_, err = d.append(ctx, src, 0, info.Size(), func() {})
	return err
}

// append writes body to the end of the part, which has offset bytes, and syncs the part. total is
// how long it is then, less than 0 if that is not known. It calls alive whenever something comes.
func (d *Download) append(ctx context.Context, body io.Reader, offset, total int64, alive func()) (n int64, err error) {
	f, err := safefile.OpenOwn(d.Part, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	done := offset
	w := writerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := f.Write(p)
		done += int64(n)
		alive()
		d.Progress(done, max(total, d.Bytes))
		return n, err
	})
	limit := cmp.Or(max(total, 0), d.Bytes, maxBytes)
	n, err = io.Copy(w, io.LimitReader(body, limit-offset))
	if err == nil && total < 0 {
		if k, _ := io.ReadFull(body, make([]byte, 1)); k > 0 { // removed, or it would be taken for whole
			return n, errors.Join(fmt.Errorf("more than %d bytes came", limit), Remove(d.Part))
		}
	}
	if err == nil && done < total {
		err = io.ErrUnexpectedEOF
	}
	return n, cmp.Or(err, f.Sync())
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// verify compares the whole part with what it must be, and removes it if it is not: to resume it
// would not make it better.
func (d *Download) verify(ctx context.Context) (sum string, err error) {
	if n := d.size(); d.Bytes != 0 && n != d.Bytes {
		err = fmt.Errorf("%w: it has %d bytes, want %d", ErrMismatch, n, d.Bytes)
	} else if sum, err = safefile.SHA256(ctx, d.Part); err == nil && d.SHA256 != "" && sum != d.SHA256 {
		err = fmt.Errorf("%w: it has SHA-256 %s, want %s", ErrMismatch, sum, d.SHA256)
	}
	if errors.Is(err, ErrMismatch) {
		err = errors.Join(err, Remove(d.Part))
	}
	return sum, err
}

// size is that of the part; 0 where it is not there or somebody else may have made it.
func (d *Download) size() int64 {
	info, err := os.Lstat(d.Part)
	if err != nil || !safefile.IsOwn(info) {
		return 0
	}
	return info.Size()
}

// Remove removes a part and what belongs to it, if they are there.
func Remove(part string) error {
	var errs []error
	for _, p := range []string{part, part + validatorSuffix} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// checkSpace says whether dir has room for n more bytes.
func checkSpace(dir string, n int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return nil //nolint:nilerr // writing will tell
	}
	if free := int64(st.Bavail) * st.Bsize; n > free {
		return fmt.Errorf("%w: %d MB are needed, %d MB are free", syscall.ENOSPC, n/1e6+1, free/1e6)
	}
	return nil
}
