package sets

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"

	"hailoclip/cache/boltfile"
)

// Errors of the store, wrapped with what happened.
var (
	// ErrNotFound says that there is no set of that name.
	ErrNotFound = errors.New("there is no such prompt set")
	// ErrFull says that there are MaxSets sets, or that the file has MaxFileBytes.
	ErrFull = errors.New("there is no room for more prompt sets")
	// ErrLocked says that another process, most likely a running service, holds the file.
	ErrLocked = boltfile.ErrLocked
	// ErrDamaged says that the file is not whole. It stays as it is.
	ErrDamaged = boltfile.ErrDamaged
)

// FileName is the name of the store's file in the state folder.
const FileName = "prompt-sets.db"

// Shared is no name of a set. Rows and PutRows take it for the rows of sets that are not in the file, because the configuration
// has them: a Key says all that rows are of.
const Shared = "."

// MaxFileBytes bounds what all sets take in the file together.
const MaxFileBytes = 512 << 20

// File is the file of the prompt sets, see boltfile.Kept: it is made with the first set. Safe for concurrent use.
type File struct{ kept *boltfile.Kept }

// Open opens the file, all of which is read and checked. There need not be one. A file that may only be read is opened, and
// changes then fail. Errors: ErrLocked, ErrDamaged, or those of the system.
func Open(path string) (*File, error) { return open(path, os.O_RDWR) }

// OpenReadOnly is Open for a look, which several processes may take at once, but none beside one that has opened the file
// to write. There must be a file. A set that is damaged is an error only of Get.
func OpenReadOnly(path string) (*File, error) { return open(path, os.O_RDONLY) }

func open(path string, mode int) (*File, error) {
	kept, err := boltfile.OpenKept(path, "prompt sets", mode, check)
	if err != nil {
		return nil, err
	}
	return &File{kept}, nil
}

// check says which sets of a file are not whole. It panics where the file itself is not: run it in boltfile.Scan.
func check(data []byte) (damaged error) {
	type bucket struct {
		name  string
		items map[string][]byte
	}
	var all []bucket
	boltfile.Walk(data, true, func(name []byte) {
		all = append(all, bucket{string(name), map[string][]byte{}})
	}, func(key, value []byte) { all[len(all)-1].items[string(key)] = value })
	if len(all) == 0 {
		return nil // it was made, and then the power failed
	}
	boltfile.Want(all[0].name == Shared, "it is not one of ours")
	told := unseal(Shared, headKey, all[0].items[string(headKey)])
	boltfile.Want(len(told) == 4 && int(binary.LittleEndian.Uint32(told)) == len(all)-1, "a prompt set is lost")
	for _, b := range all[1:] {
		boltfile.Want(ValidName(b.name), "it is not one of ours")
		_, err := assemble(b.name, b.items)
		damaged = errors.Join(damaged, err)
	}
	return damaged
}

// viewItems returns what read makes of the items of a bucket whose keys begin with prefix. It must copy what it keeps. Error:
// ErrNotFound.
func viewItems[T any](ctx context.Context, s *File, name, prefix string, read func(items map[string][]byte) T) (T, error) {
	return boltfile.View(ctx, s.kept, func(tx *bbolt.Tx) (found T, err error) {
		if tx == nil || tx.Bucket([]byte(name)) == nil {
			return found, ErrNotFound
		}
		items := map[string][]byte{}
		c := tx.Bucket([]byte(name)).Cursor()
		for key, value := c.Seek([]byte(prefix)); bytes.HasPrefix(key, []byte(prefix)) && key != nil; key, value = c.Next() {
			items[string(key)] = value
		}
		return read(items), nil
	})
}

// Names returns the names of all sets, in order.
func (s *File) Names(ctx context.Context) ([]string, error) {
	return boltfile.View(ctx, s.kept, func(tx *bbolt.Tx) (names []string, err error) {
		if tx == nil {
			return nil, nil
		}
		err = tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			if string(name) != Shared {
				names = append(names, string(name))
			}
			return nil
		})
		return names, err
	})
}

// Get returns a set. Errors: ErrNotFound, ErrDamaged.
func (s *File) Get(ctx context.Context, name string) (Record, error) {
	if name == Shared {
		return Record{}, ErrNotFound
	}
	type found struct {
		record Record
		lost   error // of this set only
	}
	f, err := viewItems(ctx, s, name, "", func(items map[string][]byte) (f found) {
		f.record, f.lost = assemble(name, items)
		return f
	})
	if f.lost != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrDamaged, f.lost)
	}
	return f.record, err
}

// Rows returns what PutRows has kept for a set, less what is damaged. Error: ErrNotFound.
func (s *File) Rows(ctx context.Context, name string) (map[Key][]float32, error) {
	return viewItems(ctx, s, name, "r", func(items map[string][]byte) map[Key][]float32 {
		rows := map[Key][]float32{}
		for key, value := range items {
			if numbers := unseal(name, []byte(key), value); numbers != nil && len(key) == 1+len(Key{}) {
				rows[Key([]byte(key[1:]))] = ParseVector(numbers)
			}
		}
		return rows
	})
}

// Put makes or replaces a set and removes those of its rows that are not among keys. It writes what differs only. r is valid,
// its images are examples, and these have vectors. then: see boltfile.Kept. Errors: ErrFull, or those of the system.
func (s *File) Put(ctx context.Context, r Record, keys []Key, then func()) error {
	if !ValidName(r.Name) {
		return fmt.Errorf("%q is no name of a prompt set", r.Name)
	}
	items, err := r.items()
	if err != nil {
		return err
	}
	return s.kept.Change(ctx, nil, then, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(r.Name))
		if err != nil {
			return err
		}
		keepRows := map[string]bool{}
		for _, key := range keys {
			keepRows[string(rowKey(key))] = true
		}
		var gone [][]byte
		isNew, freed := true, 0
		c := b.Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			isNew = false
			if bytes.Equal(items[string(key)], value) {
				delete(items, string(key)) // is there
			} else if items[string(key)] != nil {
				freed += len(value)
			} else if !keepRows[string(key)] {
				gone, freed = append(gone, bytes.Clone(key)), freed+len(value)
			}
		}
		for _, key := range gone {
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		if isNew {
			if err := count(tx, +1); err != nil {
				return err
			}
		}
		return putItems(tx, b, items, freed)
	})
}

// putItems puts items into a bucket of which so many bytes become free, unless that makes the file too large.
func putItems(tx *bbolt.Tx, b *bbolt.Bucket, items map[string][]byte, freed int) error {
	stats := tx.DB().Stats()
	size := tx.Size() - int64((stats.FreePageN+stats.PendingPageN)*tx.DB().Info().PageSize)
	added := -freed
	for key, item := range items {
		added += len(key) + len(item)
	}
	if added > 0 && size+int64(added) > maxFileBytes {
		return fmt.Errorf("%w: of %d bytes for all of them, %d are free, and %d are needed", ErrFull, maxFileBytes, maxFileBytes-size, added)
	}
	for key, item := range items {
		if err := b.Put([]byte(key), item); err != nil {
			return err
		}
	}
	return nil
}

var maxFileBytes int64 = MaxFileBytes // shorter in tests

// count changes the number of sets.
func count(tx *bbolt.Tx, by int) error {
	b, err := tx.CreateBucketIfNotExists([]byte(Shared))
	if err != nil {
		return err
	}
	n := by
	if old := unseal(Shared, headKey, b.Get(headKey)); len(old) == 4 {
		n += int(binary.LittleEndian.Uint32(old))
	}
	if n > MaxSets {
		return fmt.Errorf("%w: there are %d", ErrFull, MaxSets)
	}
	return b.Put(headKey, seal(Shared, headKey, binary.LittleEndian.AppendUint32(nil, uint32(n))))
}

// PutRows adds rows to a set, which stay as long as Put is told their keys, or to Shared. Errors: ErrNotFound, ErrFull, or
// those of the system.
func (s *File) PutRows(ctx context.Context, name string, rows map[Key][]float32) error {
	items := make(map[string][]byte, len(rows))
	for k, row := range rows {
		key := rowKey(k)
		items[string(key)] = seal(name, key, FormatVector(row))
	}
	none := ErrNotFound
	if name == Shared {
		none = nil
	}
	return s.kept.Change(ctx, none, nil, func(tx *bbolt.Tx) error {
		if name == Shared {
			if err := count(tx, 0); err != nil { // makes the bucket
				return err
			}
		}
		if b := tx.Bucket([]byte(name)); b != nil {
			return putItems(tx, b, items, 0)
		}
		return ErrNotFound
	})
}

// KeepRows removes the rows of Shared that are not among keys. Nothing is written where there are none.
func (s *File) KeepRows(ctx context.Context, keys []Key) error {
	rows, err := s.Rows(ctx, Shared)
	for _, key := range keys {
		delete(rows, key)
	}
	if len(rows) == 0 {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	return s.kept.Change(ctx, ErrNotFound, nil, func(tx *bbolt.Tx) (err error) {
		for key := range rows {
			err = errors.Join(err, tx.Bucket([]byte(Shared)).Delete(rowKey(key)))
		}
		return err
	})
}

// DropFormer removes Record.Former of a set, if wanted still says so when it is its turn. Errors: ErrNotFound, or those of the
// system.
func (s *File) DropFormer(ctx context.Context, name string, wanted func() bool) error {
	return s.kept.Change(ctx, ErrNotFound, nil, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(name))
		if b == nil || name == Shared {
			return ErrNotFound
		}
		if !wanted() {
			return nil
		}
		return b.Delete(oldKey)
	})
}

// Delete removes a set and its rows. then: see boltfile.Kept. Errors: ErrNotFound, or those of the system.
func (s *File) Delete(ctx context.Context, name string, then func()) error {
	return s.kept.Change(ctx, ErrNotFound, then, func(tx *bbolt.Tx) error {
		if name == Shared || tx.Bucket([]byte(name)) == nil {
			return ErrNotFound
		}
		return errors.Join(tx.DeleteBucket([]byte(name)), count(tx, -1))
	})
}

// Close closes the file. It waits for the call that has its turn, but no longer than ctx.
func (s *File) Close(ctx context.Context) error { return s.kept.Close(ctx) }
