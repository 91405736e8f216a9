package api

import (
	"errors"
	"io"
)

// lent is memory for a frame of a stream, of a pool. It is counted as that of a body is, and goes back when release is called,
// which may be when the request that it came with is long gone.
type lent struct {
	server  *Server
	address string // who has it
	b       []byte
	release func() // bound once
}

// lend returns memory for a frame of about size bytes; 0: not known.
func (s *Server) lend(address string, size int) *lent {
	l := s.lents.Get().(*lent)
	l.address = address
	if size > 0 && s.bodies.plenty() {
		l.b, _ = s.bodies.get(address, min(size+size/8, largestPooled), 0) // else it grows
	}
	return l
}

func (l *lent) giveBack() {
	l.server.bodies.put(l.address, l.b)
	l.b, l.address = nil, ""
	l.server.lents.Put(l)
}

// receive reads all that from has, at most limit bytes. Where there is no memory for it the rest goes by, and noRoom says so. Other
// errors are tooLarge and those of from.
func (l *lent) receive(from io.Reader, limit int) (noRoom, err error) {
	switch l.b, err = l.server.bodies.readAll(l.address, l.b, from, limit); {
	case errors.Is(err, errTooLong):
		return nil, tooLarge(limit)
	case errors.Is(err, errBodyMemory):
		noRoom = err
		_, err = io.Copy(io.Discard, from)
	}
	return noRoom, err
}

// grow returns a larger buffer that begins with the bytes of b, which is given back.
func (l *lent) grow(b []byte, more int) ([]byte, error) {
	return l.server.bodies.enlarge(l.address, b, len(b)+more)
}
