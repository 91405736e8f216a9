package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

const (
	flushEvery = 250 * time.Millisecond // how long vectors gather before they are written
	flushBatch = 256                    // vectors in one transaction, at most
	maxQueued  = 4096                   // vectors that may wait to be written; more are dropped
	growBy     = 1 << 20                // bytes by which the file grows
)

// retryAfter is the pause after a failed write: the disk may have room again. lookEvery is how often an
// idle keeper looks whether the file is still there. Tests shorten them.
var (
	retryAfter = time.Minute
	lookEvery  = 10 * time.Second
)

// disk is the file. It never fails: what goes wrong turns it off, or makes it drop writes, and
// is logged once and told by stats.
//
// The keeper (run) is the only goroutine that begins and ends transactions: a fault can leave
// bbolt's locks held for ever, and so can block nobody else. It alone uses file and pausedUntil.
type disk struct {
	path      string
	limit     int64
	log       *slog.Logger
	survivors func(limit int) []*entry // what a file that is started anew begins with

	file        *boltFile // nil when the disk is off
	pausedUntil time.Time

	broken   atomic.Bool // the database must not be used any more, not even closed
	reading  sync.Mutex  // guards snapshot and all that reads through it
	snapshot *bbolt.Tx   // what was written last; nil when the disk is off

	mu      sync.Mutex // guards what follows
	closed  bool
	queued  map[diskKey]*entry // to be written
	writing map[diskKey]*entry // being written
	state   DiskStats

	wake, full chan struct{} // queued is no longer empty; holds a batch
	clearing   chan chan error
	quit, done chan struct{}
}

// openDisk opens or creates the file and starts the keeper.
func openDisk(path string, limit int64, survivors func(int) []*entry, log *slog.Logger) *disk {
	d := &disk{
		path: path, limit: limit, survivors: survivors, log: log.With("path", path),
		queued: make(map[diskKey]*entry), state: DiskStats{Path: path, State: DiskOK},
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), clearing: make(chan chan error),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	if err := d.openSound(); err != nil {
		d.fail(err)
	}
	go d.run()
	return d
}

// openSound is open, with an empty file in place of a damaged one.
func (d *disk) openSound() error {
	err := d.open()
	if errors.Is(err, ErrDamaged) {
		aside, asideErr := setAside(d.path, time.Now())
		if asideErr == nil {
			d.log.Warn("the embedding cache file is damaged: set aside, starting with an empty one",
				"set_aside", aside, "error", err)
			d.measure(func(s *DiskStats) { s.Reason = "a damaged file was set aside as " + aside })
			err = d.open()
		} else {
			err = fmt.Errorf("%w; setting it aside: %w", err, asideErr)
		}
	}
	return err
}

// open opens a file that it finds whole, or a new one, and takes the first snapshot.
func (d *disk) open() error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o700); err != nil {
		return err
	}
	found, err := scan(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.broken.Store(false)
	d.file, err = openBolt(d.path, bbolt.Options{
		FreelistType: bbolt.FreelistMapType, MaxSize: int(d.limit),
		// Mapped to its limit at once: mapping again would wait for the snapshot to end.
		InitialMmapSize: int(d.limit),
	})
	if err != nil {
		return err
	}
	d.file.db.AllocSize = growBy
	good, bad := 0, 0
	for _, b := range found {
		good += b.good
		bad += len(b.bad)
	}
	if err = d.deleteBad(found); err == nil {
		err = d.renew()
	}
	if err != nil {
		d.broken.Store(errors.Is(err, ErrDamaged))
		d.abandon()
		return err
	}
	if bad > 0 {
		d.log.Warn("the embedding cache file holds damaged or outdated vectors, which are encoded again", "count", bad)
	}
	d.measure(func(s *DiskStats) { s.Vectors, s.Damaged, s.Bytes = int64(good), s.Damaged+uint64(bad), d.bytes() })
	return nil
}

// deleteBad deletes the values that scan found bad. Where that fails they stay, and are not used.
func (d *disk) deleteBad(found []bucket) error {
	for _, b := range found {
		if len(b.bad) == 0 {
			continue
		}
		err := guard(func() error {
			return d.file.db.Update(func(tx *bbolt.Tx) error {
				for _, key := range b.bad {
					if err := tx.Bucket([]byte(b.namespace)).Delete(key); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if errors.Is(err, ErrDamaged) {
			return err
		}
	}
	return nil
}

// renew lets readers see what was written last. For the keeper.
func (d *disk) renew() error {
	var next *bbolt.Tx
	if err := guard(func() (err error) { next, err = d.file.db.Begin(false); return err }); err != nil {
		return err
	}
	d.reading.Lock()
	old := d.snapshot
	d.snapshot = next
	d.reading.Unlock()
	return rollback(old)
}

func rollback(tx *bbolt.Tx) error {
	if tx == nil {
		return nil
	}
	return guard(tx.Rollback)
}

// get returns the vectors of keys, nil for those it does not have. It may wait for the disk.
func (d *disk) get(keys []diskKey, namespace string, prompts []string, dim int) []*entry {
	found := make([]*entry, len(keys))
	missing := false
	// What is written leaves the queue only when the snapshot shows it, so that looking in this
	// order misses nothing.
	d.mu.Lock()
	for i, key := range keys {
		e := d.queued[key]
		if e == nil {
			e = d.writing[key]
		}
		if e != nil && len(e.vector.Embedding) == dim {
			found[i] = e
		}
		missing = missing || found[i] == nil
	}
	d.mu.Unlock()
	if !missing {
		return found
	}
	bad := 0
	for i, value := range d.read(keys, namespace, found) {
		if value == nil {
			continue
		}
		if v, ok := parseValue(keys[i], value); ok && len(v.Embedding) == dim {
			found[i] = &entry{namespace: namespace, prompt: prompts[i], vector: v}
		} else {
			bad++ // the prompt is encoded again, and its new value replaces this one
		}
	}
	if bad > 0 {
		d.measure(func(s *DiskStats) { s.Damaged += uint64(bad) })
	}
	return found
}

// read copies the values of keys that are not found yet out of the file.
func (d *disk) read(keys []diskKey, namespace string, found []*entry) [][]byte {
	values := make([][]byte, len(keys))
	d.reading.Lock()
	if d.snapshot == nil || d.broken.Load() {
		d.reading.Unlock()
		return values
	}
	err := guard(func() error {
		b := d.snapshot.Bucket([]byte(namespace))
		for i, key := range keys {
			if b != nil && found[i] == nil {
				values[i] = bytes.Clone(b.Get(key[:]))
			}
		}
		return nil
	})
	if err != nil {
		d.broken.Store(true)
	}
	d.reading.Unlock()
	if err != nil {
		d.fail(err)
	}
	return values
}

// fail turns the disk off until the next start.
func (d *disk) fail(err error) {
	first := false
	d.measure(func(s *DiskStats) {
		first = s.State != DiskOff
		if first {
			s.State, s.Reason = DiskOff, err.Error()
		}
	})
	if first {
		d.log.Warn("the embedding cache is kept in memory only", "error", err)
	}
}

// measure changes the stats.
func (d *disk) measure(change func(s *DiskStats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.state)
}

// bytes is the size of the file. For the keeper.
func (d *disk) bytes() int64 {
	if d.file == nil {
		return 0
	}
	stat, err := d.file.file.Stat()
	if err != nil {
		return 0
	}
	return stat.Size()
}

func (d *disk) stats() DiskStats {
	if d == nil {
		return DiskStats{State: DiskOff, Reason: "not configured"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Queued = len(d.queued) + len(d.writing)
	return s
}
