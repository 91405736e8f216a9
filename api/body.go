package api

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// pooledSizes are the buffers that are kept for the next body. Larger ones are left to the
// garbage collector: bodies above 1 MiB are rare, and a pool would keep what a burst of them took.
var pooledSizes = [...]int{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20}

const largestPooled = 1 << 20

// bodyMemory hands out the buffers that bodies are read into, and bounds what is out at any
// time. Safe for concurrent use.
//
// Nothing of a former request shows through: a buffer is handed out empty, read extends it by
// exactly the bytes that have arrived, and everybody after that gets slices of those (the image
// with no capacity beyond them). Nothing that outlives the request points into it: prompts, texts,
// ids, paths and errors are copies. It is put back by work.release, when the handler and the
// line are both done; tests overwrite it then (see poison) to find those that are not.
type bodyMemory struct {
	free  atomic.Int64                // bytes that may still be handed out
	pools [len(pooledSizes)]sync.Pool // of *byte, the first one of a buffer of that size
}

// get returns an empty buffer with room for size bytes or some more, or errBodyMemory. It does
// not block. What was in the buffer before is still there.
func (m *bodyMemory) get(size int) ([]byte, error) {
	class := slices.IndexFunc(pooledSizes[:], func(s int) bool { return size <= s })
	if class >= 0 {
		size = pooledSizes[class]
	}
	for {
		free := m.free.Load()
		if free < int64(size) {
			return nil, errBodyMemory
		}
		if m.free.CompareAndSwap(free, free-int64(size)) {
			break
		}
	}
	if class >= 0 {
		if first, ok := m.pools[class].Get().(*byte); ok {
			return unsafe.Slice(first, size)[:0], nil
		}
	}
	return make([]byte, 0, size), nil
}

// poison, if set, overwrites memory that is given back. Tests set it.
var poison func(b []byte)

// put takes back a buffer that get has returned; it may be nil.
func (m *bodyMemory) put(b []byte) {
	if poison != nil {
		poison(b[:cap(b)])
	}
	if class := slices.Index(pooledSizes[:], cap(b)); class >= 0 {
		m.pools[class].Put(unsafe.SliceData(b))
	}
	m.free.Add(int64(cap(b)))
}

// read returns the body of the request in a buffer that the caller must put back, even after an
// error. The buffer grows with what has arrived, not with what was promised, so that requests
// whose bodies never come cost next to nothing. More than limit bytes are an errBodyTooLarge.
// It blocks until the body is there or the connection's read deadline has passed.
func (m *bodyMemory) read(ctx *fasthttp.RequestCtx, limit int) (b []byte, err error) {
	length, most := ctx.Request.Header.ContentLength(), limit+1
	if length >= 0 {
		most = min(length, most)
	}
	stream := ctx.RequestBodyStream()
	if stream == nil {
		return nil, nil // the request has no body
	}
	for {
		if len(b) == cap(b) {
			if b, err = m.grow(b, most); err != nil {
				return b, err
			}
		}
		n, err := stream.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > limit:
			return b, tooLarge(limit)
		case err == io.EOF && len(b) < length:
			return b, readError(io.ErrUnexpectedEOF)
		case err == io.EOF:
			return b, nil
		case err != nil && tooSlow(ctx) && crowdedOut(ctx):
			return b, fmt.Errorf("%w: %w", errTooManyConns, err)
		case err != nil && tooSlow(ctx):
			return b, fmt.Errorf("%w: %w", errReadTimeout, err)
		case err != nil:
			return b, readError(err)
		}
	}
}

// grow changes b for a larger buffer with the same bytes. For a moment both are taken. A body
// of at most `most` bytes needs no more than that, or than the next of pooledSizes.
func (m *bodyMemory) grow(b []byte, most int) ([]byte, error) {
	size := max(4*len(b), pooledSizes[0])
	if size > largestPooled {
		size = max(2*len(b), largestPooled)
	}
	if size >= most-1 { // not one more step for the last byte
		size = max(most, len(b)+1)
	}
	larger, err := m.get(size)
	if err != nil {
		return b, err
	}
	larger = append(larger, b...)
	m.put(b)
	return larger, nil
}

func tooLarge(limit int) error {
	return fail(errBodyTooLarge, "The body is larger than %d bytes", limit)
}
