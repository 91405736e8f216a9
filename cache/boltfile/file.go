// Package boltfile opens and checks the files of bbolt, which others may have damaged, truncated or locked. bbolt maps its
// file and trusts it; a damaged one could end the process.
package boltfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Errors of this package. They complete a sentence that names the file.
var (
	// ErrLocked says that another process, most likely a running service, holds the file.
	ErrLocked = errors.New("locked by a running service")
	// ErrDamaged says that the file is not what it should be, or not whole.
	ErrDamaged = errors.New("damaged")
)

// Guard runs do, which touches the mapped file, and turns what a damaged file does to it into ErrDamaged: panics, and
// faults where the file no longer reaches (which would end the process). After a panic the database that do used may
// hold its locks for ever.
func Guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch v := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a fault: the runtime would speak of nil pointers
			err = fmt.Errorf("%w: it ends too early, or the disk cannot read it", ErrDamaged)
		case runtime.Error: // an index or a pointer to nowhere
			err = fmt.Errorf("%w: its content makes no sense", ErrDamaged)
		default:
			err = fmt.Errorf("%w: %v", ErrDamaged, v)
		}
	}()
	return do()
}

// OpenLocked opens a regular file and locks it, with unix.LOCK_SH or LOCK_EX, until it is closed. It waits half a second
// for another process that is only looking at it, or that is just ending. Errors: ErrLocked, unix.ELOOP for a link, or
// others of the system.
func OpenLocked(path string, flag, lock int) (*os.File, error) {
	// Where a link leads may be anybody's choice, and a pipe would block.
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	for end := time.Now().Add(500 * time.Millisecond); err == nil; time.Sleep(50 * time.Millisecond) {
		locked := unix.Flock(int(f.Fd()), lock|unix.LOCK_NB)
		if locked == nil {
			return f, nil
		} else if !errors.Is(locked, unix.EWOULDBLOCK) {
			err = locked
		} else if time.Now().After(end) {
			err = ErrLocked
		}
	}
	return nil, errors.Join(err, f.Close())
}

// Open opens the database in a file that Scan has found whole, or empty. Errors: ErrDamaged, or those of bbolt.
func Open(file *os.File, o bbolt.Options) (db *bbolt.DB, err error) {
	o.FreelistType = bbolt.FreelistMapType
	o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return file, nil }
	err = Guard(func() (err error) {
		if db, err = bbolt.Open(file.Name(), 0o600, &o); err == nil {
			db.AllocSize = 1 << 20 // by which the file grows
		}
		return err
	})
	return db, err
}

// Scan reads all of a file, of which check sees the bytes while it runs; check may panic. An empty file is not checked.
// Errors: ErrDamaged, or those of the system.
func Scan(file *os.File, check func(data []byte)) error {
	// Reading it in one go first is faster than page by page, and shows a failing disk as an error rather than a fault.
	size, err := io.Copy(io.Discard, file)
	if err != nil || size == 0 {
		return err
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	err = Guard(func() error { check(data); return nil })
	return errors.Join(err, unix.Munmap(data))
}

// LiesAt says whether path still leads to the file: otherwise it was deleted or replaced, and what is written to it is
// lost with this process.
func LiesAt(file *os.File, path string) bool {
	ours, err := file.Stat()
	there, thereErr := os.Stat(path)
	return err != nil || thereErr != nil && !errors.Is(thereErr, fs.ErrNotExist) || thereErr == nil && os.SameFile(ours, there)
}
