package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"hailoclip/api/bulk"
	"hailoclip/api/stream/source"
	"hailoclip/hailo/safefile"
)

const maxName = 4096 // bytes of the name of an entry

// archive is a tar file. Of an uncompressed one, entries are read where they are at any time; of a compressed one, as it is
// unpacked (Item.Once). Only regular files are read, images by their suffix, not those whose path has a name that begins with a
// dot. Sparse files are refused. An archive that is damaged or goes beyond a limit is told as an item that fails, at its end.
type archive struct {
	o          Options
	path, name string
}

func (a *archive) Name() string { return a.name }

func (a *archive) Each(ctx context.Context, found func(bulk.Item) error) error {
	f, err := safefile.OpenRegular(a.path)
	if err != nil {
		return found(failing(a.path, err))
	}
	defer f.Close()
	e := entries{archive: a, ctx: ctx, found: found, file: f}
	if e.info, err = f.Stat(); err != nil {
		return found(failing(a.path, err))
	}
	if e.info.Size() == 0 { // to tar an archive without entries, but then some are written
		return found(failing(a.path, errors.New("it is empty")))
	}
	if compressionOf(a.path) == plain {
		e.tar = tar.NewReader(ctxFile{ctx, f})
	} else {
		r, err := unpack(ctx, f, compressionOf(a.path), a.o.MaxTotalBytes)
		if err != nil {
			return found(failing(a.path, err))
		}
		defer r.close()
		e.tar, e.once = tar.NewReader(r), true
	}
	return e.all()
}

// entries is a run through an archive.
type entries struct {
	*archive
	ctx   context.Context
	found func(bulk.Item) error
	tar   *tar.Reader
	once  bool
	file  *os.File
	info  fs.FileInfo // of file
}

func (e *entries) all() error {
	for n := int64(0); ; n++ {
		h, err := e.tar.Next()
		switch {
		case e.ctx.Err() != nil:
			return context.Cause(e.ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, tar.ErrInsecurePath): // which names cannot do any harm here
			return e.found(failing(e.path, fmt.Errorf("the archive is read no further: %w", err)))
		case n == e.o.MaxEntries:
			return e.found(failing(e.path, fmt.Errorf("the archive is read no further: it has more than %d entries", n)))
		}
		if err := e.one(h); err != nil {
			return err
		}
	}
}

func (e *entries) one(h *tar.Header) error {
	name := path.Clean("/" + h.Name)
	shown := e.path + "!" + name[:min(len(name), maxName)]
	switch {
	case h.Typeflag == tar.TypeDir, h.Typeflag == tar.TypeXGlobalHeader, strings.Contains(name, "/."):
		return nil
	case h.Typeflag == tar.TypeLink, h.Typeflag == tar.TypeSymlink:
		e.o.Skipped("links")
		return nil
	case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse:
		e.o.Skipped("pipes, sockets and devices")
		return nil
	case !source.IsImage(name):
		e.o.Skipped(kindOf(name))
		return nil
	case len(name) > maxName:
		return e.found(failing(shown, fmt.Errorf("its name has %d bytes, more than %d", len(name), maxName)))
	case isSparse(h):
		return e.found(failing(shown, errors.New("sparse files are not read")))
	}
	item := bulk.Item{Path: label(shown), Size: h.Size, Modified: sane(h.ModTime)}
	if !e.once {
		begin, err := e.file.Seek(0, io.SeekCurrent)
		item.Open = e.at(begin, h.Size)
		if err != nil {
			return e.found(failing(shown, err))
		}
		return e.found(item)
	}
	c := &current{r: e.tar, size: h.Size, limit: e.o.MaxImageBytes}
	defer c.end()
	item.Open, item.Once = c.open, true
	return e.found(item)
}

// isSparse says whether an entry has holes, which a few bytes can make as large as they like.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// at returns what opens the content at a place of the archive, if that is the same file still.
func (e *entries) at(begin, size int64) func(context.Context) ([]byte, error) {
	path, info, limit := e.path, e.info, e.o.MaxImageBytes
	return func(ctx context.Context) ([]byte, error) {
		f, err := safefile.OpenRegular(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		now, err := f.Stat()
		switch {
		case err != nil:
			return nil, err
		case !os.SameFile(info, now), now.Size() != info.Size(), !now.ModTime().Equal(info.ModTime()):
			return nil, errors.New("the archive has changed")
		}
		b, err := readAll(ctx, io.NewSectionReader(f, begin, size), size, limit)
		if err == nil && int64(len(b)) != size {
			return nil, io.ErrUnexpectedEOF
		}
		return b, err
	}
}

// current is the entry that an archive is unpacked to.
type current struct {
	mu      sync.Mutex
	r       io.Reader // nil: the archive has gone on
	size    int64
	limit   int
	read    bool
	content []byte
	err     error
}

func (c *current) open(ctx context.Context) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.r == nil {
		return nil, errors.New("the archive has been unpacked further")
	}
	if !c.read {
		c.read = true
		c.content, c.err = readAll(ctx, c.r, c.size, c.limit)
	}
	return c.content, c.err
}

func (c *current) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r, c.content = nil, nil
}

// ctxFile is a file that is read until ctx ends.
type ctxFile struct {
	ctx context.Context
	*os.File
}

func (f ctxFile) Read(p []byte) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	return f.File.Read(p)
}
