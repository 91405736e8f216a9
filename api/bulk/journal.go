package bulk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"hailoclip/cache/boltfile"
)

// Journal remembers what a source has, and what of it the sink has: a file of bbolt. Its buckets:
//
//	meta     what the journal is for, counts, and where the next row of an Appender goes
//	paths    path -> what is known of it, see record
//	keys     hash -> outcome of an image that has a row, and the place of one; see outcome
//	waiting  hash + path -> nothing: paths without a row
//	old      hash + path -> nothing: rows of what has changed, to be taken away
//	putting  hash + path -> nothing: rows that the sink may have or not, when a process was killed or the sink has failed
//
// A hash is the first 16 bytes of a key; the rest of it is the same for all of them. One goroutine changes it, in a transaction
// that sees its own changes and becomes durable by commit; others may look at what is committed.
type Journal struct {
	db       *bbolt.DB
	file     *os.File
	Identity Identity

	tx     *bbolt.Tx // the changes since the last commit
	counts Counts
	mark   int64

	finishing bool // the sink was being finished: an Appender may be shorter than mark, and is whole
}

// Identity is what a journal is for. Another job cannot go on with it.
type Identity struct {
	Version int    `json:"version"`
	Source  string `json:"source"`
	Sink    string `json:"sink"`
	Model   string `json:"model"`
	Digest  string `json:"digest"` // of the image encoder
	Prep    string `json:"prep"`
	What    string `json:"what"` // rows hold: embeddings, or what they are classified by
}

const journalVersion = 1

var (
	bucketMeta, bucketPaths, bucketKeys = []byte("meta"), []byte("paths"), []byte("keys")
	bucketWaiting, bucketOld            = []byte("waiting"), []byte("old")
	bucketPutting                       = []byte("putting")
)

// Errors of journals.
var (
	// ErrNoJournal says that there is no such journal.
	ErrNoJournal = errors.New("there is no journal")
	// ErrChanged says that an Appender does not have what was put; Verify can repair that.
	ErrChanged = errors.New("others have changed it")
	// ErrOtherJob says that the journal is that of something else.
	ErrOtherJob = errors.New("the journal is that of another job")
)

// OpenJournal opens the journal in a file, which is made with create. Nobody else can open it until it is closed; another process that
// has it is boltfile.ErrLocked.
func OpenJournal(path string, create bool) (*Journal, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	file, err := boltfile.OpenLocked(path, flag, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) && !create {
		return nil, fmt.Errorf("%w %s", ErrNoJournal, path)
	} else if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	j := &Journal{file: file}
	if j.db, err = boltfile.Open(file, bbolt.Options{NoFreelistSync: true}); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), file.Close())
	}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), j.Close())
	}
	return j, nil
}

// load makes the buckets that are missing, and reads what meta has.
func (j *Journal) load() error {
	return boltfile.Guard(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{bucketMeta, bucketPaths, bucketKeys, bucketWaiting, bucketOld, bucketPutting} {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			meta := tx.Bucket(bucketMeta)
			for key, v := range map[string]any{"identity": &j.Identity, "counts": &j.counts, "mark": &j.mark, "finishing": &j.finishing} {
				if b := meta.Get([]byte(key)); b != nil {
					if err := json.Unmarshal(b, v); err != nil {
						return fmt.Errorf("%w: %s: %w", boltfile.ErrDamaged, key, err)
					}
				}
			}
			return nil
		})
	})
}

// Is says that the journal is that of the job; a new one becomes it.
func (j *Journal) Is(id Identity) error {
	have := j.Identity
	if have == (Identity{}) {
		j.Identity = id
		return j.put(bucketMeta, []byte("identity"), must(json.Marshal(id)))
	}
	for _, f := range [][3]string{
		{"source", have.Source, id.Source}, {"sink", have.Sink, id.Sink}, {"model", have.Model, id.Model},
		{"version of the model", have.Digest, id.Digest}, {"preprocessing", have.Prep, id.Prep}, {"kind of rows", have.What, id.What},
		{"version of journals", fmt.Sprint(have.Version), fmt.Sprint(id.Version)},
	} {
		if f[1] != f[2] {
			return fmt.Errorf("%w: its %s is %q, not %q", ErrOtherJob, f[0], f[1], f[2])
		}
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // v is one of this package's own types
	}
	return v
}

// New says that no run has begun with it: one that has may have put rows, although it was killed before it could note that.
func (j *Journal) New() bool { return j.Identity == (Identity{}) }

// begin is called before every change.
func (j *Journal) begin() (err error) {
	if j.tx == nil {
		j.tx, err = j.db.Begin(true)
	}
	return err
}

// commit makes the changes durable.
func (j *Journal) commit() error {
	err := errors.Join(j.put(bucketMeta, []byte("counts"), must(json.Marshal(j.counts))),
		j.put(bucketMeta, []byte("mark"), must(json.Marshal(j.mark))),
		j.put(bucketMeta, []byte("finishing"), must(json.Marshal(j.finishing))))
	if err != nil {
		return err
	}
	tx := j.tx
	j.tx = nil
	return boltfile.Guard(tx.Commit)
}

// rollback forgets the changes.
func (j *Journal) rollback() {
	if j.tx != nil {
		_ = j.tx.Rollback()
		j.tx = nil
	}
}

// change does something to a bucket in the transaction.
func (j *Journal) change(bucket []byte, do func(b *bbolt.Bucket) error) error {
	return boltfile.Guard(func() error {
		if err := j.begin(); err != nil {
			return err
		}
		return do(j.tx.Bucket(bucket))
	})
}

func (j *Journal) put(bucket, key, value []byte) error {
	return j.change(bucket, func(b *bbolt.Bucket) error { return b.Put(key, value) })
}

func (j *Journal) remove(bucket, key []byte) error {
	return j.change(bucket, func(b *bbolt.Bucket) error { return b.Delete(key) })
}

func (j *Journal) has(bucket, key []byte) (is bool, err error) {
	err = j.change(bucket, func(b *bbolt.Bucket) error {
		is = b.Get(key) != nil
		return nil
	})
	return is, err
}

// some returns up to n keys of a bucket that begin with prefix, without it.
func (j *Journal) some(bucket, prefix []byte, n int) (keys [][]byte, err error) {
	err = j.change(bucket, func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for k, _ := c.Seek(prefix); k != nil && len(keys) < n && len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix); k, _ = c.Next() {
			keys = append(keys, append([]byte(nil), k[len(prefix):]...))
		}
		return nil
	})
	return keys, err
}

// clear empties a bucket.
func (j *Journal) clear(bucket []byte) error {
	return boltfile.Guard(func() error {
		if err := j.begin(); err != nil {
			return err
		}
		if err := j.tx.DeleteBucket(bucket); err != nil {
			return err
		}
		_, err := j.tx.CreateBucket(bucket)
		return err
	})
}

// Close closes the journal. Changes that are not committed are lost.
func (j *Journal) Close() error {
	j.rollback()
	return j.db.Close()
}
