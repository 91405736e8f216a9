package api

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

const (
	// maxEarly is how many connections are looked at, or kept, before the service begins. More wait in the kernel's queue.
	maxEarly = 256
	// earlyPause is how often room is looked for when there are so many.
	earlyPause = 50 * time.Millisecond
)

// starting is a listener whose service has not begun.
type starting struct {
	net.Listener
	begun chan struct{} // closed when the service begins
	begin func()        // has it begin; blocks until all that was accepted is in kept, or answered
	work  sync.WaitGroup

	mu       sync.Mutex
	deadline time.Time // of Accept, as the service wants it
	open     int       // connections that were accepted before the service begins, and are not closed
	looking  map[net.Conn]struct{}
	kept     []net.Conn
}

// Starting returns ln, which is a TCP or a Unix listener that nobody accepts from, as one that answers /healthz (200) and
// /readyz (503, starting) until its first Accept. All other connections, and those that say nothing, are kept as they are
// for that: of what clients send only so much is looked at. A listener of another kind comes back as it is.
func Starting(ln net.Listener) net.Listener {
	if _, ok := ln.(deadliner); !ok || rawConn(ln) == nil {
		return ln
	}
	s := &starting{Listener: ln, begun: make(chan struct{}), looking: make(map[net.Conn]struct{})}
	s.begin = sync.OnceFunc(func() {
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
	s.work.Go(s.accept)
	return s
}

// accept looks at connections until the service begins. Errors are left for that.
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

// room waits until one more may be accepted, and returns false when the service begins. Clients that have sent something and hung up
// since, because they did not want to wait for so long, make room.
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

// look answers a probe and closes the connection, or keeps it because it is none.
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
	defer s.closed(nc)
	_ = nc.SetDeadline(time.Now().Add(partingTime)) // fails on a closed connection, and so will what follows
	if _, err := nc.Write(answer); err != nil {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, nc, lingerBytes) // left unread, it would make a reset of the end
	}
}

// closed closes a connection, which makes room for another one.
func (s *starting) closed(nc net.Conn) {
	nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
}

// peek waits until the client has sent something, or the read deadline, and returns the beginning of it, which stays where
// it is. gone says that nothing will come.
func peek(nc net.Conn) (head []byte, gone bool) {
	b := make([]byte, len("HEAD /healthz "))
	n, failure := 0, error(nil)
	err := rawConn(nc).Read(func(fd uintptr) bool {
		n, _, failure = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(failure, unix.EAGAIN)
	})
	return b[:max(n, 0)], err == nil && n <= 0
}

// earlyAnswer is the whole answer to a request that begins with head; nil: it is for the service.
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

// Accept has the service begin, and returns first what has been kept for it.
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

// SetDeadline is that of Accept.
func (s *starting) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return s.Listener.(deadliner).SetDeadline(t)
}

// SyscallConn gives access to the descriptor.
func (s *starting) SyscallConn() (syscall.RawConn, error) {
	return s.Listener.(syscall.Conn).SyscallConn()
}

// Withdraw keeps newcomers from connecting.
func (s *starting) Withdraw() { dropNewcomers(s.Listener) }

// Close ends also what is kept.
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
