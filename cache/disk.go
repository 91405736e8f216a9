package cache

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	writeBatch = 256  // vectors in one transaction, at most
	maxQueued  = 4096 // vectors that may wait to be written; more are dropped
)

// Tests shorten these.
var (
	writeEvery = 250 * time.Millisecond // how long vectors gather before they are written
	retryAfter = time.Minute            // the pause after a failed write: the disk may have room again
)

// disk is the file. It never fails: what goes wrong turns it off, or makes it drop writes, and is logged once and told
// by stats. One without a path has nothing and keeps nothing.
type disk struct {
	path   string
	limit  int64 // of the size of the file
	log    *slog.Logger
	memory *memory // a file that is started anew begins with what it holds

	using  sync.Mutex // held by who reads or writes the file, which takes as long as the disk needs
	file   *boltFile  // nil when the disk is off
	closed bool

	mu      sync.Mutex           // guards what follows; held for a moment only, after using
	queued  map[diskKey]*Prompts // to be written, or being written
	retryAt time.Time            // nothing is queued before it
	state   DiskStats
}

// openDisk opens or creates the file and starts to write behind.
func openDisk(path string, limit int64, memory *memory, log *slog.Logger) *disk {
	d := &disk{
		path: path, limit: limit, memory: memory, log: log.With("path", path),
		queued: make(map[diskKey]*Prompts), state: DiskStats{Path: path, State: DiskOK},
	}
	if path == "" {
		d.state = DiskStats{State: DiskOff, Reason: "not configured"}
		return d
	}
	d.open()
	time.AfterFunc(writeEvery, d.writeBehind)
	return d
}

// close writes what is queued and closes the file.
func (d *disk) close() {
	d.using.Lock()
	defer d.using.Unlock()
	d.closed = true
	d.writeQueued()
	d.closeFile(false)
}

func (d *disk) stats() DiskStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Queued = len(d.queued)
	return s
}

// put queues single prompts to be written. It does not wait for the disk; when too many wait, or the file cannot be
// written now, they are dropped and counted.
func (d *disk) put(singles []*Prompts) {
	if d.path == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range singles {
		key := keyOf(p.namespace, p.texts[0])
		if d.state.State == DiskOff || time.Now().Before(d.retryAt) || len(d.queued) >= maxQueued && d.queued[key] == nil {
			d.state.Dropped++
		} else {
			d.queued[key] = p
		}
	}
}

// get returns the embeddings of those texts that have no row and that it has, nil for the others. It waits for the disk,
// which may be writing, but no longer than ctx. It may read texts and rows until the disk is done.
func (d *disk) get(ctx context.Context, namespace string, dim int, texts []string, rows []*Prompts) []*Prompts {
	if d.path == "" {
		return nil
	}
	done := make(chan []*Prompts, 1)
	go func() { done <- d.read(namespace, dim, texts, rows) }()
	select {
	case found := <-done:
		return found
	case <-ctx.Done():
		return nil
	}
}

func (d *disk) read(namespace string, dim int, texts []string, rows []*Prompts) []*Prompts {
	d.using.Lock()
	defer d.using.Unlock()
	found, otherDim := make([]*Prompts, len(texts)), uint64(0)
	if d.file == nil {
		return found
	}
	read := func(tx *bbolt.Tx) error {
		values := tx.Bucket([]byte(namespace))
		for i, text := range texts {
			if rows[i] != nil {
				continue
			}
			key := keyOf(namespace, text)
			d.mu.Lock()
			queued := d.queued[key]
			d.mu.Unlock()
			if queued != nil && queued.Dim == dim {
				found[i] = queued
			} else if values == nil {
				continue
			} else if v, ok := parseValue(key, values.Get(key[:])); ok && len(v.Embedding) == dim {
				found[i] = single(namespace, text, v)
			} else if ok {
				otherDim++
			}
		}
		return nil
	}
	if err := guard(func() error { return d.file.db.View(read) }); err != nil {
		d.failed(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Damaged += otherDim
	return found
}

func (d *disk) writeBehind() {
	d.using.Lock()
	defer d.using.Unlock()
	if !d.closed {
		d.writeQueued()
		time.AfterFunc(writeEvery, d.writeBehind)
	}
}

// writeQueued writes all that is queued. A file that is full, deleted or replaced is started anew.
func (d *disk) writeQueued() {
	if d.file != nil && !d.file.liesAt(d.path) {
		d.log.Warn("the embedding cache file was deleted or replaced while it was in use: going on with what is there now")
		d.restart(maxQueued)
	}
	for d.file != nil && d.stats().Queued > 0 {
		err := d.write()
		held := int(d.stats().Vectors)
		if errors.Is(err, berrors.ErrMaxSizeReached) && held > 0 && os.Remove(d.path) == nil {
			d.restart(held / 2) // not full again at once
		} else if err != nil {
			d.failed(err)
		}
	}
}

// restart goes on with the file that is there, or a new one, and queues what memory holds, which is what was asked for
// most: at most so many vectors.
func (d *disk) restart(limit int) {
	d.closeFile(false)
	d.open()
	d.mu.Lock()
	d.state.Restarts++
	d.retryAt = time.Time{}
	d.mu.Unlock()
	d.put(d.memory.some(min(limit, maxQueued)))
}

// write commits a batch of what is queued.
func (d *disk) write() error {
	d.mu.Lock()
	batch := make(map[diskKey]*Prompts)
	for key, p := range d.queued {
		if len(batch) < writeBatch {
			batch[key] = p
		}
	}
	d.mu.Unlock()
	added, bytes := 0, int64(0)
	err := guard(func() error {
		return d.file.db.Update(func(tx *bbolt.Tx) error {
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
			bytes = tx.Size()
			return nil
		})
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.queued, func(key diskKey, p *Prompts) bool { return batch[key] == p })
	d.state.Written += uint64(len(batch))
	d.state.Vectors += int64(added)
	d.state.Bytes = bytes
	if d.state.State == DiskPaused {
		d.state.State, d.state.Reason = DiskOK, ""
		d.log.Info("the embedding cache is written to disk again")
	}
	return nil
}

// failed drops what is queued. A file that is whole is written again after a pause; otherwise the disk is off.
func (d *disk) failed(err error) {
	if errors.Is(err, ErrDamaged) {
		d.closeFile(true)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Dropped += uint64(len(d.queued))
	clear(d.queued)
	before := d.state.State
	d.state.State, d.state.Reason = DiskOff, err.Error()
	if d.file != nil {
		d.state.State, d.retryAt = DiskPaused, time.Now().Add(retryAfter)
		d.state.Failures++
	}
	if d.state.State != before {
		d.log.Warn("the embedding cache is kept in memory only", "disk", d.state.State, "error", err)
	}
}

// open opens a file that it finds whole, or a new one; a damaged one is set aside first.
func (d *disk) open() {
	reason, err := "", os.MkdirAll(filepath.Dir(d.path), 0o700)
	if err == nil {
		d.file, err = openBolt(d.path, d.limit, false)
	}
	if errors.Is(err, ErrDamaged) {
		d.log.Warn("the embedding cache file is damaged: it is set aside and an empty one used", "error", err)
		if reason, err = setAside(d.path); err == nil {
			d.file, err = openBolt(d.path, d.limit, false)
		}
	}
	if err != nil {
		d.failed(err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Bytes, d.state.Vectors = d.file.bytes, int64(d.file.values)
	d.state.Reason = cmp.Or(reason, d.state.Reason)
	if n := d.file.damaged; n > 0 {
		d.state.Damaged += uint64(n)
		d.log.Warn("the embedding cache file holds damaged or outdated vectors, which are encoded again", "count", n)
	}
}

func (d *disk) closeFile(damaged bool) {
	if d.file != nil {
		d.file.close(damaged)
		d.file = nil
	}
}
