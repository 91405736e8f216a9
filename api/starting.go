package api

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

const (
	// maxEarly is how many connections are open at once before the service begins. Others wait in the kernel's queue.
	maxEarly = 256
	// earlyPause is the interval at which a full listener looks for connections that have been closed.
	earlyPause = 50 * time.Millisecond
)

// starting is a listener that answers probes itself until the service begins, see Starting.
type starting struct {
	net.Listener
	once  sync.Once
	begun chan struct{} // closed when the service begins
	work  sync.WaitGroup

	mu       sync.Mutex
	deadline time.Time             // of Accept, as the service wants it
	open     int                   // connections that were accepted before the service begins and are not closed
	looking  map[net.Conn]struct{} // those of them whose client has sent nothing yet
	kept     []net.Conn            // those that the service will get
}

// Starting returns a listener that accepts from ln, a TCP or Unix listener that nothing else accepts from. Until its first
// Accept it answers GET and HEAD of /healthz (200) and /readyz (503, starting) by itself and closes those connections. All
// others are kept for Accept, with nothing read from them. Listeners of other kinds, Handed among them, are returned unchanged.
func Starting(ln net.Listener) net.Listener {
	if _, ok := ln.(deadliner); !ok || rawConn(ln) == nil {
		return ln
	}
	s := &starting{Listener: ln, begun: make(chan struct{}), looking: make(map[net.Conn]struct{})}
	s.work.Go(s.accept)
	return s
}

// begin ends the answering of probes. It blocks until every connection that was accepted is kept or closed. Calls after the
// first do nothing.
func (s *starting) begin() {
	s.once.Do(func() {
		close(s.begun)
		_ = s.Listener.(deadliner).SetDeadline(past)
		s.mu.Lock()
		for nc := range s.looking {
			_ = nc.SetReadDeadline(past)
		}
		s.mu.Unlock()
		s.work.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = s.Listener.(deadliner).SetDeadline(s.deadline)
	})
}

// accept looks at connections until the service begins or Accept fails; the service will meet that error itself.
func (s *starting) accept() {
	for s.room() {
		nc, err := s.Listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open++
		s.looking[nc] = struct{}{}
		s.mu.Unlock()
		s.work.Go(func() { s.look(nc) })
	}
}

// room blocks until one more connection may be accepted, or returns false when the service begins. It closes the kept connections
// whose clients have hung up.
func (s *starting) room() bool {
	tick := time.NewTicker(earlyPause)
	defer tick.Stop()
	for {
		s.mu.Lock()
		if s.open >= maxEarly {
			s.kept = slices.DeleteFunc(s.kept, func(nc net.Conn) bool {
				gone := hungUp(nc)
				if gone {
					nc.Close()
					s.open--
				}
				return gone
			})
		}
		full := s.open >= maxEarly
		s.mu.Unlock()
		if !full {
			return true
		}
		select {
		case <-s.begun:
			return false
		case <-tick.C:
		}
	}
}

// look waits for the first bytes of a connection. It answers a probe and closes the connection, and keeps any other.
func (s *starting) look(nc net.Conn) {
	select {
	case <-s.begun:
		_ = nc.SetReadDeadline(past)
	default:
	}
	head, gone := peek(nc)
	answer := earlyAnswer(head)
	s.mu.Lock()
	delete(s.looking, nc)
	kept := answer == nil && !gone
	if kept {
		_ = nc.SetReadDeadline(time.Time{})
		s.kept = append(s.kept, nc)
	}
	s.mu.Unlock()
	if kept {
		return
	}
	defer func() {
		nc.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
	}()
	_ = nc.SetDeadline(time.Now().Add(partingTime)) // fails on a closed connection, and so will what follows
	if _, err := nc.Write(answer); err != nil {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, nc, lingerBytes) // left unread, it would make a reset of the end
	}
}

// peek blocks until the client has sent something or the read deadline passes, and returns the beginning of what was sent
// without taking it from the connection. gone says that the client has closed the connection, or that it has failed.
func peek(nc net.Conn) (head []byte, gone bool) {
	b := make([]byte, len("HEAD /healthz "))
	n, failure := 0, error(nil)
	err := rawConn(nc).Read(func(fd uintptr) bool {
		n, _, failure = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(failure, unix.EAGAIN)
	})
	return b[:max(n, 0)], err == nil && n <= 0
}

// earlyAnswer returns the whole answer to a request that begins with head; nil if the request is no probe.
func earlyAnswer(head []byte) []byte {
	method, target, _ := strings.Cut(string(head), " ")
	end := strings.IndexAny(target, " ?")
	if method != fasthttp.MethodGet && method != fasthttp.MethodHead || end < 0 {
		return nil
	}
	status, body := "200 OK", `{"status":"ok"}`
	switch target[:end] {
	case "/healthz":
	case "/readyz":
		status, body = "503 Service Unavailable", `{"status":"starting","reason":"The model is being loaded"}`
	default:
		return nil
	}
	answer := fmt.Appendf(nil, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"+
		headerRequestID+": %s\r\nContent-Length: %d\r\n\r\n", status, newRequestID(), len(body))
	if method == fasthttp.MethodGet {
		answer = append(answer, body...)
	}
	return answer
}

// Accept begins the service. It returns the kept connections first.
func (s *starting) Accept() (net.Conn, error) {
	s.begin()
	s.mu.Lock()
	if len(s.kept) > 0 {
		nc := s.kept[0]
		s.kept = s.kept[1:]
		s.mu.Unlock()
		return nc, nil
	}
	s.mu.Unlock()
	return s.Listener.Accept()
}

// SetDeadline sets the deadline of Accept.
func (s *starting) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return s.Listener.(deadliner).SetDeadline(t)
}

// Withdraw implements withdraws.
func (s *starting) Withdraw() { dropNewcomers(s.Listener) }

// Close closes the listener and the connections that are still kept.
func (s *starting) Close() error {
	s.begin()
	err := s.Listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nc := range s.kept {
		nc.Close()
	}
	s.kept = nil
	return err
}
