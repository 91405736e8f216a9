// Package cache remembers the embedding of every prompt: in memory (ristretto), then on disk (bbolt), then from an
// encode func. It is only a cache: whatever happens to its file, prompts are encoded and answered.
//
// No wrong vector: every hit in memory is compared with namespace, dimension and texts, because keys there are hashes. In
// the file the key is the SHA-256 of namespace and prompt, the dimension is compared, and a value's checksum covers its
// key. Texts and vectors are copied when they come in and never written to afterwards; nothing is pooled. Errors are not
// kept.
//
// The file: one goroutine writes what has gathered, every 250 ms, in synced transactions. A killed process loses at most
// that and the file stays whole. Look-ups, one at a time, do not wait for a write, and no longer than 2 s for the disk. A
// file that has reached its limit, or was deleted, is started anew with the vectors that memory holds. A file that is
// damaged or not one of ours is renamed to NAME.corrupt-TIME, unchanged, and an empty one is used; a file that another
// process holds, or that cannot be opened or written, leaves the cache in memory only. Each is logged once, as a
// warning, and shown in [Stats]. The file is mapped and may be truncated from outside at any time: what touches the
// mapping runs under guard, which turns faults into errors.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"hailoclip/cache/boltfile"
)

// Errors of this package, wrapped with what happened.
var (
	// ErrBusy says that too many prompts wait for the encoder already: try again later.
	ErrBusy = errors.New("too many prompts wait to be encoded")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("the embedding cache is closed")
	// ErrEncode says that the encode func broke its contract or panicked. Errors that it returns are passed on as they are.
	ErrEncode = errors.New("the prompts could not be encoded")
	// ErrLocked says that another process, most likely a running service, holds the cache file.
	ErrLocked = boltfile.ErrLocked
	// ErrDamaged says that a file is no cache file, or no whole one.
	ErrDamaged = boltfile.ErrDamaged
)

// Vector is the embedding of one prompt. Shared and immutable.
type Vector struct {
	Embedding []float32 // unit length
	Tokens    int       // tokens of the prompt, as the encode func counts them
	Truncated bool      // the prompt was longer than the encoder takes
}

// Prompts is the embeddings of a list of prompts, as a scorer takes them. Shared and immutable.
type Prompts struct {
	Dim    int
	Matrix []float32 // len(Rows) x Dim, row-major
	Rows   []Vector  // one per prompt, in the order asked; Embedding is the row of Matrix

	namespace string
	texts     []string // what the rows are the embeddings of
	size      int64    // 1 for a single prompt, about the bytes in memory for a list
}

// single is a list of one prompt. It takes v over.
func single(namespace, text string, v Vector) *Prompts {
	v.Embedding = slices.Clip(v.Embedding)
	p := &struct { // one piece of memory, for faster look-ups
		list Prompts
		row  [1]Vector
		text [1]string
	}{row: [1]Vector{v}, text: [1]string{text}}
	p.list = Prompts{len(v.Embedding), v.Embedding, p.row[:], namespace, p.text[:], 1}
	return &p.list
}

// concat makes one list of single ones.
func concat(namespace string, dim int, singles []*Prompts) *Prompts {
	if len(singles) == 1 {
		return singles[0]
	}
	n := len(singles)
	p := &Prompts{dim, make([]float32, 0, n*dim), make([]Vector, n), namespace, make([]string, n), 200}
	for i, s := range singles {
		p.Matrix = append(p.Matrix, s.Matrix...)
		p.Rows[i], p.texts[i] = s.Rows[0], s.texts[0]
		p.size += int64(4*dim + 40 + 16 + len(p.texts[i]))
		p.Rows[i].Embedding = p.Matrix[i*dim : (i+1)*dim : (i+1)*dim]
	}
	return p
}

// EncodeFunc encodes texts: one vector for each, in order, of unit length. It may be called from several goroutines at
// once, keeps neither texts nor its result, and returns soon after ctx ends, which is when nobody waits for any of the
// texts any more or the store closes. An error fails all of texts, which may belong to different requests; see
// Encoder.RetryAlone.
type EncodeFunc func(ctx context.Context, texts []string) ([]Vector, error)

const maxNamespace = 1024

// Encoder is a text encoder and how to use it.
type Encoder struct {
	Namespace string     // names the encoder, such as its digest: vectors of different ones never mix; 1..1024 bytes
	Dim       int        // dimension of its embeddings, 1..65536
	Batch     int        // texts that one call of Encode gets at most, at least 1
	Calls     int        // calls of Encode at once, at least 1
	Encode    EncodeFunc // what encodes

	// RetryAlone says of the error of a batch whether one of its texts may be the cause, so that each is encoded alone:
	// not so when the device is lost. nil says yes to every error.
	RetryAlone func(error) bool
}

// check says what is wrong with an embedding that an encode func returned. The tolerance is wide enough for float16 and
// quantised encoders that normalise at the end.
func (v Vector) check(dim int) error {
	var square float64
	for _, x := range v.Embedding {
		square += float64(x) * float64(x)
	}
	// Written so that nothing passes that is not a number.
	if len(v.Embedding) == dim && math.Abs(square-1) <= 1e-2 && v.Tokens >= 0 && v.Tokens <= math.MaxInt32 {
		return nil
	}
	return fmt.Errorf("%w: an embedding of dimension %d, length %v and %d tokens; want dimension %d and length 1",
		ErrEncode, len(v.Embedding), math.Sqrt(square), v.Tokens, dim)
}

// Store is the memory and the file that the embeddings of all text encoders share. Safe for concurrent use.
type Store struct {
	config  Config
	log     *slog.Logger
	singles *memory // embeddings of single prompts, bounded by their number
	lists   *memory // of whole lists, bounded by their bytes
	disk    *disk
	counts  counts

	ctx     context.Context // ends when the store closes; no goroutine is started then any more
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines that encode

	dim atomic.Int64 // of the vectors

	mu sync.Mutex // guards cancel, and the prompts of all encoders that wait
}

// counts are behind Stats.
type counts struct {
	requests, listHits, memoryHits, diskHits, shared, encoded, failed, busy atomic.Uint64

	waiting, patient atomic.Int64 // prompts that no batch has taken, and those of them that are patient; changed under Store.mu
}

// wait adds n to the prompts that wait, one of which is p.
func (c *counts) wait(p *pendingPrompt, n int64) {
	c.waiting.Add(n)
	if p.patient {
		c.patient.Add(n)
	}
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

	VectorsLimit int64 `json:"vectors_limit"`    // of Vectors
	VectorBytes  int64 `json:"vector_bytes"`     // of their numbers, without the texts
	ListLimit    int64 `json:"list_bytes_limit"` // of ListBytes
	PendingLimit int   `json:"pending_limit"`    // of Pending, without the prompts of batches

	Requests   uint64 `json:"requests"`    // calls of Get
	ListHits   uint64 `json:"list_hits"`   // of these, lists that were in memory whole
	MemoryHits uint64 `json:"memory_hits"` // prompts of other calls found in memory
	DiskHits   uint64 `json:"disk_hits"`   // prompts found on disk
	Shared     uint64 `json:"shared"`      // prompts that somebody else was waiting for already
	Encoded    uint64 `json:"encoded"`     // prompts encoded
	Failed     uint64 `json:"failed"`      // prompts that could not be encoded, cancelled ones included
	Busy       uint64 `json:"busy"`        // calls refused with ErrBusy
	Evicted    uint64 `json:"evicted"`     // vectors that left the memory for others
	ListsGone  uint64 `json:"lists_evicted"`

	Disk DiskStats `json:"disk"`
}

// DiskStats is the state of the file.
type DiskStats struct {
	Path     string `json:"path,omitempty"`
	State    string `json:"state"`            // DiskOK, DiskPaused or DiskOff
	Reason   string `json:"reason,omitempty"` // why it is not ok, or what happened to the file at start
	Bytes    int64  `json:"bytes"`
	Limit    int64  `json:"limit_bytes"` // at which it is started anew
	Vectors  int64  `json:"vectors"`
	Queued   int    `json:"queued"`   // vectors waiting to be written
	Written  uint64 `json:"written"`  // vectors written
	Dropped  uint64 `json:"dropped"`  // vectors not written: queue full, write failed, disk off
	Failures uint64 `json:"failures"` // writes that failed
	Damaged  uint64 `json:"damaged"`  // values found damaged, outdated or of another dimension
	Restarts uint64 `json:"restarts"` // times that the file was full, deleted or replaced, and started anew
}

// OpenStore opens the cache that config describes, with its file in stateDir ("": memory only). It reads the whole file,
// so it takes about as long as the disk needs for that. Whatever is wrong with the file is logged and told by Stats.
func OpenStore(config Config, stateDir string, log *slog.Logger) *Store {
	s := &Store{
		config: config, log: log,
		singles: newMemory(config.CacheEnabled, int64(config.CacheMaxEntries), 1),
		lists:   newMemory(config.CacheEnabled, config.CacheListBytes, 10<<10),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.disk = openDisk(config.Path(stateDir), config.CacheFileMaxBytes, s.singles, log)
	return s
}

// Path is where the file lies, "" when there is none.
func (c Config) Path(stateDir string) string {
	if filepath.IsAbs(c.CacheFile) {
		stateDir = "/"
	}
	if !c.CacheEnabled || c.CacheFile == "" || stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, c.CacheFile)
}

// Stats does not block on the disk or an encoder.
func (s *Store) Stats() Stats {
	c := &s.counts
	disk, vectors := s.disk.stats(), s.singles.used()
	disk.Limit = s.config.CacheFileMaxBytes
	return Stats{
		Enabled: s.config.CacheEnabled, Vectors: vectors, ListBytes: s.lists.used(), Disk: disk,
		VectorsLimit: int64(s.config.CacheMaxEntries), VectorBytes: 4 * vectors * s.dim.Load(), ListLimit: s.config.CacheListBytes,
		PendingLimit: s.config.MaxPending, Evicted: s.singles.evicted.Load(), ListsGone: s.lists.evicted.Load(),
		Requests: c.requests.Load(), ListHits: c.listHits.Load(), MemoryHits: c.memoryHits.Load(),
		DiskHits: c.diskHits.Load(), Shared: c.shared.Load(), Encoded: c.encoded.Load(),
		Failed: c.failed.Load(), Busy: c.busy.Load(), Pending: int(c.waiting.Load()),
	}
}

// Waiting is how many prompts wait for an encoder now. It does not block.
func (s *Store) Waiting() int { return int(s.counts.waiting.Load()) }

// Embeddings returns the embeddings of one text encoder, which live until the store closes. Errors: an Encoder out of
// bounds, ErrClosed.
func (s *Store) Embeddings(e Encoder) (*TextEmbeddings, error) {
	if n := len(e.Namespace); n < 1 || n > maxNamespace || e.Dim < 1 || e.Dim > 65536 || e.Batch < 1 || e.Calls < 1 || e.Encode == nil {
		return nil, errors.New("a text encoder needs a namespace of 1 to 1024 bytes, a dimension from 1 to 65536, " +
			"a batch size, a number of calls and an encode func")
	}
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	s.dim.Store(int64(e.Dim))
	return &TextEmbeddings{store: s, encoder: e, pending: make(map[string]*pendingPrompt)}, nil
}

// Close answers everyone who waits with ErrClosed, cancels what is being encoded, writes what is queued for the disk, and
// returns nil when the encode funcs have returned. Later calls of Get fail. Closing twice is fine.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.disk.close() // before waiting for an encoder that may hang
	s.running.Wait()
	s.singles.close()
	s.lists.close()
	return nil
}
