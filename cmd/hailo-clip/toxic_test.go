package main

import (
	"net"
	"sync"
	"testing"
	"time"
)

// toxic is a TCP proxy that treats what passes it badly. The test closes it.
type toxic struct {
	ln      net.Listener
	to      string
	running sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed by each change
	delay   time.Duration
	rate    int  // bytes a second each way; 0: any
	hole    bool // nothing passes, and nobody is told
	cut     bool // connections end, and new ones at once
	conns   map[net.Conn]bool
	refused int // connections while it was cut
	held    int // pieces that did not pass at once because of a hole
}

// newToxic is a proxy for a server at host:port.
func newToxic(t testing.TB, to string) *toxic {
	t.Helper()
	return newToxicAt(t, "127.0.0.1:0", to)
}

func newToxicAt(t testing.TB, listen, to string) *toxic {
	t.Helper()
	x := &toxic{ln: must(net.Listen("tcp", listen)), to: to, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	x.running.Go(func() {
		for {
			c, err := x.ln.Accept()
			if err != nil {
				return
			}
			x.running.Go(func() { x.pass(c) })
		}
	})
	t.Cleanup(func() {
		x.ln.Close()
		x.set(func() { x.cut = true })
		x.running.Wait()
	})
	return x
}

// set changes how it treats what passes, also on connections that there are.
func (x *toxic) set(change func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	change()
	close(x.changed)
	x.changed = make(chan struct{})
	if x.cut {
		for c := range x.conns {
			c.Close()
		}
	}
}

func (x *toxic) pass(c net.Conn) {
	defer c.Close()
	server, err := net.Dial("tcp", x.to)
	if err != nil {
		return
	}
	defer server.Close()
	x.mu.Lock()
	if x.cut {
		x.refused++
		x.mu.Unlock()
		return
	}
	x.conns[c], x.conns[server] = true, true
	x.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { x.copy(server, c) })
	both.Go(func() { x.copy(c, server) })
	both.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	delete(x.conns, server)
}

// copy passes on what comes, until one end is closed.
func (x *toxic) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	type piece struct {
		due time.Time
		b   []byte
	}
	pieces, ended := make(chan piece, 1024), make(chan struct{})
	x.running.Go(func() {
		defer close(ended)
		defer to.Close()
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			if !x.open() {
				return
			}
			if _, err := to.Write(p.b); err != nil {
				return
			}
		}
	})
	defer close(pieces)
	for buf := make([]byte, 32<<10); ; {
		n, err := from.Read(buf)
		if n > 0 {
			x.mu.Lock()
			due := time.Now().Add(x.delay)
			if x.rate > 0 {
				due = due.Add(time.Duration(n) * time.Second / time.Duration(x.rate))
			}
			x.mu.Unlock()
			select {
			case pieces <- piece{due, append([]byte(nil), buf[:n]...)}:
			case <-ended: // the other end is closed
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// open waits while nothing passes, and says whether connections live.
func (x *toxic) open() bool {
	for first := true; ; first = false {
		x.mu.Lock()
		hole, cut, changed := x.hole, x.cut, x.changed
		if hole && first {
			x.held++
		}
		x.mu.Unlock()
		if !hole || cut {
			return !cut
		}
		<-changed
	}
}

// counts are refused and held so far.
func (x *toxic) counts() (refused, held int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.refused, x.held
}
