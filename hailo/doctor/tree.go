package doctor

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

const (
	maxRead    = 64 << 10 // bytes of a small file that are looked at
	maxScan    = 16 << 20 // bytes of a file that is read line by line
	maxEntries = 8192     // names of a folder
)

// tree reads files below a root folder. Only regular files are ever opened, so nothing blocks on
// a device or a pipe; what is missing or unreadable is empty. Symbolic links are followed as the
// system does, so a fake root uses relative ones.
type tree string

func (t tree) path(name string) string { return filepath.Join("/", string(t), name) }

func (t tree) open(name string) (*os.File, bool) {
	info, err := os.Stat(t.path(name))
	if err != nil || !info.Mode().IsRegular() {
		return nil, false
	}
	// Not blocking, in case the file became a pipe in the meantime.
	f, err := os.OpenFile(t.path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	return f, err == nil
}

// read returns the start of a file, without white space and NUL around it.
func (t tree) read(name string) string {
	f, ok := t.open(name)
	if !ok {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxRead))
	return strings.Trim(string(b), " \t\r\n\x00")
}

// lines calls fn with each line until it returns false. Lines longer than 4 KiB come in pieces.
func (t tree) lines(name string, fn func(line string) bool) {
	f, ok := t.open(name)
	if !ok {
		return
	}
	defer f.Close()
	r := bufio.NewReaderSize(io.LimitReader(f, maxScan), 4096)
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 && !fn(strings.TrimRight(string(line), "\r\n")) {
			return
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// list returns the names in a folder that match the pattern, sorted.
func (t tree) list(dir, pattern string) []string {
	f, err := os.Open(t.path(dir) + "/") // the slash: a folder or an error, never a device
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxEntries)
	var out []string
	for _, n := range names {
		if ok, _ := path.Match(pattern, n); ok {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// link returns what a symbolic link points to, "" if it is none.
func (t tree) link(name string) string {
	s, _ := os.Readlink(t.path(name))
	return s
}

func (t tree) stat(name string) (os.FileInfo, bool) {
	info, err := os.Stat(t.path(name))
	return info, err == nil
}

func (t tree) exists(name string) bool { _, ok := t.stat(name); return ok }

func (t tree) isDir(name string) bool {
	info, ok := t.stat(name)
	return ok && info.IsDir()
}
