package cache

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Store is the memory and the file that the embeddings of all text encoders share. Safe for
// concurrent use.
type Store struct {
	config Config
	log    *slog.Logger
	memory *memory // nil when the cache is disabled
	disk   *disk   // nil when there is none
	counts counts

	ctx    context.Context // ends when the store closes
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool
	encoders []*TextEmbeddings
}

type counts struct {
	requests, listHits, memoryHits, diskHits, shared, encoded, failed, busy atomic.Uint64
}

// States of DiskStats.State.
const (
	DiskOK     = "ok"
	DiskPaused = "paused" // a write failed: what is there is read, writing is tried again every minute
	DiskOff    = "off"    // memory only, until the next start
)

// Stats is what a Store holds now and has done since its start.
type Stats struct {
	Enabled   bool  `json:"enabled"`    // the configuration says to remember
	Vectors   int64 `json:"vectors"`    // in memory
	ListBytes int64 `json:"list_bytes"` // memory that whole lists of prompts take
	Pending   int   `json:"pending"`    // prompts waiting for an encoder now

	Requests   uint64 `json:"requests"`    // calls of Get
	ListHits   uint64 `json:"list_hits"`   // of these, lists that were in memory whole
	MemoryHits uint64 `json:"memory_hits"` // prompts of other calls found in memory
	DiskHits   uint64 `json:"disk_hits"`   // prompts found on disk
	Shared     uint64 `json:"shared"`      // prompts that somebody else was waiting for already
	Encoded    uint64 `json:"encoded"`     // prompts encoded
	Failed     uint64 `json:"failed"`      // prompts that could not be encoded, cancelled ones included
	Busy       uint64 `json:"busy"`        // calls refused with ErrBusy

	Disk DiskStats `json:"disk"`
}

// DiskStats is the state of the file.
type DiskStats struct {
	Path     string `json:"path,omitempty"`
	State    string `json:"state"`            // DiskOK, DiskPaused or DiskOff
	Reason   string `json:"reason,omitempty"` // why it is not ok, or what happened to the file at start
	Bytes    int64  `json:"bytes"`
	Vectors  int64  `json:"vectors"`
	Queued   int    `json:"queued"`   // vectors waiting to be written
	Written  uint64 `json:"written"`  // vectors written
	Dropped  uint64 `json:"dropped"`  // vectors not written: queue full, write failed, disk off
	Failures uint64 `json:"failures"` // writes that failed
	Damaged  uint64 `json:"damaged"`  // values found damaged, outdated or of another dimension
	Restarts uint64 `json:"restarts"` // times that the file was full, deleted or replaced, and started anew
}

// OpenStore opens the cache that config describes, with its file in stateDir ("": memory only).
// It reads the whole file, so it takes about as long as the disk needs for that. Whatever is
// wrong with the file is logged and told by Stats; the only errors are those of config.
func OpenStore(config Config, stateDir string, log *slog.Logger) (*Store, error) {
	s := &Store{config: config, log: log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if !config.CacheEnabled {
		return s, nil
	}
	var err error
	if s.memory, err = newMemory(config.CacheMaxEntries, config.CacheListBytes); err != nil {
		return nil, err
	}
	if path := config.Path(stateDir); path != "" {
		s.disk = openDisk(path, config.CacheFileMaxBytes, s.memory.entries, log)
	}
	return s, nil
}

// Path is where the file lies, "" when there is none.
func (c Config) Path(stateDir string) string {
	switch {
	case !c.CacheEnabled || c.CacheFile == "":
		return ""
	case filepath.IsAbs(c.CacheFile):
		return c.CacheFile
	case stateDir == "":
		return ""
	}
	return filepath.Join(stateDir, c.CacheFile)
}

// Stats does not block on the disk or an encoder.
func (s *Store) Stats() Stats {
	c := &s.counts
	stats := Stats{
		Enabled: s.memory != nil, Disk: s.disk.stats(),
		Requests: c.requests.Load(), ListHits: c.listHits.Load(), MemoryHits: c.memoryHits.Load(),
		DiskHits: c.diskHits.Load(), Shared: c.shared.Load(), Encoded: c.encoded.Load(),
		Failed: c.failed.Load(), Busy: c.busy.Load(),
	}
	stats.Vectors, stats.ListBytes = s.memory.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.encoders {
		stats.Pending += t.pending()
	}
	return stats
}

// Clear forgets all vectors, in memory and on disk. Prompts that are being encoded meanwhile
// may be remembered. Errors: those of the file; memory is cleared in any case.
func (s *Store) Clear() error {
	if s.isClosed() {
		return ErrClosed
	}
	err := s.disk.clear() // first, so that nothing comes back from it
	s.memory.clear()
	return err
}

// Close answers everyone who waits with ErrClosed, cancels what is being encoded, writes what
// is queued for the disk, and returns when the encode funcs have returned. Later calls of Get
// fail. Closing twice is fine.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	encoders := s.encoders
	s.mu.Unlock()
	s.cancel()
	for _, t := range encoders {
		t.stop()
	}
	s.disk.close() // before waiting for an encoder that may hang
	for _, t := range encoders {
		t.running.Wait()
	}
	s.memory.close()
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Encoder is a text encoder and how to use it.
type Encoder struct {
	Namespace string     // names the encoder, such as its digest: vectors of different ones never mix; 1..1024 bytes
	Dim       int        // dimension of its embeddings, 1..65536
	Batch     int        // texts that one call of Encode gets at most, at least 1
	Calls     int        // calls of Encode at once, at least 1
	Encode    EncodeFunc // what encodes
}

func (e Encoder) validate() error {
	switch {
	case e.Namespace == "" || len(e.Namespace) > 1024:
		return errors.New("a text encoder needs a namespace of 1 to 1024 bytes")
	case e.Dim < 1 || e.Dim > 65536:
		return errors.New("a text encoder needs a dimension from 1 to 65536")
	case e.Batch < 1 || e.Calls < 1 || e.Encode == nil:
		return errors.New("a text encoder needs an encode func, a batch size and a number of calls")
	}
	return nil
}

// Embeddings returns the embeddings of one text encoder, which live until the store closes.
// Errors: an Encoder out of bounds, ErrClosed.
func (s *Store) Embeddings(e Encoder) (*TextEmbeddings, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	t := &TextEmbeddings{store: s, encoder: e, flights: make(map[string]*flight)}
	t.work.L = &t.mu
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.encoders = append(s.encoders, t)
	for range e.Calls {
		t.running.Go(t.run)
	}
	return t, nil
}
