package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// guard runs f, which touches the mapped file, and turns what a damaged file does to it into
// ErrDamaged: panics of bbolt, and faults where the file no longer reaches (which would end the
// process). After a panic the database that f used may hold its locks for ever.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch v := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a fault: the runtime would speak of nil pointers
			err = fmt.Errorf("%w: it ends too early, or the disk cannot read it", ErrDamaged)
		case runtime.Error: // bbolt follows what the file says: an index or a pointer to nowhere
			err = fmt.Errorf("%w: its content makes no sense", ErrDamaged)
		default:
			err = fmt.Errorf("%w: its content makes no sense (%v)", ErrDamaged, v)
		}
	}()
	return f()
}

// lockWait is how long opening waits for the file's lock: enough for another process that is
// only looking at it, or that is just ending.
const lockWait = 500 * time.Millisecond

// boltFile is an open database and the file below it.
type boltFile struct {
	db   *bbolt.DB
	file *os.File
}

// openBolt opens a database. Errors: ErrLocked, ErrDamaged, or those of the system.
func openBolt(path string, options bbolt.Options) (*boltFile, error) {
	f := &boltFile{}
	options.Timeout = lockWait
	options.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		f.file, err = os.OpenFile(name, flag|unix.O_NOFOLLOW, mode) // where a link leads may be anybody's choice
		if errors.Is(err, unix.ELOOP) {
			err = &fs.PathError{Op: "open (a link: give the file itself as cache_file)", Path: name, Err: unix.ELOOP}
		}
		return f.file, err
	}
	err := guard(func() (err error) {
		f.db, err = bbolt.Open(path, 0o600, &options)
		return err
	})
	if err == nil {
		return f, nil
	}
	if f.file != nil { // bbolt has closed it, unless it panicked
		_ = f.close(true)
	}
	return nil, classify(err)
}

// close closes the database. One that is broken may hold its locks for ever and is not closed:
// its mapping stays, and only the file and its lock are let go.
func (f *boltFile) close(broken bool) error {
	if broken {
		_ = unix.Flock(int(f.file.Fd()), unix.LOCK_UN) // the mapping would keep the lock alive
		return f.file.Close()
	}
	return guard(f.db.Close)
}

// classify names the error of opening or reading a file.
func classify(err error) error {
	var errno syscall.Errno
	switch {
	case err == nil, errors.Is(err, ErrDamaged), errors.Is(err, berrors.ErrMaxSizeReached):
		return err
	case errors.Is(err, berrors.ErrTimeout):
		return ErrLocked
	case errors.As(err, &errno):
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// openRegular opens a regular file for reading and refuses others, which could block.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = &fs.PathError{Op: "open (not a regular file)", Path: path, Err: unix.EINVAL}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// bucket is what scan finds for one namespace.
type bucket struct {
	namespace string
	good      int
	bad       [][]byte // keys of values that are damaged or of another version
}

// scan reads all of a file under a shared lock and checks every value. What it finds whole can
// be read without a fault as long as nobody changes it from outside. An empty file is a new
// one. Errors: fs.ErrNotExist, ErrLocked, ErrDamaged, or those of the system.
func scan(path string) ([]bucket, error) {
	plain, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = plain.Close() }()
	if stat, err := plain.Stat(); err != nil || stat.Size() == 0 {
		return nil, err
	}
	// Read-only does not load the list of free pages, which bbolt may rebuild in a goroutine of
	// its own, out of reach of guard, before anybody has checked the pages.
	f, err := openBolt(path, bbolt.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	// The mapping is read at random, page by page. Reading the file in one go first brings it
	// into memory much faster, and shows a failing disk as an error rather than a fault.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, errors.Join(err, f.close(false))
	}
	var found []bucket
	err = guard(func() error { return f.db.View(func(tx *bbolt.Tx) (err error) { found, err = check(tx); return err }) })
	if closeErr := f.close(errors.Is(err, ErrDamaged)); err == nil {
		err = closeErr
	}
	return found, classify(err)
}

// check reads every value that tx can see.
func check(tx *bbolt.Tx) (found []bucket, err error) {
	err = tx.ForEach(func(name []byte, values *bbolt.Bucket) error {
		if values == nil {
			return fmt.Errorf("%w: it is not one of ours", ErrDamaged)
		}
		b := bucket{namespace: string(name)}
		err := values.ForEach(func(key, value []byte) error {
			switch {
			case value == nil:
				return fmt.Errorf("%w: it is not one of ours", ErrDamaged)
			case len(key) == len(diskKey{}) && soundValue(diskKey(key), value):
				b.good++
			default:
				b.bad = append(b.bad, slices.Clone(key))
			}
			return nil
		})
		found = append(found, b)
		return err
	})
	return found, err
}
