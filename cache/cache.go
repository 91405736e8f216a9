// Package cache remembers the embedding of every prompt: in memory (ristretto), then on disk (bbolt), then from an
// encode func. It is only a cache: whatever happens to its file, prompts are encoded and answered.
//
// Callers: the prompts that wait for the encoder have a place in the lane of everyone who waits for them, and a batch is
// taken from the lanes in turn, so that one prompt does not wait behind another caller's thousand. A request whose
// context ends takes its places along, and prompts that nobody waits for are given up. The prompts of a file
// ([TextEmbeddings.Precompute]) are one more caller, with one batch at a time, who makes nobody go.
//
// No wrong vector: every hit in memory is compared with namespace, dimension and texts, because keys there are hashes. In
// the file the key is the SHA-256 of namespace and prompt, the dimension is compared, and a value's checksum covers its
// key. Result i of an encode func goes to prompt i, and another number of results is an error. Texts and vectors are
// copied when they come in and never written to afterwards; nothing is pooled. Errors are not kept.
//
// The file: one goroutine writes what has gathered, every 250 ms, in synced transactions. A killed process loses at most
// that and the file stays whole. A file that has reached its limit, or was deleted, is started anew with the vectors
// that memory holds. A damaged file is renamed to NAME.corrupt-TIME and an empty one is used; a file that another process
// holds, or that cannot be opened or written, leaves the cache in memory only. Each is logged once, as a warning, and
// shown in [Stats]. The file is mapped and may be truncated from outside at any time: what touches the mapping runs
// under guard, which turns faults into errors.
package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
	ErrLocked = errors.New("the cache file is locked by a running service")
	// ErrDamaged says that a file is no cache file, or no whole one.
	ErrDamaged = errors.New("the cache file is damaged")
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
}

// single is a list of one prompt. It takes v over.
func single(namespace, text string, v Vector) *Prompts {
	v.Embedding = slices.Clip(v.Embedding)
	return &Prompts{Dim: len(v.Embedding), Matrix: v.Embedding, Rows: []Vector{v}, namespace: namespace, texts: []string{text}}
}

// concat makes one list of single ones.
func concat(namespace string, dim int, singles []*Prompts) *Prompts {
	if len(singles) == 1 {
		return singles[0]
	}
	n := len(singles)
	p := &Prompts{dim, make([]float32, 0, n*dim), make([]Vector, n), namespace, make([]string, n)}
	for i, s := range singles {
		p.Matrix = append(p.Matrix, s.Matrix...)
		p.Rows[i], p.texts[i] = s.Rows[0], s.texts[0]
		p.Rows[i].Embedding = p.Matrix[i*dim : (i+1)*dim : (i+1)*dim]
	}
	return p
}

// bytes is the memory that p takes, texts included.
func (p *Prompts) bytes() int64 {
	n := int64(200 + 4*len(p.Matrix) + (40+16)*len(p.Rows))
	for _, text := range p.texts {
		n += int64(len(text))
	}
	return n
}

// EncodeFunc encodes texts: one vector for each, in order, of unit length. It may be called from several goroutines at
// once, keeps neither texts nor its result, and returns soon after ctx ends, which is when nobody waits for any of the
// texts any more or the store closes. An error fails all of texts, which may belong to different requests; see
// Encoder.RetryAlone.
type EncodeFunc func(ctx context.Context, texts []string) ([]Vector, error)

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
