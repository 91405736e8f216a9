package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// Errors of this package, wrapped with what happened.
var (
	// ErrBusy says that too many prompts wait for the encoder already: try again later.
	ErrBusy = errors.New("too many prompts wait to be encoded")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("the embedding cache is closed")
	// ErrEncode says that the encode func broke its contract or panicked. Errors that it
	// returns are passed on as they are.
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

// EncodeFunc encodes texts: one vector for each, in order, of unit length. It may be called from
// several goroutines at once, keeps neither texts nor its result, and returns soon after ctx
// ends, which is when nobody waits for any of the texts any more or the store closes. An error
// fails all of texts, which may belong to different requests, so it should be about the encoder
// and not about one text.
type EncodeFunc func(ctx context.Context, texts []string) ([]Vector, error)

// entry is one remembered vector and what it is the vector of. Immutable.
type entry struct {
	namespace string
	prompt    string
	vector    Vector
}

func newPrompts(namespace string, dim int, rows []*entry) *Prompts {
	p := &Prompts{Dim: dim, namespace: namespace, Rows: make([]Vector, len(rows)), texts: make([]string, len(rows))}
	if len(rows) == 1 {
		p.Matrix = rows[0].vector.Embedding // a matrix of one row: no copy
	} else {
		p.Matrix = make([]float32, 0, len(rows)*dim)
		for _, row := range rows {
			p.Matrix = append(p.Matrix, row.vector.Embedding...)
		}
	}
	for i, row := range rows {
		p.Rows[i] = row.vector
		p.Rows[i].Embedding = p.Matrix[i*dim : (i+1)*dim : (i+1)*dim]
		p.texts[i] = row.prompt
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

// unitTolerance is how far the squared length of an embedding may be from 1: wide enough for
// float16 and quantised encoders that normalise at the end, and nothing that is not a number passes.
const unitTolerance = 1e-2

// check says what is wrong with an embedding that an encode func returned.
func (v Vector) check(dim int) error {
	if len(v.Embedding) != dim {
		return fmt.Errorf("%w: an embedding has dimension %d, not %d", ErrEncode, len(v.Embedding), dim)
	}
	var sum float64
	for _, x := range v.Embedding {
		sum += float64(x) * float64(x)
	}
	if !(math.Abs(sum-1) <= unitTolerance) {
		return fmt.Errorf("%w: an embedding has length %v, not 1", ErrEncode, math.Sqrt(sum))
	}
	if v.Tokens < 0 || v.Tokens > math.MaxInt32 {
		return fmt.Errorf("%w: an embedding says %d tokens", ErrEncode, v.Tokens)
	}
	return nil
}
