package bulk

import (
	"errors"

	"go.etcd.io/bbolt"

	"hailoclip/cache/boltfile"
)

// maxPath is how long a path may be, in bytes.
const maxPath = 8 << 10

// committed returns what is known of a path, without the changes since the last commit. Any goroutine may call it.
func (j *Journal) committed(path string) (r record, ok bool, err error) {
	err = boltfile.Guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketPaths).Get([]byte(path))
			if ok = b != nil; !ok {
				return nil
			}
			return r.read(b)
		})
	})
	return r, ok, err
}

// path returns what is known of a path.
func (j *Journal) path(path string) (r record, ok bool, err error) {
	err = j.change(bucketPaths, func(b *bbolt.Bucket) error {
		v := b.Get([]byte(path))
		if ok = v != nil; !ok {
			return nil
		}
		return r.read(v)
	})
	return r, ok, err
}

// set replaces what is known of a path: before is what that was, nil for nothing. A new path gets its number.
func (j *Journal) set(path string, before *record, r *record) error {
	return j.change(bucketPaths, func(b *bbolt.Bucket) (err error) {
		if before != nil {
			r.id = before.id
			*j.counts.of(before.state)--
		} else if r.id, err = b.NextSequence(); err != nil {
			return err
		}
		*j.counts.of(r.state)++
		return b.Put([]byte(path), r.bytes())
	})
}

// forget removes a path.
func (j *Journal) forget(path string, r *record) error {
	*j.counts.of(r.state)--
	return j.remove(bucketPaths, []byte(path))
}

func (h hash) with(path string) []byte { return append(h[:], path...) }

// supersede notes that the row of a path is to be taken away, or that the path does not wait any more.
func (j *Journal) supersede(path string, r *record) error {
	if r.state == waiting {
		return j.remove(bucketWaiting, r.hash.with(path))
	}
	return j.old(path, r.hash)
}

// old notes that a row, if there is one, is to be taken away.
func (j *Journal) old(path string, h hash) error {
	is, err := j.has(bucketOld, h.with(path))
	if err != nil || is {
		return err
	}
	j.counts.Replaced++
	return j.put(bucketOld, h.with(path), []byte{1})
}

// anew has a row made again, and the image encoded for it.
func (j *Journal) anew(path string, r *record) error {
	o, err := j.outcome(r.hash)
	if err == nil && o != nil {
		err = j.dropOutcome(r.hash)
	}
	if err != nil {
		return err
	}
	if r.state == unreadable {
		return j.forget(path, r)
	}
	now := *r
	now.state = waiting
	return errors.Join(j.set(path, r, &now), j.put(bucketWaiting, r.hash.with(path), nil))
}

// announce notes rows that are about to be put.
func (j *Journal) announce(hashes []hash, rows []Row) error {
	for i := range rows {
		if err := j.put(bucketPutting, hashes[i].with(rows[i].Path), nil); err != nil {
			return err
		}
	}
	return j.commit()
}

// unput has rows made again that a former run has announced, and not noted as put. Where they turn out otherwise, they are taken away.
func (j *Journal) unput() error {
	for {
		names, err := j.some(bucketPutting, nil, batchRows)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			h, path := hash(name[:len(hash{})]), string(name[len(hash{}):])
			r, known, err := j.path(path)
			if err == nil && known && r.hash == h && r.state != waiting {
				err = j.anew(path, &r)
			}
			if err = errors.Join(err, j.old(path, h), j.remove(bucketPutting, name)); err != nil {
				return err
			}
		}
	}
}

// revive says whether there is a row of a content that the path has had before, and keeps it.
func (j *Journal) revive(path string, h hash) (bool, error) {
	is, err := j.has(bucketOld, h.with(path))
	if err != nil || !is {
		return false, err
	}
	j.counts.Replaced--
	return true, j.remove(bucketOld, h.with(path))
}

// outcome returns what came of an image; nil when it has no row.
func (j *Journal) outcome(h hash) (found *outcome, err error) {
	err = j.change(bucketKeys, func(b *bbolt.Bucket) error {
		if v := b.Get(h[:]); v != nil {
			found = new(outcome)
			return found.read(v)
		}
		return nil
	})
	return found, err
}

// setOutcome is told of an image for the first time with fresh.
func (j *Journal) setOutcome(h hash, o *outcome, fresh bool) error {
	if fresh {
		j.counts.Images++
	}
	return j.put(bucketKeys, h[:], o.bytes())
}

// dropOutcome is for an image of which the sink has no row after all.
func (j *Journal) dropOutcome(h hash) error {
	j.counts.Images--
	return j.remove(bucketKeys, h[:])
}

// errStop ends a walk without an error.
var errStop = errors.New("stop")

// each tells the paths after one, in their order, as of the last commit. tell must not change the journal; errStop ends it.
func (j *Journal) each(after string, tell func(path string, r *record) error) error {
	err := boltfile.Guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			c := tx.Bucket(bucketPaths).Cursor()
			for k, v := c.Seek([]byte(after)); k != nil; k, v = c.Next() {
				var r record
				if err := r.read(v); err != nil {
					return err
				}
				if string(k) == after {
					continue
				}
				if err := tell(string(k), &r); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return err
}
