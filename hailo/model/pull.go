package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/safefile"
)

const partSuffix = ".part"

// PullOptions says what Pull does.
type PullOptions struct {
	Which   Part   // the files to install; the zero value is all that the manifest lists
	FromDir string // copy them from this folder instead of the network; see Pull
	Zoo     string // release of the vendor's model zoo, see ZooRelease; "": the manifest's own

	Revision string // of the repository on huggingface.co, a commit or tag; "": the manifest's own

	// Progress, if not nil, hears of each file often: bytes there of bytes in all, 0 where that is
	// not known. It is called by Pull's own goroutine and should be quick.
	Progress func(file string, done, total int64)
	// Client, if not nil, is used instead of one that takes the proxy from the environment.
	// Redirects to anything but https are refused with either.
	Client *http.Client
}

// Pull installs the files of a model into the models folder, each of them complete or not at all: it
// comes as NAME.part, and gets its name once size, kind and SHA-256 are right and it is on disk.
// Files that are there and right are kept, a part that is there is resumed. Where the manifest
// has no digest, that of the first pull is recorded and later pulls are held to it; to accept
// another file, remove the model first.
//
// With FromDir, the files are found there by their names, or where the vendor's applications keep
// them (FromDir may be VendorResources).
//
// Pull blocks until all is there. One that was cancelled, or failed for the network or the disk, goes
// on where it stopped when it is called again. Errors: ErrUnknown, ErrBusy, ErrDownload,
// ErrFile, those of the disk, or the cause of ctx.
func (s *Catalog) Pull(ctx context.Context, name string, o PullOptions) error {
	if s.Builtin != nil && name == s.Builtin.Name {
		return fmt.Errorf("model %s is part of the program, there is nothing to pull", name)
	}
	m, err := s.manifest(name, o.Zoo)
	if err == nil && o.Revision != "" {
		m, err = m.ForRevision(o.Revision)
	}
	if err != nil {
		return err
	}
	if o.Which != AllParts && len(m.PartFiles(o.Which)) == 0 {
		return fmt.Errorf("model %s has no files for %q", name, o.Which)
	}
	unlock, err := s.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(s.Dir, name)
	if err := safefile.MakeFolder(dir); err != nil {
		return err
	}
	recs, err := readRecords(dir)
	if err != nil {
		return err
	}
	for _, file := range m.PartFiles(o.Which) {
		if err := pullFile(ctx, dir, file, m.Files[file], recs, o); err != nil {
			return fmt.Errorf("pull %s: %s: %w", name, file, err)
		}
	}
	return nil
}

// lock keeps other processes from changing the model until unlock is called. The lock file stays:
// to remove it would open a gap between those that wait for it.
func (s *Catalog) lock(name string) (unlock func(), err error) {
	if err := safefile.MakeFolder(s.Dir); err != nil {
		return nil, err
	}
	// Nothing is written to it, so that it may be another user's: systemd gives the folder to the service's.
	f, err := os.OpenFile(filepath.Join(s.Dir, "."+name+".lock"), os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %s", ErrBusy, name)
		}
		return nil, err
	}
	return func() { f.Close() }, nil // closing gives up the lock
}

// pullFile installs one file.
func pullFile(ctx context.Context, dir, name string, f File, recs records, o PullOptions) error {
	want := f
	if rec, ok := recs[name]; ok && rec.URL == f.URL && f.SHA256 == "" {
		want.Bytes, want.SHA256 = rec.Bytes, rec.SHA256
	}
	progress := func(done, total int64) {
		if o.Progress != nil {
			o.Progress(name, done, total)
		}
	}
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err == nil {
		rec, recorded := recs[name]
		if _, err := recs.check(ctx, path, info, f); err == nil && (!recorded || rec.URL == f.URL) {
			progress(info.Size(), info.Size())
			if recorded {
				if recs[name] != rec {
					return recs.write(dir)
				}
				return nil
			}
			return recordFile(ctx, dir, name, path, f.URL, recs)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	part := path + partSuffix
	var err error
	switch {
	case o.FromDir != "":
		err = copyPart(ctx, o.FromDir, name, part, want, progress)
	case f.URL == "":
		err = errors.New("it has no public address; give the folder it is in with --from-dir")
	default:
		d := &download{client: o.Client, url: f.URL, part: part, want: want, stall: stallTimeout, progress: progress}
		err = d.run(ctx)
	}
	if err != nil {
		return explainDisk(err, dir)
	}
	if err := checkPart(ctx, part, want, recs[name]); err != nil {
		if errors.Is(err, ErrFile) { // resuming would not make it better
			err = errors.Join(err, removeParts(part))
		}
		return err
	}
	if err := recordFile(ctx, dir, name, part, f.URL, recs); err != nil {
		return explainDisk(err, dir)
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return errors.Join(removeParts(part), syncDir(dir))
}

// checkPart says whether a whole part is what it should be.
func checkPart(ctx context.Context, part string, want File, rec record) error {
	info, err := os.Stat(part)
	if err != nil {
		return err
	}
	if err := checkKindOfFile(part, info); err != nil {
		return err
	}
	if want.Bytes != 0 && info.Size() != want.Bytes {
		return fmt.Errorf("%w: it has %d bytes, want %d", ErrFile, info.Size(), want.Bytes)
	}
	if want.SHA256 == "" {
		return nil
	}
	err = checkSHA256(ctx, part, want.SHA256)
	if errors.Is(err, ErrFile) && want.SHA256 == rec.SHA256 {
		err = fmt.Errorf("%w, recorded at the first pull; remove the model first if the new file is wanted", err)
	}
	return err
}

// recordFile writes down what the file at path is: before it gets its name, so that no file is there
// without a record.
func recordFile(ctx context.Context, dir, name, path, url string, recs records) error {
	sum, err := hashFile(ctx, path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	recs[name] = record{URL: url, Bytes: info.Size(), SHA256: sum, ModTime: info.ModTime(), Recorded: time.Now().UTC().Truncate(time.Second)}
	return recs.write(dir)
}

// copyPart copies a file from a folder, where it is by its name or where the vendor keeps it.
func copyPart(ctx context.Context, dir, name, part string, f File, progress func(done, total int64)) error {
	src, err := safefile.OpenRegular(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) && f.Vendor != "" {
		src, err = safefile.OpenRegular(filepath.Join(dir, filepath.FromSlash(f.Vendor)))
	}
	if errors.Is(err, safefile.ErrNotRegular) {
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := checkKindOfFile(src.Name(), info); err != nil {
		return err
	}
	if f.Bytes != 0 && info.Size() != f.Bytes {
		return fmt.Errorf("%w: %s has %d bytes, want %d", ErrFile, src.Name(), info.Size(), f.Bytes)
	}
	if err := errors.Join(removeParts(part), checkSpace(filepath.Dir(part), info.Size())); err != nil {
		return err
	}
	dst, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w := &progressWriter{w: dst, total: info.Size(), progress: progress}
	_, err = io.Copy(w, contextReader{ctx, io.LimitReader(src, info.Size())})
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}

// progressWriter tells how much was written.
type progressWriter struct {
	w           io.Writer
	done, total int64
	progress    func(done, total int64)
}

func (p *progressWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.done += int64(n)
	p.progress(p.done, p.total)
	return n, err
}

// checkSpace says whether dir has room for n more bytes.
func checkSpace(dir string, n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil //nolint:nilerr // writing will tell
	}
	if free := int64(st.Bavail) * st.Bsize; n > free {
		return fmt.Errorf("%w: %d MB are needed, %d MB are free", unix.ENOSPC, n/1e6+1, free/1e6)
	}
	return nil
}

// explainDisk names the folder where the disk is full.
func explainDisk(err error, dir string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("no room in %s: %w; make room and pull again", dir, err)
	}
	return err
}

// removeParts removes a part and what belongs to it, if they are there.
func removeParts(part string) error {
	var errs []error
	for _, p := range []string{part, part + validatorSuffix} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
