package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"hailoclip/hailo/fetch"
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
// Files that are there and right are kept, a part that is there is resumed. Those that are made (see
// Manifest.Made) are left out where FromDir has none. Where the manifest
// has no digest, that of the first pull is recorded and later pulls are held to it; to accept
// another file, remove the model first.
//
// With FromDir, the files are found there by their names, or where the vendor's applications keep
// them (FromDir may be VendorResources).
//
// Pull blocks until all is there. One that was cancelled, or failed for the network or the disk, goes
// on where it stopped when it is called again. Errors: ErrUnknown, ErrBusy, fetch.ErrDownload,
// ErrFile, those of the disk, or the cause of ctx.
func (c *Catalog) Pull(ctx context.Context, name string, o PullOptions) error {
	if c.isBuiltin(name) {
		return fmt.Errorf("model %s is part of the program, there is nothing to pull", name)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	m, err := c.manifest(name, o.Zoo)
	if err == nil && o.Revision != "" {
		m, err = m.ForRevision(o.Revision)
	}
	if err != nil {
		return err
	}
	if o.Which != AllParts && len(m.PartFiles(o.Which)) == 0 {
		return fmt.Errorf("model %s has no files for %q", name, o.Which)
	}
	unlock, err := c.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(c.Dir, name)
	if err := safefile.MakeFolder(dir); err != nil {
		return err
	}
	recs, err := readRecords(dir)
	if err != nil {
		return err
	}
	for _, file := range m.PartFiles(o.Which) {
		path := filepath.Join(dir, file)
		if m.Made(file) && !exists(path) && !exists(localFile(file, m.Files[file], o)) {
			continue // BuildText makes it
		}
		if err := pullFile(ctx, path, m.Files[file], recs, o); err != nil {
			if m.Made(file) {
				err = fmt.Errorf("%w; %s", err, m.HowToMake())
			}
			return fmt.Errorf("pull %s: %s: %w", name, file, err)
		}
	}
	return nil
}

// lock keeps other processes from changing the model until unlock is called.
func (c *Catalog) lock(name string) (unlock func(), err error) {
	if err := safefile.MakeFolder(c.Dir); err != nil {
		return nil, err
	}
	unlock, err = safefile.Lock(filepath.Join(c.Dir, "."+name+".lock"))
	if errors.Is(err, safefile.ErrLocked) {
		err = fmt.Errorf("%w: %s", ErrBusy, name)
	}
	return unlock, err
}

// exists says whether something has that name; nothing has the empty one.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// localFile is where FromDir has a file, or would have it; "" without FromDir.
func localFile(name string, f File, o PullOptions) string {
	if o.FromDir == "" {
		return ""
	}
	path := filepath.Join(o.FromDir, name)
	if !exists(path) && f.Vendor != "" {
		return filepath.Join(o.FromDir, filepath.FromSlash(f.Vendor))
	}
	return path
}

// pullFile installs one file at path.
func pullFile(ctx context.Context, path string, f File, recs records, o PullOptions) error {
	dir, name := filepath.Split(path)
	rec, recorded := recs[name]
	d := fetch.Download{URL: f.URL, Part: path + partSuffix, Bytes: f.Bytes, SHA256: f.SHA256, Client: o.Client}
	d.Progress = func(done, total int64) { o.Progress(name, done, total) }
	pinned := recorded && rec.URL == f.URL && f.SHA256 == ""
	if pinned {
		d.Bytes, d.SHA256 = rec.Bytes, rec.SHA256
	}
	if info, err := os.Stat(path); err == nil {
		sum, err := recs.check(ctx, path, info, f)
		if err == nil && sum == "" {
			sum, err = safefile.SHA256(ctx, path)
		}
		if err == nil && (!recorded || rec.URL == f.URL) {
			d.Progress(info.Size(), info.Size())
			switch {
			case !recorded:
				return recs.add(path, info, f.URL, sum)
			case recs[name] != rec: // it has a new time
				return recs.write(dir)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	switch {
	case o.FromDir != "":
		d.Local = localFile(name, f, o)
		// Before the copy, which takes the place of a part that could be resumed.
		if err := checkKind(d.Local); err != nil && !errors.As(err, new(*fs.PathError)) {
			return err
		}
	case f.URL == "":
		return errors.New("it has no public address; give the folder it is in with --from-dir")
	}
	sum, err := d.Run(ctx)
	switch {
	case errors.Is(err, fetch.ErrMismatch) && pinned:
		return fmt.Errorf("%w: %w, recorded at the first pull; remove the model first if the new file is wanted", ErrFile, err)
	case errors.Is(err, fetch.ErrMismatch), errors.Is(err, safefile.ErrNotRegular):
		return fmt.Errorf("%w: %w", ErrFile, err)
	case err != nil:
		return err
	}
	if err := checkKind(d.Part); err != nil {
		return errors.Join(err, fetch.Remove(d.Part))
	}
	info, err := os.Stat(d.Part)
	if err != nil {
		return err
	}
	// It is recorded before it gets its name, so that no file is there without a record.
	if err := recs.add(path, info, f.URL, sum); err != nil {
		return err
	}
	if err := safefile.Rename(d.Part, path); err != nil {
		return err
	}
	return fetch.Remove(d.Part)
}
