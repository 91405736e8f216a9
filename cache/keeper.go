package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// put queues vectors to be written. It does not wait for the disk; when too many wait they are
// dropped and counted. A nil disk drops all.
func (d *disk) put(keys []diskKey, entries []*entry) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		d.state.Dropped += uint64(len(keys))
		return
	}
	d.queue(keys, entries)
}

// queue is put for who holds mu. The keeper may use it while it writes the last vectors.
func (d *disk) queue(keys []diskKey, entries []*entry) {
	for i, key := range keys {
		if d.state.State == DiskOff || (len(d.queued) >= maxQueued && d.queued[key] == nil) {
			d.state.Dropped++
		} else {
			d.queued[key] = entries[i]
		}
	}
	if len(d.queued) > 0 {
		signal(d.wake)
	}
	if len(d.queued) >= flushBatch {
		signal(d.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // signalled already
	}
}

// run is the keeper: it writes what is queued until close.
func (d *disk) run() {
	defer close(d.done)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			d.look()
		case <-d.wake:
			gather := time.NewTimer(flushEvery)
			select {
			case <-gather.C:
			case <-d.full:
			case <-d.quit:
			}
			gather.Stop()
			d.flush()
		case reply := <-d.clearing:
			reply <- d.clearAll()
		case <-d.quit:
			d.flush()
			d.abandon()
			return
		}
	}
}

// close writes what is queued and closes the file. Later calls wait for the first.
func (d *disk) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if !closed {
		close(d.quit)
	}
	<-d.done
}

// clear forgets all vectors, those queued too.
func (d *disk) clear() error {
	if d == nil {
		return nil
	}
	reply := make(chan error, 1)
	select {
	case d.clearing <- reply:
		return <-reply
	case <-d.done:
		return ErrClosed
	}
}

func (d *disk) clearAll() error {
	d.mu.Lock()
	clear(d.queued)
	off, reason := d.state.State == DiskOff, d.state.Reason
	d.mu.Unlock()
	if off {
		return fmt.Errorf("the file is not in use: %s", reason)
	}
	return d.startAnew()
}

// flush writes all that is queued.
func (d *disk) flush() {
	d.look()
	for {
		batch := d.take()
		if len(batch) == 0 {
			return
		}
		err := d.write(batch)
		if errors.Is(err, berrors.ErrMaxSizeReached) {
			held := d.stats().Vectors
			if err = d.startAnew(); err == nil {
				err = d.write(batch)
				d.restock(held / 2) // not full again at once
			}
		}
		d.wrote(len(batch), err)
	}
}

// take moves a batch from queued to writing, where readers still find it. A batch is small
// beside the file, since its pages are needed twice until it is committed.
func (d *disk) take() map[diskKey]*entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing = make(map[diskKey]*entry, min(len(d.queued), flushBatch))
	var bytes int64
	for key, e := range d.queued {
		if len(d.writing) == flushBatch || bytes > d.limit/32 {
			break
		}
		bytes += int64(4 * len(e.vector.Embedding))
		d.writing[key] = e
		delete(d.queued, key)
	}
	return d.writing
}

var errSkipped = errors.New("not written")

// write commits a batch and shows it to readers.
func (d *disk) write(batch map[diskKey]*entry) error {
	if d.file == nil || d.broken.Load() || time.Now().Before(d.pausedUntil) {
		return errSkipped
	}
	added := 0
	err := guard(func() error {
		return d.file.db.Update(func(tx *bbolt.Tx) error {
			for key, e := range batch {
				b, err := tx.CreateBucketIfNotExists([]byte(e.namespace))
				if err != nil {
					return err
				}
				if b.Get(key[:]) == nil {
					added++
				}
				if err := b.Put(key[:], formatValue(key, e.vector)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err == nil {
		err = d.renew()
	}
	if err == nil {
		d.measure(func(s *DiskStats) { s.Vectors += int64(added) })
	}
	return err
}

// wrote draws the conclusions from trying to write n vectors.
func (d *disk) wrote(n int, err error) {
	recovered, paused := false, false
	bytes := d.bytes()
	d.measure(func(s *DiskStats) {
		d.writing = nil
		s.Bytes = bytes
		switch {
		case err == nil:
			s.Written += uint64(n)
			if recovered = s.State == DiskPaused; recovered {
				s.State, s.Reason = DiskOK, ""
			}
			return
		case errors.Is(err, errSkipped), errors.Is(err, ErrDamaged), s.State == DiskOff:
		default:
			s.Failures++
			paused = s.State == DiskOK
			s.State, s.Reason = DiskPaused, err.Error()
			d.pausedUntil = time.Now().Add(retryAfter)
		}
		s.Dropped += uint64(n)
	})
	switch {
	case recovered:
		d.log.Info("the embedding cache is written to disk again")
	case paused:
		d.log.Warn("the embedding cache cannot be written to disk: new vectors are kept in memory only, "+
			"trying again every minute", "error", err)
	case errors.Is(err, ErrDamaged):
		d.broken.Store(true)
		d.fail(err)
	}
	if d.broken.Load() {
		d.abandon()
	}
}

// look notices that the file was deleted or replaced while it was open, where all that is written is lost
// with this process, and goes on with the file that is there now, or a new one.
func (d *disk) look() {
	if d.file == nil || d.broken.Load() {
		return
	}
	ours, err := d.file.file.Stat()
	if err != nil {
		return
	}
	there, err := os.Stat(d.path)
	if err == nil && os.SameFile(ours, there) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	d.log.Warn("the embedding cache file was deleted or replaced while it was in use: going on with what is there now")
	d.abandon()
	d.pausedUntil = time.Time{}
	if err := d.openSound(); err != nil {
		d.fail(err)
		return
	}
	d.restock(maxQueued)
}

// startAnew replaces the file by an empty one.
func (d *disk) startAnew() error {
	d.abandon()
	d.pausedUntil = time.Time{}
	err := os.Remove(d.path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = d.open()
	}
	if err != nil {
		d.fail(err)
	}
	return err
}

// restock queues what memory holds, which is what was asked for most, for a file that was
// started anew: at most so many vectors.
func (d *disk) restock(limit int64) {
	d.measure(func(s *DiskStats) { s.Restarts++ })
	entries := d.survivors(int(min(limit, maxQueued)))
	keys := make([]diskKey, len(entries))
	for i, e := range entries {
		keys[i] = keyOf(e.namespace, e.prompt)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue(keys, entries)
}

// abandon closes the file. For the keeper.
func (d *disk) abandon() {
	if d.file == nil {
		return
	}
	d.reading.Lock()
	snapshot, broken := d.snapshot, d.broken.Load()
	d.snapshot = nil
	d.reading.Unlock()
	if !broken {
		broken = rollback(snapshot) != nil // closing waits for the end of all transactions
	}
	if err := d.file.close(broken); err != nil {
		d.log.Warn("closing the embedding cache file", "error", err)
	}
	d.file = nil
}
