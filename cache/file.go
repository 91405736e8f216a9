package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"hailoclip/cache/boltfile"
)

// ours says of what file an error of package boltfile speaks.
func ours(err error) error {
	switch {
	case errors.Is(err, ErrLocked) || errors.Is(err, ErrDamaged):
		return fmt.Errorf("the cache file is %w", err)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: give the file itself as cache_file and no link", err)
	}
	return err
}

// guard is boltfile.Guard.
func guard(do func() error) error { return ours(boltfile.Guard(do)) }

// boltFile is an open database and the file below it. One goroutine at a time may write while another one reads the
// snapshot. After ErrDamaged only close may be called, by who writes.
type boltFile struct {
	db   *bbolt.DB
	file *os.File

	// What was written last. Look-ups read it because they must not begin a transaction, in which a fault leaves bbolt's
	// locks held for ever.
	snapshot *bbolt.Tx

	bytes, vectors, damaged int64 // when it was opened; damaged values were deleted then
}

// openBolt opens or creates a database, whose file may grow to limit bytes. It reads all of it before bbolt does, and
// deletes damaged values. A file that is damaged or not one of ours is not written to. Errors: ErrLocked, ErrDamaged,
// or those of the system.
func openBolt(path string, limit int64) (*boltFile, error) {
	file, err := boltfile.OpenLocked(path, os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
	if err != nil {
		return nil, ours(err)
	}
	f := &boltFile{file: file}
	namespaces, damaged, err := scan(file)
	if err == nil { // mapping again would wait for the end of the snapshot
		f.db, err = boltfile.Open(file, bbolt.Options{MaxSize: int(limit), InitialMmapSize: int(limit)})
		err = ours(err)
	}
	if err == nil {
		err = guard(func() (err error) {
			f.delete(damaged)
			f.snapshot, err = f.db.Begin(false)
			return err
		})
	}
	if err != nil {
		f.close(true)
		return nil, err
	}
	for _, n := range namespaces {
		f.vectors, f.damaged = f.vectors+int64(n.Vectors), f.damaged+int64(n.Damaged)
	}
	f.bytes = f.snapshot.Size()
	return f, nil
}

// scan reads all of a file. A value that is damaged, or of another version, is counted. Errors: ErrDamaged, or those of
// the system.
func scan(file *os.File) (namespaces []NamespaceInfo, damaged map[string][]diskKey, err error) {
	err = boltfile.Scan(file, func(data []byte) { namespaces, damaged = readNamespaces(data) })
	return namespaces, damaged, ours(err)
}

// readNamespaces returns what a cache file holds, sorted by namespace, and the keys of the values that are not sound. It
// panics where the file is damaged, or holds anything but namespaces and vectors, of which one at least must be sound if
// there are any.
func readNamespaces(data []byte) (namespaces []NamespaceInfo, damaged map[string][]diskKey) {
	damaged = make(map[string][]diskKey)
	sound := 0
	boltfile.Walk(data, false, func(name []byte) {
		boltfile.Want(len(name) <= maxNamespace, "it is not one of ours")
		namespaces = append(namespaces, NamespaceInfo{Namespace: string(name)})
	}, func(key, value []byte) {
		boltfile.Want(len(key) == len(diskKey{}), "it is not one of ours")
		n := &namespaces[len(namespaces)-1]
		if soundValue(diskKey(key), value) {
			n.Vectors++
			sound++
		} else {
			n.Damaged++
			damaged[n.Namespace] = append(damaged[n.Namespace], diskKey(key))
		}
	})
	boltfile.Want(sound > 0 || len(damaged) == 0, "it is not one of ours")
	return namespaces, damaged
}

// delete deletes values. Where that fails they stay, and are not used.
func (f *boltFile) delete(keys map[string][]diskKey) {
	if len(keys) > 0 {
		_ = f.db.Update(func(tx *bbolt.Tx) (err error) {
			for namespace, keys := range keys {
				for _, key := range keys {
					err = cmp.Or(err, tx.Bucket([]byte(namespace)).Delete(key[:]))
				}
			}
			return err
		})
	}
}

// put writes prompts, synced, and returns a snapshot that shows them, and how many are new. Errors: ErrDamaged,
// ErrMaxSizeReached of bbolt, or those of the system.
func (f *boltFile) put(batch map[diskKey]*Prompts) (snapshot *bbolt.Tx, added int64, err error) {
	err = guard(func() error {
		err := f.db.Update(func(tx *bbolt.Tx) error {
			for key, p := range batch {
				values, err := tx.CreateBucketIfNotExists([]byte(p.namespace))
				if err != nil {
					return err
				}
				if values.Get(key[:]) == nil {
					added++
				}
				if err := values.Put(key[:], formatValue(key, p.Rows[0])); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			snapshot, err = f.db.Begin(false)
		}
		return err
	})
	return snapshot, added, err
}

// close closes the database, or only the file of a damaged one, which stays mapped. All that was written is synced.
func (f *boltFile) close(damaged bool) {
	if damaged || guard(func() error { return errors.Join(f.snapshot.Rollback(), f.db.Close()) }) != nil {
		_ = unix.Flock(int(f.file.Fd()), unix.LOCK_UN) // the mapping would keep the lock alive
		_ = f.file.Close()
	}
}

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

// Inspect reads a cache file, all of it, without changing it. It waits half a second for a process that holds the file
// and then answers with Locked set. Errors: fs.ErrNotExist, ErrDamaged, or those of the system.
func Inspect(path string) (FileInfo, error) {
	info := FileInfo{Path: path, Namespaces: []NamespaceInfo{}, SetAside: asides(path)}
	stat, err := os.Stat(path)
	if err != nil {
		return info, err
	}
	info.Bytes, info.Modified = stat.Size(), stat.ModTime()
	f, err := boltfile.OpenLocked(path, os.O_RDONLY, unix.LOCK_SH)
	if errors.Is(err, ErrLocked) {
		info.Locked = true
		return info, nil
	} else if err != nil {
		return info, ours(err)
	}
	defer func() { _ = f.Close() }()
	namespaces, _, err := scan(f)
	info.Namespaces = append(info.Namespaces, namespaces...)
	return info, err
}

// ClearFile removes a cache file and the damaged ones set aside beside it. A file that is not there is cleared.
// Errors: ErrLocked while a process holds it, or those of the system.
func ClearFile(path string) error {
	f, err := boltfile.OpenLocked(path, os.O_RDONLY, unix.LOCK_EX)
	if err == nil {
		err = errors.Join(os.Remove(path), f.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ours(err))
	}
	for _, aside := range asides(path) {
		if err := os.Remove(aside); err != nil {
			return err
		}
	}
	return nil
}

const (
	maxAside    = 3
	corruptMark = ".corrupt-"
)

// setAside renames a damaged file to NAME.corrupt-TIME and says so. Where maxAside lie there already it refuses: a disk
// that keeps damaging the file is not worth writing to.
func setAside(path string) (done string, err error) {
	if n := len(asides(path)); n >= maxAside {
		return "", fmt.Errorf("%d damaged files are set aside already, remove them to use the disk again", n)
	}
	aside := path + corruptMark + time.Now().UTC().Format("20060102T150405.000000000Z")
	return "a damaged file was set aside as " + aside, os.Rename(path, aside)
}

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
