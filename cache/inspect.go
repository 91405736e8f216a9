package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FileInfo is what Inspect finds in a cache file.
type FileInfo struct {
	Path       string          `json:"path"`
	Bytes      int64           `json:"bytes"`
	Modified   time.Time       `json:"modified,omitzero"`
	Locked     bool            `json:"locked"`     // held by a running service: what follows is not known
	Namespaces []NamespaceInfo `json:"namespaces"` // sorted by name
	SetAside   []string        `json:"set_aside"`  // damaged files that were renamed and lie beside it
}

// NamespaceInfo counts the vectors of one text encoder.
type NamespaceInfo struct {
	Namespace string `json:"namespace"`
	Vectors   int    `json:"vectors"`
	Damaged   int    `json:"damaged"` // values that would not be used
}

// Inspect reads a cache file, all of it, without changing it. It waits half a second for a
// process that holds the file and then answers with Locked set. Errors: fs.ErrNotExist,
// ErrDamaged, or those of the system.
func Inspect(path string) (FileInfo, error) {
	info := FileInfo{Path: path, Namespaces: []NamespaceInfo{}, SetAside: asides(path)}
	stat, err := os.Stat(path)
	if err != nil {
		return info, err
	}
	info.Bytes, info.Modified = stat.Size(), stat.ModTime()
	found, err := scan(path)
	if errors.Is(err, ErrLocked) {
		info.Locked = true
		return info, nil
	}
	for _, b := range found {
		info.Namespaces = append(info.Namespaces, NamespaceInfo{b.namespace, b.good, len(b.bad)})
	}
	return info, err
}

// ClearFile removes a cache file and the damaged ones set aside beside it. A file that is not
// there is cleared. Errors: ErrLocked while a process holds it, or those of the system.
func ClearFile(path string) error {
	f, err := openRegular(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		defer func() { _ = f.Close() }()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				return fmt.Errorf("%s: %w", path, ErrLocked)
			}
			return fmt.Errorf("locking %s: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for _, aside := range asides(path) {
		if err := os.Remove(aside); err != nil {
			return err
		}
	}
	return nil
}

// setAside renames a damaged file to NAME.corrupt-TIME. Where maxAside lie there already it
// refuses: a disk that keeps damaging the file is not worth writing to.
func setAside(path string, now time.Time) (string, error) {
	if n := len(asides(path)); n >= maxAside {
		return "", fmt.Errorf("%d damaged files are set aside already, remove them to use the disk again", n)
	}
	aside := path + corruptMark + now.UTC().Format("20060102T150405.000000000Z")
	return aside, os.Rename(path, aside)
}

const (
	maxAside    = 3
	corruptMark = ".corrupt-"
)

// asides returns the files that were set aside, oldest first.
func asides(path string) []string {
	entries, _ := os.ReadDir(filepath.Dir(path)) // one that cannot be read holds none that we could touch
	found := []string{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), filepath.Base(path)+corruptMark) {
			found = append(found, filepath.Join(filepath.Dir(path), entry.Name()))
		}
	}
	return found
}
