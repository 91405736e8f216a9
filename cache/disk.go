package cache

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"hailoclip/cache/boltfile"
)

const (
	writeBatch    = 256             // vectors in one transaction, at most
	maxQueued     = 4096            // vectors that may wait to be written; more are dropped
	lookUpTimeout = 2 * time.Second // a look-up on a disk that takes longer finds nothing
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

	// Both of these locks are held to change file, one of them to use it; each as long as the disk needs.
	writing sync.Mutex    // of who writes to the file, replaces or closes it
	reading chan struct{} // full while somebody reads the snapshot of the file: a lock for which the wait can end
	file    *boltFile     // nil when the disk is off
	closed  bool          // under writing

	mu      sync.Mutex           // guards what follows; held for a moment only, after the others
	queued  map[diskKey]*Prompts // to be written, or being written
	retryAt time.Time            // nothing is queued before it
	state   DiskStats
}

// openDisk opens or creates the file and starts to write behind.
func openDisk(path string, limit int64, memory *memory, log *slog.Logger) *disk {
	d := &disk{
		path: path, limit: limit, memory: memory, log: log.With("path", path),
		reading: make(chan struct{}, 1), queued: make(map[diskKey]*Prompts), state: DiskStats{Path: path, State: DiskOK},
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
	d.writing.Lock()
	defer d.writing.Unlock()
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

// get returns rows with the embeddings of those texts that have none and that it has. It may wait for another look-up and
// for the disk, but no longer than ctx and lookUpTimeout. A disk that hangs holds one goroutine.
func (d *disk) get(ctx context.Context, namespace string, dim int, texts []string, rows []*Prompts) []*Prompts {
	if d.stats().State == DiskOff {
		return rows
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	select {
	case d.reading <- struct{}{}:
	case <-ctx.Done():
		return rows
	}
	found, done := slices.Clone(rows), make(chan struct{})
	go func() {
		d.read(namespace, dim, texts, found)
		<-d.reading
		close(done)
	}()
	select {
	case <-done:
		return found
	case <-ctx.Done():
		return rows
	}
}

// read sets the rows of get, for who holds reading.
func (d *disk) read(namespace string, dim int, texts []string, rows []*Prompts) {
	if d.file == nil {
		return
	}
	otherDim := uint64(0)
	err := guard(func() error {
		values := d.file.snapshot.Bucket([]byte(namespace))
		for i, text := range texts {
			if rows[i] != nil {
				continue
			}
			key := keyOf(namespace, text)
			d.mu.Lock()
			queued := d.queued[key] // until the snapshot shows it
			d.mu.Unlock()
			if queued != nil && queued.Dim == dim {
				rows[i] = queued
			} else if values == nil {
				continue
			} else if v, ok := parseValue(key, values.Get(key[:])); ok && len(v.Embedding) == dim {
				rows[i] = single(namespace, text, v)
			} else if ok {
				otherDim++
			}
		}
		return nil
	})
	if err != nil {
		d.failed(DiskOff, err) // who writes closes the file
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Damaged += otherDim
}

func (d *disk) writeBehind() {
	d.writing.Lock()
	defer d.writing.Unlock()
	if !d.closed {
		d.writeQueued()
		time.AfterFunc(writeEvery, d.writeBehind)
	}
}

// writeQueued writes all that is queued. A file that is full, deleted or replaced is started anew.
func (d *disk) writeQueued() {
	if d.stats().State == DiskOff {
		d.closeFile(true)
	}
	if d.file != nil && !boltfile.LiesAt(d.file.file, d.path) {
		d.log.Warn("the embedding cache file was deleted or replaced while it was in use: going on with what is there now")
		d.restart(maxQueued)
	}
	for d.file != nil && d.stats().Queued > 0 {
		err := d.write()
		held := int(d.stats().Vectors)
		if errors.Is(err, berrors.ErrMaxSizeReached) && held > 0 && os.Remove(d.path) == nil {
			d.restart(held / 2) // not full again at once
		} else if errors.Is(err, ErrDamaged) {
			d.closeFile(true)
			d.failed(DiskOff, err)
		} else if err != nil {
			d.failed(DiskPaused, err)
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

// write commits a batch of what is queued, which is small beside the file because its pages are needed twice until then,
// and shows it to look-ups.
func (d *disk) write() error {
	d.mu.Lock()
	batch, size := make(map[diskKey]*Prompts), int64(0)
	for key, p := range d.queued {
		if len(batch) < writeBatch && size <= d.limit/32 {
			batch[key] = p
			size += int64(4 * p.Dim)
		}
	}
	d.mu.Unlock()
	snapshot, added, err := d.file.put(batch)
	if err != nil {
		return err
	}
	bytes := snapshot.Size()
	d.exclude(func() { snapshot, d.file.snapshot = d.file.snapshot, snapshot })
	_ = snapshot.Rollback() // cannot fail
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.queued, func(key diskKey, p *Prompts) bool { return batch[key] == p })
	d.state.Written += uint64(len(batch))
	d.state.Vectors += added
	d.state.Bytes = bytes
	if d.state.State == DiskPaused {
		d.state.State, d.state.Reason = DiskOK, ""
		d.log.Info("the embedding cache is written to disk again")
	}
	return nil
}

// failed drops what is queued, and pauses writing or turns the disk off, until the next start.
func (d *disk) failed(state string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Dropped += uint64(len(d.queued))
	clear(d.queued)
	before := d.state.State
	if before == DiskOff {
		return
	}
	d.state.State, d.state.Reason = state, err.Error()
	if state == DiskPaused {
		d.retryAt = time.Now().Add(retryAfter)
		d.state.Failures++
	}
	if state != before {
		d.log.Warn("the embedding cache is kept in memory only", "disk", state, "error", err)
	}
}

// open opens a file that it finds whole, or a new one; a damaged one is set aside first.
func (d *disk) open() {
	reason, err := "", os.MkdirAll(filepath.Dir(d.path), 0o700)
	var file *boltFile
	if err == nil {
		file, err = openBolt(d.path, d.limit)
	}
	if errors.Is(err, ErrDamaged) {
		d.log.Warn("the embedding cache file is damaged: it is set aside and an empty one used", "error", err)
		if reason, err = setAside(d.path); err == nil {
			file, err = openBolt(d.path, d.limit)
		}
	}
	if err != nil {
		d.failed(DiskOff, err)
		return
	}
	d.exclude(func() { d.file = file })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Bytes, d.state.Vectors = file.bytes, file.vectors
	d.state.Reason = cmp.Or(reason, d.state.Reason)
	if n := file.damaged; n > 0 {
		d.state.Damaged += uint64(n)
		d.log.Warn("the embedding cache file held damaged or outdated vectors, which are encoded again", "count", n)
	}
}

// exclude runs change while nobody reads.
func (d *disk) exclude(change func()) {
	d.reading <- struct{}{}
	change()
	<-d.reading
}

func (d *disk) closeFile(damaged bool) {
	if file := d.file; file != nil {
		d.exclude(func() { d.file = nil })
		file.close(damaged)
	}
}
