package boltfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Kept is a file of what is the user's. It is made when something is first kept, and never removed, renamed or emptied by the
// program. Safe for concurrent use; calls take turns.
//
// A call waits for its turn and for the disk, but no longer than its context. A change is on disk, synced, when its call
// returns without an error. With an error it was not made, but for one: where the context has ended and the disk is still at
// work, the change may come true later. What the caller keeps in memory is therefore changed by the func that the call is
// given: it runs when the change is on disk and at no other time, in the order of the changes, before the next call begins.
type Kept struct {
	path string
	what string        // it holds, such as "prompt sets"
	busy chan struct{} // full while somebody uses what follows: a lock for which the wait can end
	file *os.File      // nil: there is none yet
	db   *bbolt.DB     // of file
	fail error         // why nothing can be read any more
	keep error         // why nothing can be written
}

// OpenKept opens the file, all of which is read and checked; what it holds is for messages. check runs in Scan. Errors: ErrLocked,
// ErrDamaged, or those of the system.
//
// With os.O_RDWR there need not be a file, one that may only be read is opened, and changes then fail, and what check returns is
// damage, too. os.O_RDONLY is for a look, which several processes may take at once, but none beside one that has opened the file to
// write: there must be a file, and what check returns is no damage.
func OpenKept(path, what string, mode int, check func(data []byte) error) (k *Kept, err error) {
	k = &Kept{path: path, what: what, busy: make(chan struct{}, 1)}
	lock := unix.LOCK_EX
	if mode == os.O_RDONLY {
		lock, k.keep = unix.LOCK_SH, fmt.Errorf("the %s were opened to be read only", what)
	}
	k.file, err = OpenLocked(path, mode, lock)
	if mode == os.O_RDWR && (errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)) {
		k.keep = fmt.Errorf("the %s cannot be changed: %w", what, err)
		k.file, err = OpenLocked(path, os.O_RDONLY, unix.LOCK_SH)
	}
	if mode == os.O_RDWR && errors.Is(err, fs.ErrNotExist) {
		k.file = nil
		return k, nil
	} else if err != nil {
		return nil, k.ours(err)
	}
	var damaged error
	err = Scan(k.file, func(data []byte) { damaged = check(data) })
	if stat, statErr := k.file.Stat(); err == nil && statErr == nil && stat.Size() == 0 {
		err = fmt.Errorf("%w: it is empty", ErrDamaged)
	} else if err == nil && damaged != nil && mode == os.O_RDWR {
		err = fmt.Errorf("%w: %w", ErrDamaged, damaged)
	}
	if err == nil {
		k.db, err = Open(k.file, bbolt.Options{ReadOnly: k.keep != nil})
	}
	if err != nil {
		_ = k.file.Close()
		return nil, k.ours(err)
	}
	return k, nil
}

// ours says of which file an error speaks.
func (k *Kept) ours(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // they name it
		return err
	}
	return fmt.Errorf("the file of the %s, %s: %w", k.what, k.path, err)
}

// Do runs what in turn, under Guard, and then, if that is made and not nil, then.
func (k *Kept) Do(ctx context.Context, what func() error, then func()) error {
	select {
	case k.busy <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("the disk of the %s is busy: %w", k.what, context.Cause(ctx))
	}
	done := make(chan error, 1)
	go func() {
		err := k.fail
		if err == nil {
			err = Guard(what)
			if errors.Is(err, ErrDamaged) {
				err = k.ours(err)
				k.fail = err // bbolt may hold its locks for ever
			} else if err == nil && then != nil {
				err = k.safely(then)
			}
		}
		<-k.busy
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // both have come
		return err
	default:
		return fmt.Errorf("the disk of the %s has not answered: %w", k.what, context.Cause(ctx))
	}
}

// safely turns a panic into an error.
func (k *Kept) safely(do func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("a change of the %s was written, and then came a panic: %v\n%s", k.what, v, debug.Stack())
		}
	}()
	do()
	return nil
}

// View returns what read finds, in turn; tx is nil where there is no file.
func View[T any](ctx context.Context, k *Kept, read func(tx *bbolt.Tx) (T, error)) (T, error) {
	var found, none T
	err := k.Do(ctx, func() error {
		find := func(tx *bbolt.Tx) (err error) {
			found, err = read(tx)
			return err
		}
		if k.db == nil {
			return find(nil)
		}
		return k.db.View(find)
	}, nil)
	if err != nil { // when ctx has ended first, read may still be at work
		return none, err
	}
	return found, nil
}

// Change makes a change in turn, and runs then if the change is on disk. Where there is no file it returns none; with nil it
// makes one.
func (k *Kept) Change(ctx context.Context, none error, then func(), change func(tx *bbolt.Tx) error) error {
	return k.Do(ctx, func() error {
		switch {
		case k.keep != nil:
			return k.keep
		case k.file == nil && none != nil:
			return none
		case k.file == nil:
			if err := k.create(); err != nil {
				return err
			}
		case !LiesAt(k.file, k.path):
			return fmt.Errorf("%s was deleted or replaced while it was in use: nothing is written before a restart", k.path)
		}
		tx, err := k.db.Begin(true)
		if err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		id := tx.ID()
		if err := tx.Commit(); err != nil {
			return k.failed(err, id)
		}
		return nil
	}, then)
}

// failed returns the error of transaction id. If its head was written but perhaps not synced, bbolt goes on from what the
// disk may not have, so nothing more is written.
func (k *Kept) failed(err error, id int) error {
	err = k.ours(err)
	return errors.Join(err, k.db.View(func(tx *bbolt.Tx) error {
		if tx.ID() >= id {
			k.keep = fmt.Errorf("%w; nothing is written before a restart", err)
		}
		return nil
	}))
}

// create makes the file. It gets its name when it is whole, so that an empty one is never ours.
func (k *Kept) create() error {
	dir := filepath.Dir(k.path)
	_, missing := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, "."+filepath.Base(k.path)+".*.tmp")
	if err != nil {
		return err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	if err == nil {
		k.db, err = Open(file, bbolt.Options{}) // synced
	}
	if err == nil {
		err = rename(file.Name(), k.path)
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err == nil && missing != nil {
		err = syncFolder(filepath.Dir(dir))
	}
	if err != nil {
		if k.db != nil {
			_ = k.db.Close()
			k.db = nil
		}
		_ = file.Close()
		_ = os.Remove(file.Name())
		return err
	}
	k.file = file
	return nil
}

// rename renames a file to a name that is free.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // of some network file systems
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close closes the file. It waits for the call that has its turn, but no longer than ctx.
func (k *Kept) Close(ctx context.Context) error {
	select {
	case k.busy <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("the disk of the %s is busy: %w", k.what, context.Cause(ctx))
	}
	defer func() { <-k.busy }()
	if errors.Is(k.fail, fs.ErrClosed) {
		return nil // it is closed
	}
	broken := k.fail != nil
	k.fail = fs.ErrClosed
	if k.db == nil || !broken && Guard(k.db.Close) == nil {
		return nil
	}
	_ = unix.Flock(int(k.file.Fd()), unix.LOCK_UN) // the mapping would keep the lock alive
	return k.file.Close()
}
