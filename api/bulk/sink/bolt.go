package sink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"hailoclip/api/bulk"
	"hailoclip/cache/boltfile"
)

// A file has the bucket rows: key, NUL and path of a row -> what encode makes of the rest, sealed; and the bucket about, with the
// numbers of a vector.
const rowsBucket = "rows"

var (
	aboutBucket  = []byte("about")
	dimensionKey = []byte("dimension")
)

// page is how many rows Each looks at in one transaction.
const page = 1024

// boltSink keeps rows in a file of bbolt. All of it is mapped, none of it is kept in memory.
type boltSink struct {
	path string
	file *os.File // which db closes; locked
	db   *bbolt.DB
	fail error // why it can no longer be used
	dim  int   // 0: not known
}

func openBolt(path string, o Options) (bulk.Sink, error) { return newBolt(path, o) }

func newBolt(path string, o Options) (*boltSink, error) {
	file, err := boltfile.OpenLocked(path, os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
	if errors.Is(err, boltfile.ErrLocked) {
		return nil, errors.New("another process has it open")
	} else if err != nil {
		return nil, err
	}
	// A file is neither read nor checked as a whole, which would take minutes: rows have checksums.
	db, err := boltfile.Open(file, bbolt.Options{})
	if err != nil {
		release(file)
		return nil, err
	}
	s := &boltSink{path: path, file: file, db: db, dim: o.Dimension}
	if err := s.guard(s.prepare); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare makes the buckets of an empty file, and looks whether those of another are ours and for vectors of the same dimension.
func (s *boltSink) prepare() error {
	var empty bool
	err := s.db.View(func(tx *bbolt.Tx) error {
		about := tx.Bucket(aboutBucket)
		name, _ := tx.Cursor().First()
		if empty = name == nil; empty {
			return nil
		} else if about == nil || tx.Bucket([]byte(rowsBucket)) == nil {
			return errors.New("a file of something else")
		}
		return s.sameDimension(about)
	})
	if err != nil || !empty {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		_, rowsErr := tx.CreateBucket([]byte(rowsBucket))
		_, aboutErr := tx.CreateBucket(aboutBucket)
		return errors.Join(rowsErr, aboutErr)
	})
}

// sameDimension compares the dimension of a file with the one it is opened for, and takes it over where that is not known.
func (s *boltSink) sameDimension(about *bbolt.Bucket) error {
	if b := about.Get(dimensionKey); len(b) == 4 {
		there := int(binary.LittleEndian.Uint32(b))
		if s.dim == 0 {
			s.dim = there
		} else if s.dim != there {
			return &DimensionError{Got: s.dim, Want: there}
		}
	}
	return nil
}

// guard runs what uses the database. After a damage that made bbolt panic it is not used again. Error: boltfile.ErrDamaged.
func (s *boltSink) guard(do func() error) error {
	if s.fail != nil {
		return s.fail
	}
	ended := false
	err := boltfile.Guard(func() error {
		err := do()
		ended = true
		return err
	})
	if errors.Is(err, boltfile.ErrDamaged) {
		err = fmt.Errorf("%s: %w", s.path, err)
	}
	if !ended {
		s.fail = err
	}
	return err
}

func (s *boltSink) Put(ctx context.Context, rows []bulk.Row) error {
	rows, err := ready(rows, s.dim)
	if err != nil || len(rows) == 0 {
		return err
	}
	if !boltfile.LiesAt(s.file, s.path) {
		return fmt.Errorf("%s was deleted or replaced while it was in use", s.path)
	}
	return s.guard(func() error { return s.db.Update(func(tx *bbolt.Tx) error { return s.put(tx, rows) }) })
}

func (s *boltSink) put(tx *bbolt.Tx, rows []bulk.Row) error {
	bucket, about, dim := tx.Bucket([]byte(rowsBucket)), tx.Bucket(aboutBucket), s.dim
	for i := range rows {
		if n := len(rows[i].Embedding); n > 0 && dim == 0 {
			dim = n
		} else if n > 0 && n != dim {
			return &DimensionError{Got: n, Want: dim}
		}
		content, err := encode(rows[i])
		if err != nil {
			return err
		}
		name := []byte(rows[i].Key + "\x00" + rows[i].Path)
		if err := bucket.Put(name, boltfile.Seal(rowsBucket, name, content)); err != nil {
			return err
		}
	}
	if s.dim = dim; dim > 0 && about.Get(dimensionKey) == nil {
		if err := about.Put(dimensionKey, binary.LittleEndian.AppendUint32(nil, uint32(dim))); err != nil {
			return err
		}
	}
	return about.Delete(writtenKey)
}

// Remove implements bulk.Remover.
func (s *boltSink) Remove(ctx context.Context, rows []bulk.ID) error {
	return s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, id := range rows {
				if err := tx.Bucket([]byte(rowsBucket)).Delete([]byte(id.Key + "\x00" + id.Path)); err != nil {
					return err
				}
			}
			return tx.Bucket(aboutBucket).Delete(writtenKey)
		})
	})
}

func (s *boltSink) Find(ctx context.Context, key string) (row bulk.Row, found bool, err error) {
	prefix := []byte(key + "\x00")
	err = s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			name, value := tx.Bucket([]byte(rowsBucket)).Cursor().Seek(prefix)
			if found = bytes.HasPrefix(name, prefix); !found {
				return nil
			}
			row, err = decode(name, value)
			return err
		})
	})
	return row, found && err == nil, err
}

func (s *boltSink) Each(ctx context.Context, row func(key, path string) error) error {
	return s.pages(ctx, func(name, _ []byte) error { return nil }, func(names []string) error {
		for _, name := range names {
			key, path, _ := bytes.Cut([]byte(name), []byte{0})
			if err := row(string(key), string(path)); err != nil {
				return err
			}
		}
		return nil
	})
}

// pages walks over all rows in order: one is called for each in a transaction, all with the names of some after it, outside of one,
// so that it may put rows.
func (s *boltSink) pages(ctx context.Context, one func(name, value []byte) error, all func(names []string) error) error {
	names := make([]string, 0, page)
	for next := []byte{}; ; {
		names = names[:0]
		err := s.guard(func() error {
			return s.db.View(func(tx *bbolt.Tx) error {
				cursor := tx.Bucket([]byte(rowsBucket)).Cursor()
				for name, value := cursor.Seek(next); name != nil && len(names) < page; name, value = cursor.Next() {
					if err := one(name, value); err != nil {
						return err
					}
					names = append(names, string(name))
				}
				return nil
			})
		})
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil || len(names) == 0 {
			return err
		}
		next = append([]byte(names[len(names)-1]), 0) // the least name after it
		if err := all(names); err != nil {
			return err
		}
	}
}

func (s *boltSink) Finish(context.Context) error { return nil }

func (s *boltSink) Close() error {
	if s.fail != nil { // bbolt may hold its locks for ever
		release(s.file)
	} else if err := s.db.Close(); err != nil {
		return err
	}
	return nil
}

// release closes a file of which a part may stay mapped, which would keep it locked.
func release(file *os.File) {
	_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
	file.Close()
}
