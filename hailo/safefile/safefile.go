// Package safefile opens files whose names or folders others may have a hand in.
package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Errors of files that are not opened.
var (
	ErrNotRegular = errors.New("not a file") // a folder, a pipe, a device
	ErrForeign    = errors.New("a link, or of another user")
)

// OpenRegular opens a file for reading. What is no regular file is refused: to open a pipe would
// wait for its writer, deaf to Ctrl-C, and a device has no end. Links are followed. The errors are
// an fs.PathError.
func OpenRegular(path string) (*os.File, error) {
	return openChecked(path, os.O_RDONLY|syscall.O_NONBLOCK, func(info fs.FileInfo) error {
		if !info.Mode().IsRegular() {
			return ErrNotRegular
		}
		return nil
	})
}

// OpenOwn opens a file to be written, or makes it, in a folder that another user may have arranged:
// it follows no link, and refuses, with ErrForeign, what is not this user's alone. flag is that of
// os.OpenFile; os.O_TRUNC must not be in it.
func OpenOwn(path string, flag int) (*os.File, error) {
	f, err := openChecked(path, flag|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, func(info fs.FileInfo) error {
		if !IsOwn(info) {
			return ErrForeign
		}
		return nil
	})
	if errors.Is(err, syscall.ELOOP) {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrForeign}
	}
	return f, err
}

// MakeFolder makes a folder to write to, and those above it. One that is reached by a link which another user
// has made is refused: that user would choose where this one writes.
func MakeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode()&fs.ModeSymlink != 0 && (!ok || st.Uid != 0 && int(st.Uid) != os.Geteuid()) {
		return &fs.PathError{Op: "open", Path: dir, Err: ErrForeign}
	}
	return nil
}

// IsOwn reports whether nobody else can have a hand in the file: it is this user's and has no other name.
func IsOwn(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && int(st.Uid) == os.Geteuid() && st.Nlink == 1
}

func openChecked(path string, flag int, check func(fs.FileInfo) error) (*os.File, error) {
	f, err := os.OpenFile(path, flag, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		if err = check(info); err == nil {
			return f, nil
		}
		err = &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f.Close()
	return nil, err
}

// Replace writes a small file in place of what has its name, which may be a link.
func Replace(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return errors.Join(err, f.Close())
}
