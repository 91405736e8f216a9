package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/safefile"
)

// vouch checks the library at path and returns the file to load in its place. A library that only root or this user
// can have written is loaded where it is; with anyone, so is every other one. One that somebody else can have written
// must have the digest of a published one; file is then a private copy, which nobody can change between the check and
// the loading. The caller calls done when the file is loaded.
func vouch(path string, anyone bool) (file string, done func(), err error) {
	f, err := safefile.OpenRegular(path)
	if err != nil {
		return "", nil, errors.Unwrap(err) // the path is named already
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if err := checkWhole(f, info.Size()); err != nil {
		return "", nil, err
	}
	if anyone {
		return path, func() {}, nil
	}
	if file, err = ours(path, os.Geteuid()); err == nil {
		return file, func() {}, nil
	}
	clone, digest, copyErr := cloneOf(f)
	if copyErr != nil {
		return "", nil, copyErr
	}
	if digest != builds[runtime.GOARCH].library {
		clone.Close()
		return "", nil, fmt.Errorf("%w, and it is not the published ONNX Runtime %s, so it is not loaded", err, FetchVersion)
	}
	return fmt.Sprintf("/proc/self/fd/%d", clone.Fd()), func() { clone.Close() }, nil
}

// ours returns the file that path leads to, if only root and the user uid can change what that is.
func ours(path string, uid int) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", err
	}
	for at := real; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		owner, group := -1, -1
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			owner, group = int(st.Uid), int(st.Gid)
		}
		sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0 // nobody can replace another's file in it
		switch perm := info.Mode().Perm(); {
		case owner != 0 && owner != uid:
			return "", fmt.Errorf("%s belongs to another user (number %d)", at, owner)
		case perm&0o002 != 0 && !sticky:
			return "", fmt.Errorf("%s can be changed by every user", at)
		case perm&0o020 != 0 && !sticky && group != 0 && group != os.Getegid():
			return "", fmt.Errorf("%s can be changed by a group of users (number %d)", at, group)
		}
		if at == filepath.Dir(at) {
			return real, nil
		}
	}
}

// cloneOf copies a library into memory and returns its SHA-256. The caller closes the copy.
func cloneOf(f *os.File) (clone *os.File, digest string, err error) {
	fd, err := unix.MemfdCreate("libonnxruntime", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "", fmt.Errorf("memfd: %w", err)
	}
	clone = os.NewFile(uintptr(fd), "libonnxruntime")
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(clone, h), io.NewSectionReader(f, 0, maxLibrary+1))
	if err == nil && n > maxLibrary {
		err = fmt.Errorf("more than %d bytes", maxLibrary)
	}
	if err != nil {
		clone.Close()
		return nil, "", err
	}
	return clone, hex.EncodeToString(h.Sum(nil)), nil
}
