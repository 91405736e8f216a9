package cache

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Store is the memory and the file that the embeddings of all text encoders share. Safe for concurrent use.
type Store struct {
	config  Config
	log     *slog.Logger
	singles *memory // embeddings of single prompts, bounded by their number
	lists   *memory // of whole lists, bounded by their bytes
	disk    *disk   // nil when there is none
	counts  struct {
		requests, listHits, memoryHits, diskHits, shared, encoded, failed, busy atomic.Uint64
	}

	ctx     context.Context // ends when the store closes
	cancel  context.CancelFunc
	closing sync.Once

	mu       sync.Mutex
	encoders []*TextEmbeddings // added until ctx ends
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

// OpenStore opens the cache that config describes, with its file in stateDir ("": memory only). It reads the whole file,
// so it takes about as long as the disk needs for that. Whatever is wrong with the file is logged and told by Stats; the
// only errors are those of config.
func OpenStore(config Config, stateDir string, log *slog.Logger) (*Store, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	s := &Store{config: config, log: log, singles: &memory{}, lists: &memory{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if config.CacheEnabled {
		s.singles = newMemory(config.CacheMaxEntries, 1, func(*Prompts) int64 { return 1 })
		s.lists = newMemory(int(config.CacheListBytes), 10<<10, (*Prompts).bytes)
	}
	if path := config.Path(stateDir); path != "" {
		s.disk = openDisk(path, config.CacheFileMaxBytes, s.singles, log)
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
		Enabled: s.config.CacheEnabled, Vectors: s.singles.used(), ListBytes: s.lists.used(), Disk: s.disk.stats(),
		Requests: c.requests.Load(), ListHits: c.listHits.Load(), MemoryHits: c.memoryHits.Load(),
		DiskHits: c.diskHits.Load(), Shared: c.shared.Load(), Encoded: c.encoded.Load(),
		Failed: c.failed.Load(), Busy: c.busy.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.encoders {
		t.mu.Lock()
		stats.Pending += t.waiting
		t.mu.Unlock()
	}
	return stats
}

// Embeddings returns the embeddings of one text encoder, which live until the store closes. Errors: an Encoder out of
// bounds, ErrClosed.
func (s *Store) Embeddings(e Encoder) (*TextEmbeddings, error) {
	if n := len(e.Namespace); n < 1 || n > 1024 || e.Dim < 1 || e.Dim > 65536 || e.Batch < 1 || e.Calls < 1 || e.Encode == nil {
		return nil, errors.New("a text encoder needs a namespace of 1 to 1024 bytes, a dimension from 1 to 65536, " +
			"a batch size, a number of calls and an encode func")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	t := &TextEmbeddings{store: s, encoder: e, pending: make(map[string]*pendingPrompt)}
	s.encoders = append(s.encoders, t)
	return t, nil
}

// Close answers everyone who waits with ErrClosed, cancels what is being encoded, writes what is queued for the disk, and
// returns nil when the encode funcs have returned. Later calls of Get fail. Closing twice is fine.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.mu.Lock()
		s.cancel()
		s.mu.Unlock()
		for _, t := range s.encoders { // none is added any more
			t.mu.Lock()
			t.closed = true
			t.mu.Unlock()
		}
		s.disk.close() // before waiting for an encoder that may hang
		for _, t := range s.encoders {
			t.running.Wait()
		}
		s.singles.close()
		s.lists.close()
	})
	return nil
}
