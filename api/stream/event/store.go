package event

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"hailoclip/cache/boltfile"
)

// FileName is the name of the store's file in the state folder.
const FileName = "streams.db"

// MaxList is how many events List returns at most.
const MaxList = 1000

const (
	maxWaiting  = 4096            // changes that wait for the disk; one more fails
	maxTrim     = 1000            // old events that one transaction removes
	closeWithin = 5 * time.Second // which Close waits for the disk
)

// Config is the section "events" of the configuration.
type Config struct {
	MaxBytes int64         `yaml:"max_bytes" bounds:"1048576 to 68719476736"` // of all stored events; the oldest make room
	MaxAge   time.Duration `yaml:"max_age" bounds:"1m to 87600h"`
}

// Store keeps events and definitions of streams in a file, see boltfile.Kept. Safe for concurrent use. Changes that come while the
// disk is at work are written together. Errors are ErrLost, but for ErrNoEvent and for what cannot be kept at all; a change
// that fails has not been made, unless its context has ended and the disk was at work.
type Store struct {
	cfg  atomic.Pointer[Config]
	kept *boltfile.Kept

	mu      sync.Mutex
	totals  totals // of what is on disk
	waiting []*change
	writing bool          // writeAll runs
	trim    bool          // there are events to be removed
	trouble error         // of the last use of the file, nil: it went well
	timer   *time.Timer   // to remove what is too old
	closed  bool          // there are no new changes
	written chan struct{} // closed when writeAll has ended after that
}

// change is something to be written. do returns ErrNoEvent if it has changed nothing.
type change struct {
	do   func(tx *bbolt.Tx, t *totals) error
	make bool  // the file, where there is none yet;
	none error // otherwise it ends with this
	err  error
	done chan struct{}
}

// OpenStore opens the file, or makes it with mode 0600 when something is first stored. All of it is read. A file that is damaged
// or held by another process stays as it is: the error, ErrLost, says so. One event that is damaged costs only itself. The
// caller closes the store.
func OpenStore(path string, cfg Config) (s *Store, err error) {
	s = &Store{written: make(chan struct{})}
	s.cfg.Store(&cfg)
	s.kept, err = boltfile.OpenKept(path, "streams", os.O_RDWR, func(data []byte) error { return check(data, &s.totals) })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(0, s.removeAged)
	return s, nil
}

// Apply changes the section; events that are too many or too old by it are removed soon.
func (s *Store) Apply(cfg Config) {
	s.cfg.Store(&cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.timer.Reset(0)
	}
}

// removeAged has old events removed, now and again.
func (s *Store) removeAged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.trim = s.trim || s.old(&s.totals); s.trim {
		s.write()
	}
	s.timer.Reset(min(max(s.cfg.Load().MaxAge/60, time.Second), 10*time.Minute))
}

// old says whether the oldest event is to go.
func (s *Store) old(t *totals) bool {
	c := s.cfg.Load()
	return t.records > 0 && (t.bytes > c.MaxBytes || t.first < uint64(max(0, time.Now().Add(-c.MaxAge).UnixNano())))
}

// write has what is waiting written, with mu held.
func (s *Store) write() {
	if !s.writing {
		s.writing = true
		go s.writeAll()
	}
}

func (s *Store) writeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 || s.trim && !s.closed {
		changes, t := s.waiting, s.totals
		s.waiting, s.trim = nil, false
		s.mu.Unlock()
		s.commit(changes, t)
		s.mu.Lock()
	}
	if s.writing = false; s.closed {
		close(s.written)
	}
}

var errNoFile = errors.New("there is no file yet")

// commit writes changes in one transaction, and removes old events. t is what there is before.
func (s *Store) commit(changes []*change, t totals) {
	none, more := errNoFile, false
	for _, c := range changes {
		if c.make {
			none = nil
		}
	}
	err := s.kept.Change(context.Background(), none, nil, func(tx *bbolt.Tx) (err error) {
		for _, c := range changes {
			if c.err = c.do(tx, &t); c.err != nil && !errors.Is(c.err, ErrNoEvent) {
				return c.err
			}
		}
		more, err = s.removeOld(tx, &t)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.totals, s.trim, s.trouble = t, s.trim || more, nil
	case !errors.Is(err, errNoFile):
		err = fmt.Errorf("%w: %w", ErrLost, err)
		s.trouble = err
	}
	for _, c := range changes {
		if c.err = cmp.Or(err, c.err); errors.Is(err, errNoFile) {
			c.err = c.none
		}
		close(c.done)
	}
}

// removeOld removes the oldest events while there are too many bytes or they are too old. more says that it has not done so with
// all, because that is much for one transaction.
func (s *Store) removeOld(tx *bbolt.Tx, t *totals) (more bool, err error) {
	events, ids, streams := tx.Bucket([]byte(buckets.events)), tx.Bucket([]byte(buckets.ids)), tx.Bucket([]byte(buckets.streams))
	if events == nil {
		return false, nil
	}
	for n := 0; s.old(t); n++ {
		if n == maxTrim {
			return true, nil
		}
		c := events.Cursor()
		moment, record := c.First()
		content := boltfile.Unseal(buckets.events, moment, record) // nil if it is damaged: then its id and stream lead nowhere
		if e, ok := parse(content, false); ok {
			err = errors.Join(ids.Delete(parseID(e.ID)), streams.Delete(streamKey(e.Stream, moment)))
		} else if id, ok := isDeleted(content); ok {
			err = ids.Delete(id)
		}
		t.count(record, -1)
		if err = errors.Join(err, c.Delete()); err != nil {
			return false, err
		}
		if moment, _ = c.First(); moment != nil {
			t.first = binary.BigEndian.Uint64(moment)
		}
	}
	return false, nil
}

// change has a change written, and waits for that or the end of ctx.
func (s *Store) change(ctx context.Context, c *change) error {
	c.done = make(chan struct{})
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return fmt.Errorf("%w: the file is closed", ErrLost)
	case len(s.waiting) >= maxWaiting:
		s.mu.Unlock()
		return fmt.Errorf("%w: %d changes wait for the disk", ErrLost, maxWaiting)
	}
	s.waiting = append(s.waiting, c)
	s.write()
	s.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *change) bool { return other == c })
	select {
	case <-c.done: // both have come
		return c.err
	default:
		return fmt.Errorf("%w: the disk has not answered: %w", ErrLost, context.Cause(ctx))
	}
}

// Add keeps an event of a change, with vector and thumbnail. It is on disk when Add returns. One that is there already, or was, stays
// as it is.
func (s *Store) Add(ctx context.Context, e *Event) error {
	content, err := format(e)
	if err != nil {
		return err
	}
	id, stream := parseID(e.ID), e.Stream
	return s.change(ctx, &change{make: true, do: func(tx *bbolt.Tx, t *totals) error {
		events, err1 := tx.CreateBucketIfNotExists([]byte(buckets.events))
		ids, err2 := tx.CreateBucketIfNotExists([]byte(buckets.ids))
		streams, err3 := tx.CreateBucketIfNotExists([]byte(buckets.streams))
		if err := errors.Join(err1, err2, err3); err != nil || ids.Get(id) != nil {
			return err
		}
		moment := max(uint64(max(0, time.Now().UnixNano())), t.last+1)
		key := binary.BigEndian.AppendUint64(nil, moment)
		record := boltfile.Seal(buckets.events, key, content)
		t.add(moment, record)
		events.FillPercent = 0.9 // keys only rise
		return errors.Join(events.Put(key, record), ids.Put(id, key), streams.Put(streamKey(stream, key), nil))
	}})
}

// Delete removes an event. Error: ErrNoEvent.
func (s *Store) Delete(ctx context.Context, id string) error {
	return s.change(ctx, &change{none: ErrNoEvent, do: func(tx *bbolt.Tx, t *totals) error {
		key, record := find(tx, id)
		e, ok := parse(boltfile.Unseal(buckets.events, key, record), false)
		if !ok {
			return ErrNoEvent
		}
		t.count(record, -1)
		record = boltfile.Seal(buckets.events, key, append([]byte{deleted}, parseID(id)...))
		t.count(record, 1)
		return errors.Join(tx.Bucket([]byte(buckets.events)).Put(key, record),
			tx.Bucket([]byte(buckets.streams)).Delete(streamKey(e.Stream, key)))
	}})
}

// find returns the moment and the record of an event, nil where there is none. They lie in the file.
func find(tx *bbolt.Tx, id string) (moment, record []byte) {
	ids, key := tx.Bucket([]byte(buckets.ids)), parseID(id)
	if ids == nil || key == nil {
		return nil, nil
	}
	if moment = ids.Get(key); moment == nil {
		return nil, nil
	}
	moment = bytes.Clone(moment)
	return moment, tx.Bucket([]byte(buckets.events)).Get(moment)
}

// view returns what read finds, the zero value where there is no file.
func view[T any](ctx context.Context, s *Store, read func(tx *bbolt.Tx) T) (T, error) {
	found, err := boltfile.View(ctx, s.kept, func(tx *bbolt.Tx) (found T, _ error) {
		if tx != nil {
			found = read(tx)
		}
		return found, nil
	})
	if err == nil {
		return found, nil
	}
	err = fmt.Errorf("%w: %w", ErrLost, err)
	if errors.Is(err, boltfile.ErrDamaged) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trouble = err
	}
	return found, err
}

// Get returns an event with vector and thumbnail. Error: ErrNoEvent, also where it is damaged.
func (s *Store) Get(ctx context.Context, id string) (Event, error) {
	e, err := view(ctx, s, func(tx *bbolt.Tx) (e Event) {
		moment, record := find(tx, id)
		e, _ = parse(boltfile.Unseal(buckets.events, moment, record), true)
		return e
	})
	if err == nil && e.ID != id {
		err = fmt.Errorf("%w: %.64q", ErrNoEvent, id)
	}
	return e, err
}

// List returns stored events of a stream ("": all) after since, in the order in which they were stored, at most limit and MaxList,
// without vectors and thumbnails. since is the id of an event, which may have been deleted; "", and one that is not known or has
// made room, is before the oldest.
func (s *Store) List(ctx context.Context, stream, since string, limit int) ([]Event, error) {
	return s.list(ctx, stream, since, limit, false)
}

// Newest is List in the opposite order: of more than limit events it has the newest.
func (s *Store) Newest(ctx context.Context, stream, since string, limit int) ([]Event, error) {
	return s.list(ctx, stream, since, limit, true)
}

func (s *Store) list(ctx context.Context, stream, since string, limit int, newest bool) ([]Event, error) {
	if len(stream) > maxNameLen || limit < 1 {
		return nil, nil
	}
	return view(ctx, s, func(tx *bbolt.Tx) (list []Event) {
		events := tx.Bucket([]byte(buckets.events))
		if events == nil {
			return nil
		}
		c, prefix := events.Cursor(), []byte(nil)
		if stream != "" {
			c, prefix = tx.Bucket([]byte(buckets.streams)).Cursor(), streamKey(stream, nil)
		}
		after, _ := find(tx, since)
		if after = slices.Concat(prefix, after); len(after) > len(prefix) {
			after = append(after, 0) // the first key behind it
		}
		var key []byte
		step := c.Next
		if newest {
			key, step = last(c, prefix), c.Prev
		} else {
			key, _ = c.Seek(after)
		}
		for ; bytes.HasPrefix(key, prefix) && key != nil && bytes.Compare(key, after) >= 0; key, _ = step() {
			moment := key[len(prefix):]
			if e, ok := parse(boltfile.Unseal(buckets.events, moment, events.Get(moment)), false); ok {
				list = append(list, e)
			}
			if len(list) >= min(limit, MaxList) {
				break
			}
		}
		return list
	})
}

// last moves c to the last key that begins with prefix, which is none or ends with 0, or to one before all of them.
func last(c *bbolt.Cursor, prefix []byte) (key []byte) {
	if len(prefix) > 0 {
		behind := bytes.Clone(prefix)
		behind[len(behind)-1] = 1
		if key, _ = c.Seek(behind); key != nil {
			key, _ = c.Prev()
			return key
		}
	}
	key, _ = c.Last()
	return key
}

// Stats are numbers of a store.
type Stats struct {
	Events int    `json:"events"`
	Bytes  int64  `json:"bytes"`          // of them, as MaxBytes counts
	Lost   string `json:"lost,omitempty"` // why nothing can be kept
}

// Stats does not wait for the disk.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Events: s.totals.events, Bytes: s.totals.bytes}
	if s.trouble != nil {
		st.Lost = s.trouble.Error()
	}
	return st
}

// Streams returns what was put, by the stream's id.
func (s *Store) Streams() (map[string][]byte, error) {
	return view(context.Background(), s, func(tx *bbolt.Tx) map[string][]byte {
		all, b := map[string][]byte{}, tx.Bucket([]byte(buckets.definitions))
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for id, item := c.First(); id != nil; id, item = c.Next() {
			all[string(id)] = bytes.Clone(boltfile.Unseal(buckets.definitions, id, item))
		}
		return all
	})
}

// PutStream keeps the definition of a stream, DeleteStream removes it, if there is one.
func (s *Store) PutStream(ctx context.Context, id string, definition []byte) error {
	if len(id) == 0 || len(id) > maxNameLen || len(definition) > maxRecord {
		return fmt.Errorf("a definition of %d bytes of a stream %.64q cannot be kept", len(definition), id)
	}
	item := boltfile.Seal(buckets.definitions, []byte(id), definition)
	return s.change(ctx, &change{make: true, do: func(tx *bbolt.Tx, _ *totals) error {
		b, err := tx.CreateBucketIfNotExists([]byte(buckets.definitions))
		if err != nil {
			return err
		}
		return b.Put([]byte(id), item)
	}})
}

func (s *Store) DeleteStream(ctx context.Context, id string) error {
	return s.change(ctx, &change{do: func(tx *bbolt.Tx, _ *totals) error {
		if b := tx.Bucket([]byte(buckets.definitions)); b != nil {
			return b.Delete([]byte(id))
		}
		return nil
	}})
}

// Close writes what is waiting and closes the file. It waits for the disk, but no longer than 5 s.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	s.mu.Lock()
	writing := s.writing
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.timer.Stop()
	s.mu.Unlock()
	if writing {
		select {
		case <-s.written:
		case <-ctx.Done():
		}
	}
	return s.kept.Close(ctx)
}
