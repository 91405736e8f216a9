package device

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"hailoclip/hailo/safefile"
)

const (
	maxRead = 64 << 10 // bytes of a small file, or of a program's output, that are looked at
	maxScan = 16 << 20 // bytes of a file that is read line by line
)

// Root reads files below a folder that stands for /; "" is /. Only regular files are ever opened, so nothing blocks on a
// device or a pipe; what is missing or unreadable is empty. Symbolic links are followed as the system does, so a fake root
// uses relative ones.
type Root string

// Path returns where a file really is.
func (r Root) Path(name string) string { return filepath.Join("/", string(r), name) }

// Open opens a regular file for reading. The caller closes it.
func (r Root) Open(name string) (*os.File, error) {
	if info := r.Stat(name); info == nil || !info.Mode().IsRegular() {
		return nil, safefile.ErrNotRegular
	}
	return safefile.OpenRegular(r.Path(name)) // it may have become a pipe in the meantime
}

// Read returns the start of a file, without white space and NUL around it.
func (r Root) Read(name string) string {
	f, err := r.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxRead))
	return strings.Trim(string(b), " \t\r\n\x00")
}

// Lines yields the lines of a file. Those longer than 4 KiB come in pieces.
func (r Root) Lines(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		f, err := r.Open(name)
		if err != nil {
			return
		}
		defer f.Close()
		in := bufio.NewReaderSize(io.LimitReader(f, maxScan), 4096)
		for {
			line, err := in.ReadSlice('\n')
			if len(line) > 0 && !yield(strings.TrimRight(string(line), "\r\n")) {
				return
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	}
}

// setting returns what follows key on the first line of a file that begins with it; "" without one.
func (r Root) setting(name, key string) string {
	for line := range r.Lines(name) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Glob returns the paths that match the patterns, sorted within each.
func (r Root) Glob(patterns ...string) (paths []string) {
	for _, pattern := range patterns {
		found, _ := fs.Glob(os.DirFS(r.Path("/")), strings.TrimPrefix(pattern, "/"))
		for _, name := range found {
			paths = append(paths, "/"+name)
		}
	}
	return paths
}

// Link returns what a symbolic link points to, "" if it is none.
func (r Root) Link(name string) string {
	to, _ := os.Readlink(r.Path(name))
	return to
}

// Stat follows links; nil: there is nothing, or it cannot be seen.
func (r Root) Stat(name string) os.FileInfo {
	info, _ := os.Stat(r.Path(name))
	return info
}

// Exists says whether there is something, of any kind.
func (r Root) Exists(name string) bool { return r.Stat(name) != nil }

// IsDir says whether there is a folder, or a link to one.
func (r Root) IsDir(name string) bool {
	info := r.Stat(name)
	return info != nil && info.IsDir()
}
