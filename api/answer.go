package api

import (
	"bytes"
	"io"
	"time"
)

// answer is the body of a large answer, which fasthttp reads as a stream. Its memory counts as memory for the bodies of the
// caller's address until it has been sent, so that nobody can make the service keep answers without end. Not for concurrent use.
type answer struct {
	bytes.Reader
	request *request // nil once it is being sent
	memory  *Memory
	address string
	b       []byte // of memory
	err     error  // errBodyMemory: it has outgrown what there is
	start   time.Time
}

// newAnswer begins an answer of about size bytes. The caller defers unlessSent. The error is errBodyMemory.
func (r *request) newAnswer(size int) (*answer, error) {
	a := &answer{request: r, memory: r.server.bodies, address: r.caller.Address, start: time.Now()}
	var err error
	a.b, err = a.memory.get(a.address, size, 0)
	return a, err
}

// largeAnswer is the size from which the answers of all routes count.
const largeAnswer = 64 << 10

// counted answers with JSON that is there already.
func (r *request) counted(body []byte) error {
	a := &answer{request: r, memory: r.server.bodies, address: r.caller.Address, start: time.Now()}
	if !a.memory.take(a.address, int64(cap(body)), 0) {
		return errBodyMemory
	}
	a.b = body
	return a.send("application/json")
}

// reserve counts size bytes as held by the caller, for what is made before there is an answer, until unreserve or the end of the
// request. The error is errBodyMemory.
func (r *request) reserve(size int) error {
	if !r.server.bodies.take(r.caller.Address, int64(size), 0) {
		return errBodyMemory
	}
	r.ahead = size
	return nil
}

func (r *request) unreserve() {
	if r.ahead == 0 {
		return
	}
	r.server.bodies.give(r.caller.Address, int64(r.ahead))
	r.ahead = 0
}

// answerBuilt has build make JSON in the buffer that the response already has. A large answer counts.
func (r *request) answerBuilt(build func(b []byte) []byte) error {
	setJSON(r.ctx, build)
	if len(r.ctx.Response.Body()) < largeAnswer {
		return nil
	}
	return r.counted(r.ctx.Response.SwapBody(nil))
}

// add has build append a part of the answer, unless that has outgrown what there is.
func (a *answer) add(build func(b []byte) []byte) {
	if a.err != nil {
		return
	}
	b := build(a.b)
	if cap(b) != cap(a.b) { // append has moved it
		if !a.memory.take(a.address, int64(cap(b)), int64(cap(a.b))) {
			a.err = errBodyMemory
			return
		}
		a.memory.put(a.address, a.b)
	}
	a.b = b
}

// fill adds all that from has. The errors are those of Memory.readAll.
func (a *answer) fill(from io.Reader, limit int) (err error) {
	a.b, err = a.memory.readAll(a.address, a.b, from, limit)
	return err
}

// list adds before, n objects with the fields that item appends, and the end of the array that before began.
func (a *answer) list(before string, n int, item func(b []byte, i int) []byte) {
	a.add(func(b []byte) []byte { return append(b, before...) })
	for i := range n {
		a.add(func(b []byte) []byte {
			if i > 0 {
				b = append(b, ',')
			}
			return append(item(append(b, '{'), i), '}')
		})
	}
	a.add(func(b []byte) []byte { return append(b, ']') })
}

// end adds fields, and what every good answer in JSON ends with, and sends the answer.
func (a *answer) end(fields func(b []byte, r *request, took time.Duration) []byte) error {
	a.add(func(b []byte) []byte {
		return appendEnd(fields(b, a.request, a.start.Sub(a.request.arrived)), a.request, a.start)
	})
	return a.send("application/json")
}

// send makes a the body of the answer, unless it has outgrown what there is.
func (a *answer) send(media string) error {
	r := a.request
	if a.err != nil {
		return a.err
	}
	a.request = nil
	a.Reset(a.b)
	r.ctx.Response.Header.SetContentType(media)
	r.ctx.Response.SetBodyStream(a, len(a.b))
	r.serverTiming(time.Since(a.start))
	return nil
}

// Close gives the memory back. It may be called again. It is called when the answer has been sent, or cannot be.
func (a *answer) Close() error {
	a.memory.put(a.address, a.b)
	a.b = nil
	return nil
}

// unlessSent closes an answer that is not being sent.
func (a *answer) unlessSent() {
	if a.request != nil {
		_ = a.Close()
	}
}
