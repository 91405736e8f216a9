package hailo

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Errors of a Backend, wrapped with what happened.
var (
	// ErrDeviceLost says that the encoder went away while it worked, or is being brought back.
	ErrDeviceLost = errors.New("device lost")
	// ErrEncode says that the encoder refused or failed on this input.
	ErrEncode = errors.New("encoding failed")
	// ErrClosed says that the backend was closed.
	ErrClosed = errors.New("backend closed")
)

// Backend turns pixels and tokens into CLIP embeddings. All methods are safe for concurrent use.
type Backend interface {
	// Info returns fixed facts about the backend.
	Info() Info

	// Frames returns the pool of images that EncodeImages takes. The backend owns it,
	// because it knows where the pixels must live.
	Frames() *Frames

	// EncodeImages fills Embedding of every frame from its Pixels, at most Info().ImageBatch
	// frames in one call. It blocks until all are done or ctx ends, and returns only when
	// nothing will write to the frames any more, so they may be released afterwards. On an
	// error no embedding of the call may be used. Errors: ErrDeviceLost, ErrEncode, ErrClosed,
	// or the cause of ctx.
	EncodeImages(ctx context.Context, frames []*Frame) error

	// EncodeTexts returns one embedding of unit length for each token list; any number of
	// texts. A token list holds the start token, the text and the end token, at most the
	// model's context length, unpadded. The same errors as EncodeImages.
	EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error)

	// Status says whether the backend can encode now. It does not block on the device.
	Status() Status

	// Close releases the device. It waits for calls in flight; later calls fail with ErrClosed.
	Close() error
}

// Info is what is fixed about a Backend from its start.
type Info struct {
	Backend    string // "npu", "cpu" or "sim"
	Simulated  bool   // vectors come from a simulated chip
	Device     string // for people: "ONNX Runtime 1.24.3, 2 threads"
	ImageBatch int    // frames that one EncodeImages call takes at most
	ImageCalls int    // full EncodeImages calls that keep the device busy: run this many at once
	Gathers    bool   // the device makes runs of at most ImageBatch frames of what all calls have given it; else a call is a run
	TextBatch  int    // texts that the device takes at once; EncodeTexts splits by itself
	TextDigest string // names the text encoder (hex SHA-256 over its files): vectors of different digests must not mix

	// ImageDigest names the image encoder likewise; "" for one of texts alone. That of the device holds for the CPU too while
	// it stands in: vectors that it makes then are kept under that name, as they are compared with the same prompts.
	ImageDigest string
}

// Status is the state of a Backend at one moment.
type Status struct {
	Ready    bool // can encode now
	Degraded bool // can encode, but slower or elsewhere than it should
	Restarts int  // devices lost so far: with another number it is another one, of which nothing is known

	// Why says why not ready or degraded, in a sentence for a person; nil when all is well. The words are built when it is
	// called: the state is asked for before every request, and the reason hardly ever.
	Why func() string
}

// Reason is what Why says, "" when all is well.
func (s Status) Reason() string {
	if s.Why == nil {
		return ""
	}
	return s.Why()
}

// Because is a Why that is known beforehand.
func Because(reason string) func() string { return func() string { return reason } }

// Counts are what a backend that counts has encoded since its start, probes included.
type Counts struct {
	Images, Texts uint64
	Failed        uint64   // images and texts whose run failed; not those that were given up
	Batches       []uint64 // Batches[n]: runs of n images; the last one counts larger ones, too
}

// Calls lets the Close of a Backend wait for the calls inside. The zero value is ready for use.
type Calls struct {
	inside sync.RWMutex // held for reading by each
	closed atomic.Bool
}

// Enter begins a call, which Leave ends, or returns ErrClosed.
func (c *Calls) Enter() error {
	if c.closed.Load() { // before waiting for a Close that waits for others
		return ErrClosed
	}
	c.inside.RLock()
	if c.closed.Load() {
		c.inside.RUnlock()
		return ErrClosed
	}
	return nil
}

// Leave ends a call that Enter began.
func (c *Calls) Leave() { c.inside.RUnlock() }

// Close lets no more calls in and blocks until those inside have left.
func (c *Calls) Close() {
	c.closed.Store(true)
	c.inside.Lock()
	c.inside.Unlock() //nolint:staticcheck // an empty critical section: it waits
}

// Closed reports whether Close was called.
func (c *Calls) Closed() bool { return c.closed.Load() }
