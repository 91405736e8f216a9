package cache

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	writeEvery = 250 * time.Millisecond // how long vectors gather before they are written
	writeBatch = 256                    // vectors in one transaction, at most
	maxQueued  = 4096                   // vectors that may wait to be written; more are dropped
)

// retryAfter is the pause after a failed write: the disk may have room again. Tests shorten it.
var retryAfter = time.Minute

// disk is the file. It never fails: what goes wrong turns it off, or makes it drop writes, and is logged once and told
// by stats. A nil disk has nothing and keeps nothing.
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
	d.open()
	time.AfterFunc(writeEvery, d.writeBehind)
	return d
}

// close writes what is queued and closes the file.
func (d *disk) close() {
	if d == nil {
		return
	}
	d.using.Lock()
	defer d.using.Unlock()
	d.closed = true
	d.writeQueued()
	d.closeFile(false)
}

func (d *disk) stats() DiskStats {
	if d == nil {
		return DiskStats{State: DiskOff, Reason: "not configured"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Queued = len(d.queued)
	return s
}

// put queues single prompts to be written. It does not wait for the disk; when too many wait, or the file cannot be
// written now, they are dropped and counted.
func (d *disk) put(singles []*Prompts) {
	if d == nil {
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

// get returns the embedding of each text that it has, nil for the others. It waits for the disk, which may be writing,
// but no longer than ctx.
func (d *disk) get(ctx context.Context, namespace string, dim int, texts []string) []*Prompts {
	none := make([]*Prompts, len(texts))
	if d == nil {
		return none
	}
	found := make(chan []*Prompts, 1)
	go func() { found <- d.read(namespace, dim, texts) }()
	select {
	case found := <-found:
		return found
	case <-ctx.Done():
		return none
	}
}

func (d *disk) read(namespace string, dim int, texts []string) []*Prompts {
	d.using.Lock()
	defer d.using.Unlock()
	found := make([]*Prompts, len(texts))
	keys := make([]diskKey, len(texts))
	d.mu.Lock()
	for i, text := range texts {
		keys[i] = keyOf(namespace, text)
		if p := d.queued[keys[i]]; p != nil && p.Dim == dim {
			found[i] = p
		}
	}
	d.mu.Unlock()
	if d.file == nil {
		return found
	}
	wrong := uint64(0) // encoded again and replaced, as those are that were found damaged when the file was opened
	err := d.file.view(func(tx *bbolt.Tx) error {
		values := tx.Bucket([]byte(namespace))
		for i := range texts {
			if values == nil || found[i] != nil {
				continue
			}
			if v, ok := parseValue(keys[i], values.Get(keys[i][:])); ok && len(v.Embedding) == dim {
				found[i] = single(namespace, texts[i], v)
			} else if ok {
				wrong++
			}
		}
		return nil
	})
	if err != nil {
		d.failed(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Damaged += wrong
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
	for d.file != nil {
		batch, held := d.nextBatch()
		if len(batch) == 0 {
			return
		}
		err := d.write(batch)
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

// nextBatch returns some of what is queued, which stays queued, and how many vectors the file holds.
func (d *disk) nextBatch() (batch map[diskKey]*Prompts, held int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	batch = make(map[diskKey]*Prompts)
	for key, p := range d.queued {
		if len(batch) == writeBatch {
			break
		}
		batch[key] = p
	}
	return batch, int(d.state.Vectors)
}

// write commits a batch and takes it out of the queue.
func (d *disk) write(batch map[diskKey]*Prompts) error {
	added, bytes := 0, int64(0)
	err := d.file.update(func(tx *bbolt.Tx) error {
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
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, p := range batch {
		if d.queued[key] == p {
			delete(d.queued, key)
		}
	}
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
	state, message := DiskOff, "the embedding cache is kept in memory only"
	if d.file != nil {
		state, message = DiskPaused, "the embedding cache cannot be written to disk: new vectors are kept in memory only, "+
			"trying again every minute"
		d.state.Failures++
		d.retryAt = time.Now().Add(retryAfter)
	}
	if d.state.State != state {
		d.log.Warn(message, "error", err)
	}
	d.state.State, d.state.Reason = state, err.Error()
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
	good, damaged := d.file.count()
	d.state.Bytes, d.state.Vectors = d.file.bytes, int64(good+damaged)
	d.state.Damaged += uint64(damaged)
	if reason != "" {
		d.state.Reason = reason
	}
	if damaged > 0 {
		d.log.Warn("the embedding cache file holds damaged or outdated vectors, which are encoded again", "count", damaged)
	}
}

func (d *disk) closeFile(damaged bool) {
	if d.file != nil {
		if err := d.file.close(damaged); err != nil {
			d.log.Warn("closing the embedding cache file", "error", err)
		}
		d.file = nil
	}
}
