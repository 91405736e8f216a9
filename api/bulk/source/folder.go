package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hailoclip/api/bulk"
	"hailoclip/api/stream/source"
)

const (
	heldNames  = 1 << 16 // of one folder in memory at once; a larger one is read again for each so many
	maxFolders = 128     // within each other
)

// folder is a folder with those below it, in the order of their names: img2 before img10. No links are followed, names that
// begin with a dot are ignored, images are known by their suffix, and pipes and devices never opened. A folder that is written to
// meanwhile is read as it is when its turn comes.
type folder struct {
	o          Options
	path, name string
	held       int
}

func (f *folder) Name() string { return f.name }

func (f *folder) Each(ctx context.Context, found func(bulk.Item) error) error {
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return found(failing(f.path, err))
	}
	defer func() { _ = root.Close() }()
	w := walk{folder: f, ctx: ctx, found: found}
	return w.below(root, "", 0)
}

type walk struct {
	*folder
	ctx   context.Context
	found func(bulk.Item) error
}

type entry struct {
	name   string
	folder bool
}

// below tells what is in a folder; rel is its path below the root.
func (w *walk) below(dir *os.Root, rel string, depth int) error {
	for last := ""; ; {
		entries, more, err := w.names(dir, last)
		for _, e := range entries {
			if err := w.one(dir, e, filepath.Join(rel, e.name), depth); err != nil {
				return err
			}
		}
		switch {
		case w.ctx.Err() != nil:
			return context.Cause(w.ctx)
		case err != nil:
			return w.fail(rel, err)
		case !more:
			return nil
		}
		last = entries[len(entries)-1].name
	}
}

func (w *walk) one(dir *os.Root, e entry, rel string, depth int) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if e.folder && depth == maxFolders {
		return w.fail(rel, fmt.Errorf("it is more than %d folders deep", maxFolders))
	}
	if e.folder {
		sub, err := dir.OpenRoot(e.name)
		if err != nil {
			return w.fail(rel, err)
		}
		defer func() { _ = sub.Close() }()
		return w.below(sub, rel, depth+1)
	}
	info, err := dir.Lstat(e.name)
	switch {
	case err != nil:
		return w.fail(rel, err)
	case !info.Mode().IsRegular():
		return w.fail(rel, errNotRegular)
	}
	return w.found(bulk.Item{
		Path: label(filepath.Join(w.path, rel)), Size: info.Size(), Modified: sane(info.ModTime()),
		Open: func(ctx context.Context) ([]byte, error) { return w.read(ctx, rel) },
	})
}

func (w *walk) fail(rel string, err error) error {
	return w.found(failing(filepath.Join(w.path, rel), err))
}

// read reads a file by its path below the root. It cannot be led out of there by a link that was put into its way since.
func (f *folder) read(ctx context.Context, rel string) ([]byte, error) {
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	file, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not wait for its writer
	if err != nil {
		return nil, err
	}
	return readFile(ctx, file, f.o.MaxImageBytes)
}

// names returns the first names behind last, in order, and whether there are more. With an error they are what could be read.
func (w *walk) names(dir *os.Root, last string) (held []entry, more bool, err error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer d.Close()
	byName := func(a, b entry) int { return source.Natural(a.name, b.name) }
	highest := "" // of those held, when they are as many as may be
	for err == nil && w.ctx.Err() == nil {
		var some []os.DirEntry
		some, err = d.ReadDir(1024)
		for _, e := range some {
			name := e.Name()
			switch {
			case strings.HasPrefix(name, "."), !w.wanted(e, last == ""), last != "" && source.Natural(name, last) <= 0:
				continue
			case highest != "" && source.Natural(name, highest) > 0:
				more = true
				continue
			}
			held = append(held, entry{name, e.IsDir()})
			if len(held) == 2*w.held {
				slices.SortFunc(held, byName)
				clear(held[w.held:])
				held, more = held[:w.held], true
				highest = held[w.held-1].name
			}
		}
	}
	slices.SortFunc(held, byName)
	if len(held) > w.held {
		clear(held[w.held:])
		held, more = held[:w.held], true
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return held, more, err
}

// wanted says whether a name is that of a folder or an image, and tells what else it is if it is seen the first time.
func (w *walk) wanted(e os.DirEntry, first bool) bool {
	kind := ""
	switch mode := e.Type(); {
	case mode.IsDir(), mode.IsRegular() && source.IsImage(e.Name()):
		return true
	case mode.IsRegular():
		kind = kindOf(e.Name())
	case mode&os.ModeSymlink != 0:
		kind = "links"
	default:
		kind = "pipes, sockets and devices"
	}
	if first {
		w.o.Skipped(kind)
	}
	return false
}
