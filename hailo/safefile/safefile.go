// Package safefile reads and writes files whose names or folders other users may have a hand in.
package safefile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Errors of files that are not opened.
var (
	ErrNotRegular = errors.New("not a file") // a folder, a pipe, a device
	ErrForeign    = errors.New("a link, or of another user")
	ErrLocked     = errors.New("locked by another process")
)

// OpenRegular opens a file for reading. What is no regular file is refused: to open a pipe would
// wait for its writer, deaf to Ctrl-C, and a device has no end. Links are followed. The errors are
// an fs.PathError.
func OpenRegular(path string) (*os.File, error) {
	return open(path, os.O_RDONLY, func(info fs.FileInfo) bool { return info.Mode().IsRegular() }, ErrNotRegular)
}

// OpenOwn opens a file to be written, or makes it, in a folder that another user may have arranged:
// it follows no link, and refuses, with ErrForeign, what is not this user's alone. flag is that of
// os.OpenFile; os.O_TRUNC must not be in it.
func OpenOwn(path string, flag int) (*os.File, error) {
	f, err := open(path, flag|os.O_CREATE|syscall.O_NOFOLLOW, IsOwn, ErrForeign)
	if errors.Is(err, syscall.ELOOP) {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrForeign}
	}
	return f, err
}

// open opens a file that passes a check, else it returns refusal.
func open(path string, flag int, check func(fs.FileInfo) bool, refusal error) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && check(info) {
		return f, nil
	}
	f.Close()
	return nil, cmp.Or[error](err, &fs.PathError{Op: "open", Path: path, Err: refusal})
}

// IsOwn reports whether the file is a regular one that belongs to this user and has a single name, so that no other user
// can have linked it there.
func IsOwn(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && int(st.Uid) == os.Geteuid() && st.Nlink == 1
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

// ReadFile returns the content of a regular file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

// Replace puts a file with the content of r in place of what has its name, which may be a link. After
// a crash or an error it is the old one or the new one, whole.
func Replace(path string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return Rename(f.Name(), path)
}

// Rename is os.Rename, and on disk when it returns.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock keeps other processes from taking the same lock until unlock is called: that of a folder, or of a
// file, which is made and stays, because to remove it would open a gap between those that wait for it.
// Nothing is written to it, so it may be another user's; a link is refused. Error: ErrLocked.
func Lock(path string) (unlock func(), err error) {
	const flag = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := os.OpenFile(path, flag, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, flag|os.O_CREATE, 0o644)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { f.Close() }, nil // closing gives up the lock
}

// SHA256 returns the hex SHA-256 of a regular file, or the cause of ctx when that ends before.
func SHA256(ctx context.Context, path string) (string, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum, err := Sum(ctx, f)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return sum, err
}

// Sum is SHA256 of what r holds.
func Sum(ctx context.Context, r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, contextReader{ctx, r})
	return hex.EncodeToString(h.Sum(nil)), err
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
