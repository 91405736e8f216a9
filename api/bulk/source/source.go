// Package source finds images for the index: in folders, lists of paths, tar archives, and listings that web servers make of
// folders. All of them are taken for hostile: sizes, depths, numbers and names have limits before anything is allocated, and no
// name that is found in one is ever a path on disk, but for those in lists.
//
// # Paths
//
// A row's path is the address as it was typed, cleaned, joined with what is below it: photos/2024/a.jpg, shard.tar!/2024/a.jpg,
// http://host/photos/a.jpg. Names in archives are cleaned as if the archive were the root (../a is a). Lines of a list are as
// they are written. A path is valid UTF-8 without NUL always: each other byte of a name is U+FFFD with the byte in two
// hexadecimal digits, and U+FFFD itself is doubled, so that no two names have the same path.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"hailoclip/api/bulk"
	"hailoclip/api/outbound"
	"hailoclip/api/stream/source"
	"hailoclip/hailo/safefile"
)

// Options limit what a source does. The zero value is usable.
type Options struct {
	MaxImageBytes int   // of one image; 0: 32 MiB. What is larger is told as an item whose Open fails
	MaxTotalBytes int64 // of a compressed archive unpacked, and of what is downloaded in a run of Each; 0: 1 TiB
	MaxEntries    int64 // of an archive or a listing with what is below it, of all kinds; 0: 100 million

	Stdin io.Reader // what "-" reads: a list

	// Listed are the hosts that addresses within lists may go to: none by default. The address that Open is given is not asked for
	// leave, and what it lists never leaves its host.
	Listed outbound.Allowed

	// Skipped is told the kind of each file that is not looked at: its suffix in lower case, or "links". May be nil.
	Skipped func(kind string)
}

func (o Options) withDefaults() Options {
	if o.MaxImageBytes <= 0 {
		o.MaxImageBytes = 32 << 20
	}
	if o.MaxTotalBytes <= 0 {
		o.MaxTotalBytes = 1 << 40
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 100e6
	}
	if o.Skipped == nil {
		o.Skipped = func(string) {}
	}
	return o
}

// Open returns the source at an address:
//
//	photos, photos/a.jpg          a folder with those below it, an image
//	list.txt, list.list, -        a list: a path or an address a line, or each ended by NUL; - is standard input
//	a.tar, .tar.gz, .tgz, .tar.zst, .tzst
//	http://host/photos/, https://  a listing of a folder, as nginx, Apache, Caddy and Python's http.server make it, or of a bucket
//
// An error says what is wrong with the address, or that there is nothing there; what is found wrong later is told by Each. Each
// of a source must not be called while another call of it runs.
func Open(address string, o Options) (bulk.Source, error) {
	o = o.withDefaults()
	if scheme, _, ok := strings.Cut(address, "://"); ok && !strings.ContainsAny(scheme, "/.") {
		return openListing(address, o)
	}
	if address == "-" {
		if o.Stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		return &list{o: o, path: "-", name: named("-")}, nil
	}
	path := filepath.Clean(address)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return &folder{o: o, path: path, name: named(path), held: heldNames}, nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a file nor a folder", address)
	case isList(path):
		return &list{o: o, path: path, name: named(path)}, nil
	case compressionOf(path) != none:
		return &archive{o: o, path: path, name: named(path)}, nil
	case source.IsImage(path):
		return &file{o: o, path: path, name: named(path)}, nil
	}
	return nil, fmt.Errorf("%s is no source: folders, images, lists (.txt, .list), archives (.tar, .tar.gz, .tgz, .tar.zst, "+
		".tzst) and listings (http://, https://) are read", address)
}

// named is the name of a source: with the working folder where the paths of its rows depend on that.
func named(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	return path + " in " + wd
}

// failing is an item for what cannot be read.
func failing(path string, err error) bulk.Item {
	return bulk.Item{Path: label(path), Size: -1, Open: func(context.Context) ([]byte, error) { return nil, err }}
}

// label is a name as valid UTF-8 without NUL, another for each name.
func label(name string) string {
	if utf8.ValidString(name) && !strings.ContainsAny(name, "\uFFFD\x00") {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && n == 1, r == 0:
			fmt.Fprintf(&b, "\uFFFD%02x", name[i])
		case r == utf8.RuneError:
			b.WriteString("\uFFFD\uFFFD")
		default:
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

// sane is a time that every encoding has, or none.
func sane(t time.Time) time.Time {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return time.Time{}
	}
	return t
}

// kindOf is what Skipped is told of a file.
func kindOf(name string) string { return strings.ToLower(filepath.Ext(name)) }

// readAll reads at most limit bytes; size is how many there should be, or -1.
func readAll(ctx context.Context, r io.Reader, size int64, limit int) ([]byte, error) {
	if size > int64(limit) {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, limit)
	}
	b := make([]byte, 0, max(size+1, 16<<10))
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(cap(b), limit+1)])
		b = b[:len(b)+n]
		switch {
		case len(b) > limit:
			return nil, fmt.Errorf("it has more than %d bytes", limit)
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
	}
}

// readFile reads a regular file whole, and closes it.
func readFile(ctx context.Context, f *os.File, limit int) ([]byte, error) {
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errNotRegular
	}
	return readAll(ctx, f, info.Size(), limit)
}

var errNotRegular = errors.New("it is no file any more")

// file is an image alone.
type file struct {
	o          Options
	path, name string
}

func (f *file) Name() string { return f.name }

func (f *file) Each(ctx context.Context, found func(bulk.Item) error) error {
	return found(fileItem(f.path, f.path, f.o))
}

// fileItem is the item of a file that the user has named, which may be a link.
func fileItem(path, shown string, o Options) bulk.Item {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return failing(shown, err)
	case !info.Mode().IsRegular():
		return failing(shown, fmt.Errorf("%s is no file", path))
	}
	item := bulk.Item{Path: label(shown), Size: info.Size(), Modified: sane(info.ModTime())}
	item.Open = func(ctx context.Context) ([]byte, error) {
		f, err := safefile.OpenRegular(path)
		if err != nil {
			return nil, err
		}
		return readFile(ctx, f, o.MaxImageBytes)
	}
	return item
}
