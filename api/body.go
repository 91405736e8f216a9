package api

import (
	"errors"
	"io"
	"slices"
	"sync"
	"unsafe"

	"hailoclip/api/stream"
)

// pooledSizes are the buffers that are kept for the next body. Larger ones are left to the
// garbage collector: bodies above 1 MiB are rare, and a pool would keep what a burst of them took.
var pooledSizes = [...]int{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20}

const largestPooled = 1 << 20

// Memory hands out the buffers that bodies are read into, and bounds what is out at any
// time. Safe for concurrent use.
//
// Nothing of a former request shows through: a buffer is handed out empty, read extends it by
// exactly the bytes that have arrived, and everybody after that gets slices of those (the image
// with no capacity beyond them). Nothing that outlives the request points into it: prompts, texts,
// ids, paths and errors are copies. It is put back by request.unhold, when the handler and the
// engine are both done; tests overwrite it then (see poison) to find those that are not.
//
// An address may hold three times what is left then for others: so one has three quarters of all at most, and who comes
// next finds a quarter. It may always have its first and smallest buffer, and a body that is alone may have everything.
type Memory struct {
	pools [len(pooledSizes)]sync.Pool // of *byte, the first one of a buffer of that size

	all int64 // bytes that may be handed out

	mu   sync.Mutex
	free int64            // of them still
	held map[string]int64 // bytes that each address has
}

// NewMemory makes the memory for all bodies of a server, and for the frames of its streams.
func (c Config) NewMemory() *Memory {
	return &Memory{all: int64(c.MaxBodyMemoryBytes), free: int64(c.MaxBodyMemoryBytes)}
}

// Buffers lends it to streams.
func (m *Memory) Buffers() stream.Buffers {
	return stream.Buffers{
		Get: func(address string, size int) ([]byte, error) { return m.get(address, size, 0) },
		Put: m.put,
	}
}

// take counts size bytes as held by address, and says whether there are so many for it. old of those that it has will
// be given back then.
func (m *Memory) take(address string, size, old int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	left, others := m.free-size, m.held[address]-old
	alone := others == 0 && (len(m.held) == 0 || len(m.held) == 1 && old > 0)
	if left < 0 || old+others > 0 && !alone && others+size > 3*left {
		return false
	}
	if m.held == nil {
		m.held = make(map[string]int64)
	}
	m.held[address] += size
	m.free = left
	return true
}

// get returns an empty buffer with room for size bytes or some more, or errBodyMemory. It does
// not block. What was in the buffer before is still there. old bytes will be put back for it.
func (m *Memory) get(address string, size, old int) ([]byte, error) {
	class := slices.IndexFunc(pooledSizes[:], func(s int) bool { return size <= s })
	if class >= 0 {
		size = pooledSizes[class]
	}
	if !m.take(address, int64(size), int64(old)) {
		return nil, errBodyMemory
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

// put takes back a buffer that get has returned to address; it may be nil.
func (m *Memory) put(address string, b []byte) {
	if b == nil {
		return
	}
	if poison != nil {
		poison(b[:cap(b)])
	}
	if class := slices.Index(pooledSizes[:], cap(b)); class >= 0 {
		m.pools[class].Put(unsafe.SliceData(b))
	}
	m.give(address, int64(cap(b)))
}

// give takes back size bytes that take has counted for address.
func (m *Memory) give(address string, size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += size
	if m.held[address] -= size; m.held[address] == 0 {
		delete(m.held, address)
	}
}

// receive reads the body of the request into a buffer of its own. While there is plenty of memory that is as large as was
// promised, up to largestPooled, so that nothing is copied; else it grows with what has arrived, so that requests
// whose bodies never come cost next to nothing. More than limit bytes are an errBodyTooLarge. It blocks until the body is
// there or the connection's read deadline has passed.
func (r *request) receive(limit int) (err error) {
	stream := r.ctx.RequestBodyStream()
	if stream == nil { // the request has no body
		r.state = received
		return nil
	}
	length, most := r.ctx.Request.Header.ContentLength(), limit+1
	if length >= 0 {
		most = min(length, most)
		if r.server.bodies.plenty() {
			if r.body, err = r.server.bodies.get(r.caller.Address, min(most, largestPooled), 0); err != nil {
				return err
			}
		}
	}
	for {
		if len(r.body) == cap(r.body) {
			if r.body, err = r.server.bodies.grow(r.caller.Address, r.body, most); err != nil {
				return err
			}
		}
		n, err := stream.Read(r.body[len(r.body):cap(r.body)])
		r.body = r.body[:len(r.body)+n]
		r.size = len(r.body)
		switch {
		case len(r.body) > limit:
			return tooLarge(limit)
		case err == io.EOF && len(r.body) < length:
			return r.conn.readError(io.ErrUnexpectedEOF)
		case err == io.EOF:
			r.state = received
			return nil
		case err != nil:
			return r.conn.readError(err)
		}
	}
}

// plenty says that more than three quarters are free.
func (m *Memory) plenty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free > m.all/4*3
}

// grow changes b for a larger buffer with the same bytes. For a moment both are taken. A body
// of at most `most` bytes needs no more than that, or than the next of pooledSizes.
func (m *Memory) grow(address string, b []byte, most int) ([]byte, error) {
	size := max(4*len(b), pooledSizes[0])
	if size > largestPooled {
		size = max(2*len(b), largestPooled)
	}
	if size >= most-1 { // not one more step for the last byte
		size = max(most, len(b)+1)
	}
	return m.enlarge(address, b, size)
}

// enlarge changes b for a buffer with the same bytes and room for size; with an error b stays as it is.
func (m *Memory) enlarge(address string, b []byte, size int) ([]byte, error) {
	larger, err := m.get(address, size, cap(b))
	if err != nil {
		return b, err
	}
	larger = append(larger, b...)
	m.put(address, b)
	return larger, nil
}

var errTooLong = errors.New("there is more than the limit")

// readAll appends all that from has to b, which it changes for larger buffers. The errors, with which b stays the caller's, too, are
// those of from, an errBodyMemory, and an errTooLong for more than limit bytes in all.
func (m *Memory) readAll(address string, b []byte, from io.Reader, limit int) (_ []byte, err error) {
	for err == nil {
		if len(b) == cap(b) {
			if b, err = m.grow(address, b, limit+1); err != nil {
				return b, err
			}
		}
		var n int
		n, err = from.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; len(b) > limit {
			return b, errTooLong
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

func tooLarge(limit int) error {
	return fail(errBodyTooLarge, "The body is larger than %d bytes", limit)
}
