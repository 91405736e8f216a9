package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// The file has a bucket for each namespace, with values by diskKey. A value, little-endian:
//
//	version   uint8     valueVersion
//	flags     uint8     bit 0: truncated; the others are 0
//	reserved  uint16    0
//	tokens    uint32
//	embedding float32 x dimension
//	checksum  uint64    xxh3 of all before it, seeded with the xxh3 of the key
const (
	valueVersion   = 1
	valueHead      = 8
	valueSum       = 8
	valueTruncated = 1
)

// diskKey is the SHA-256 over the namespace's length (uint32), the namespace and the prompt.
type diskKey [sha256.Size]byte

func keyOf(namespace, prompt string) diskKey {
	b := make([]byte, 4, 4+len(namespace)+len(prompt))
	binary.LittleEndian.PutUint32(b, uint32(len(namespace)))
	return sha256.Sum256(append(append(b, namespace...), prompt...))
}

// formatValue is v as it is kept under key.
func formatValue(key diskKey, v Vector) []byte {
	b := make([]byte, valueHead+4*len(v.Embedding), valueHead+4*len(v.Embedding)+valueSum)
	b[0] = valueVersion
	if v.Truncated {
		b[1] = valueTruncated
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(v.Tokens))
	for i, x := range v.Embedding {
		binary.LittleEndian.PutUint32(b[valueHead+4*i:], math.Float32bits(x))
	}
	return binary.LittleEndian.AppendUint64(b, checksum(key, b))
}

// soundValue says whether b is what formatValue made for key: values of other versions and other keys are not.
func soundValue(key diskKey, b []byte) bool {
	n := len(b) - valueHead - valueSum
	if n <= 0 || n%4 != 0 || b[0] != valueVersion || b[1]&^valueTruncated != 0 || b[2]|b[3] != 0 {
		return false
	}
	body, sum := b[:valueHead+n], b[valueHead+n:]
	return binary.LittleEndian.Uint32(b[4:]) <= math.MaxInt32 && binary.LittleEndian.Uint64(sum) == checksum(key, body)
}

// parseValue reads a sound value. The result does not refer to b.
func parseValue(key diskKey, b []byte) (v Vector, ok bool) {
	if !soundValue(key, b) {
		return Vector{}, false
	}
	numbers := b[valueHead : len(b)-valueSum]
	v = Vector{make([]float32, len(numbers)/4), int(binary.LittleEndian.Uint32(b[4:])), b[1] == valueTruncated}
	for i := range v.Embedding {
		v.Embedding[i] = math.Float32frombits(binary.LittleEndian.Uint32(numbers[4*i:]))
	}
	return v, true
}

func checksum(key diskKey, body []byte) uint64 { return xxh3.HashSeed(body, xxh3.Hash(key[:])) }

// guard runs do, which touches the mapped file, and turns what a damaged file does to it into ErrDamaged: panics of
// bbolt, and faults where the file no longer reaches (which would end the process).
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a fault: the runtime would speak of nil pointers
			err = fmt.Errorf("%w: it ends too early, or the disk cannot read it", ErrDamaged)
		default: // bbolt follows what the file says: an index or a pointer to nowhere
			err = fmt.Errorf("%w: its content makes no sense", ErrDamaged)
		}
	}()
	return do()
}

// boltFile is an open database and the file below it, for one goroutine at a time. After ErrDamaged it may hold its locks
// for ever: only close may be called.
type boltFile struct {
	db         *bbolt.DB
	file       *os.File
	bytes      int64           // its size when it was opened
	namespaces []NamespaceInfo // what it held then

	values, damaged int // of all namespaces
}

// openBolt opens a database and checks all that it holds. What it finds whole can be read without a fault as long as
// nobody changes it from outside. Errors: fs.ErrNotExist, ErrLocked, ErrDamaged, or those of the system.
func openBolt(path string, limit int64, readOnly bool) (*boltFile, error) {
	f := &boltFile{}
	options := bbolt.Options{FreelistType: bbolt.FreelistMapType, MaxSize: int(limit), ReadOnly: readOnly}
	options.Timeout = 500 * time.Millisecond // for another process that is only looking at it, or that is just ending
	options.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		// Where a link leads may be anybody's choice, and a pipe would block.
		f.file, err = os.OpenFile(name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
		return f.file, err
	}
	err := guard(func() (err error) {
		if f.db, err = bbolt.Open(path, 0o600, &options); err != nil {
			return err
		}
		f.db.AllocSize = 1 << 20 // by which the file grows
		// The mapping is read at random, page by page. Reading the file in one go first brings it into memory much
		// faster, and shows a failing disk as an error rather than a fault.
		if _, err := io.Copy(io.Discard, f.file); err != nil {
			return err
		}
		return f.db.View(f.check)
	})
	var errno syscall.Errno
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrLocked
	case !errors.Is(err, ErrDamaged) && !errors.As(err, &errno):
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if f.file != nil {
		f.close(f.db == nil || errors.Is(err, ErrDamaged))
	}
	return nil, err
}

// check reads every value that tx can see.
func (f *boltFile) check(tx *bbolt.Tx) error {
	f.bytes = tx.Size()
	return tx.ForEach(func(name []byte, values *bbolt.Bucket) error {
		n := NamespaceInfo{Namespace: string(name)}
		err := values.ForEach(func(key, value []byte) error {
			if len(key) == len(diskKey{}) && soundValue(diskKey(key), value) {
				n.Vectors++
			} else {
				n.Damaged++
			}
			return nil
		})
		f.namespaces = append(f.namespaces, n)
		f.values, f.damaged = f.values+n.Vectors+n.Damaged, f.damaged+n.Damaged
		return err
	})
}

// liesAt says whether path still leads to the file: otherwise it was deleted or replaced, and what is written to it is
// lost with this process.
func (f *boltFile) liesAt(path string) bool {
	ours, err := f.file.Stat()
	there, thereErr := os.Stat(path)
	return err != nil || thereErr != nil && !errors.Is(thereErr, fs.ErrNotExist) || thereErr == nil && os.SameFile(ours, there)
}

// close closes the database, or only the file of a damaged one, which stays mapped. All that was written is synced.
func (f *boltFile) close(damaged bool) {
	if damaged || errors.Is(guard(f.db.Close), ErrDamaged) {
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
	if !stat.Mode().IsRegular() {
		return info, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Bytes == 0 {
		return info, nil // a new one
	}
	f, err := openBolt(path, 0, true)
	if err == nil {
		info.Namespaces = append(info.Namespaces, f.namespaces...)
		f.close(false)
	} else if errors.Is(err, ErrLocked) {
		info.Locked, err = true, nil
	}
	return info, err
}

// ClearFile removes a cache file and the damaged ones set aside beside it. A file that is not there is cleared.
// Errors: ErrLocked while a process holds it, or those of the system.
func ClearFile(path string) error {
	info, err := Inspect(path)
	if info.Locked {
		return fmt.Errorf("%s: %w", path, ErrLocked)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
		return err
	}
	for _, name := range append(info.SetAside, path) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
	found, _ := filepath.Glob(path + corruptMark + "*")
	return append([]string{}, found...)
}
