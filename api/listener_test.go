package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// troubled is a listener whose first calls of Accept fail.
type troubled struct {
	*net.TCPListener
	errs []error
}

func (l *troubled) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	}
	return l.TCPListener.Accept()
}

// TestAcceptGoesOn: what is wrong with one connection, or for a while, does not end the service.
func TestAcceptGoesOn(t *testing.T) {
	for _, errs := range [][]error{
		slices.Repeat([]error{unix.EMFILE}, spareFiles+2), {unix.ENFILE}, {unix.ENOBUFS}, {unix.ENOMEM}, {unix.ECONNABORTED}, {unix.EPROTO}, {unix.EMFILE, unix.ECONNABORTED, unix.ENETDOWN},
	} {
		t.Run(fmt.Sprint(errs), func(t *testing.T) {
			s := newService(t, nil)
			s.serve(t, &troubled{must(s.cfg.Listen()).(*net.TCPListener), errs})
			s.client.Transport.(*http.Transport).DisableKeepAlives = true
			until(t, func() bool { return s.do(t, "GET", "/health", "").status == 200 })
			if !strings.Contains(s.log.String(), "cannot be accepted") {
				t.Errorf("the log says nothing of it: %s", s.log)
			}
			until(t, func() bool { return s.post(t, "/v1/embed/text", `{"text":"x"}`).status == 200 })
			s.stop()
		})
	}
	t.Run("for good", func(t *testing.T) {
		s := newService(t, nil)
		if err := s.Serve(&troubled{must(s.cfg.Listen()).(*net.TCPListener), []error{unix.EBADF}}); !errors.Is(err, unix.EBADF) {
			t.Errorf("Serve returned %v", err)
		}
		noError(t, s.Shutdown(context.Background()))
	})
}

// testListener is a listener of nothing with room for two connections.
func testListener(t *testing.T) *listener {
	t.Helper()
	cfg := testConfig()
	cfg.MaxConnections = 2
	ln := must(cfg.Listen())
	l := newListener(ln, cfg, nil, slog.New(slog.DiscardHandler))
	l.idleTime, l.overLimitTime = time.Hour, time.Hour
	t.Cleanup(func() { _ = l.end(nil) })
	return l
}

// pair returns a connection that l has admitted, and its client.
func pair(t *testing.T, l *listener, short bool) (*conn, net.Conn) {
	t.Helper()
	client := must(net.Dial("tcp", l.Addr().String()))
	nc := must(l.Listener.Accept())
	t.Cleanup(func() { client.Close(); nc.Close() })
	return l.admit(nc, short), client
}

// TestSpareFiles: a connection that came in place of a spare file is answered as one over the limit,
// and its end brings the file back.
func TestSpareFiles(t *testing.T) {
	l := testListener(t)
	var short []*conn
	for i := range spareFiles {
		if !l.makeRoom() {
			t.Fatalf("no room after %d files", i)
		}
		c, _ := pair(t, l, true)
		if short = append(short, c); c.place() != overLimit {
			t.Error("it is a regular connection")
		}
	}
	if l.makeRoom() {
		t.Error("there is room without a file")
	}
	for _, c := range short {
		c.Close()
	}
	if len(l.spare) != spareFiles || l.count() != 0 {
		t.Errorf("%d spare files, %d connections", len(l.spare), l.count())
	}
}

// TestAdmission: regular connections up to the limit, then others, then none; each with an id of its own.
func TestAdmission(t *testing.T) {
	l := testListener(t)
	var open []*conn
	ids := map[uint64]bool{}
	for i := range l.max + l.reserve {
		c, _ := pair(t, l, false)
		if over := i >= l.max; (c.place() == overLimit) != over || !c.latest.IsZero() != over {
			t.Errorf("connection %d has place %d and may be read until %v", i, c.place(), c.latest)
		}
		ids[c.id] = true
		open = append(open, c)
	}
	if c, _ := pair(t, l, false); c != nil {
		t.Error("one beyond the reserve was admitted")
	}
	l.overLimitTime = 0
	if c, _ := pair(t, l, false); c == nil || c.place() != overLimit || l.count() != l.max+l.reserve {
		t.Errorf("no connection over the limit made room: %d are open", l.count())
	}
	if _, err := open[l.max].Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the first connection over the limit is open: %v", err)
	}
	if len(ids) != len(open) {
		t.Errorf("%d ids for %d connections", len(ids), len(open))
	}
	open[0].Close()
	if c, _ := pair(t, l, false); c == nil || c.place() != regular {
		t.Errorf("after one has gone: %+v", c)
	}
}

// TestLongestWaiterMakesRoom: not one that serves, and not one that has only just begun to wait.
func TestLongestWaiterMakesRoom(t *testing.T) {
	l := testListener(t)
	busy, _ := pair(t, l, false)
	busy.receive()
	rested, client := pair(t, l, false)
	if c, _ := pair(t, l, false); c.place() != overLimit {
		t.Error("a connection that has only just come was sent away")
	}
	l.idleTime = 0
	if c, _ := pair(t, l, false); c.place() != regular {
		t.Error("nobody made room")
	}
	if busy.phase != receiving || rested.phase != leaving {
		t.Errorf("phases: busy %d, idle %d", busy.phase, rested.phase)
	}
	if n, err := rested.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the one that leaves reads %d bytes, %v", n, err)
	}
	go rested.Close()
	if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("its client reads %d bytes, %v", n, err)
	}
}

// TestRetiredConnectionServesWhatHasArrived: a request that crosses the end is read, with the
// deadline that the server had set.
func TestRetiredConnectionServesWhatHasArrived(t *testing.T) {
	l := testListener(t)
	c, client := pair(t, l, false)
	noError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	fmt.Fprint(client, "x")
	if !c.makeWay(false) {
		t.Fatal("it did not wait")
	}
	for _, want := range []string{"x", "y"} {
		b := make([]byte, 1)
		if n, err := c.Read(b); n != 1 || err != nil || string(b) != want {
			t.Fatalf("read %q, %v; want %q", b[:n], err, want)
		}
		fmt.Fprint(client, "y")
	}
	if again, late := c.makeWay(false), c.late.Load(); c.place() != retired || again || late {
		t.Errorf("its place is %d; it was sent away while it served: %v; its client counts as too slow: %v", c.place(), again, late)
	}
}

// TestRetiredConnectionEndsAfterItsRequest: it has given its place away.
func TestRetiredConnectionEndsAfterItsRequest(t *testing.T) {
	s := serve(t, nil)
	c := s.occupy(t)
	s.listeners[0].busy()[0].holds.Store(int32(retired))
	s.release()
	only(t, c).wantOK(t)
}

// TestTooManyConnections: /health is answered, and everybody else learns why not, however much they send.
func TestTooManyConnections(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxConnections = 1 })
	s.occupy(t)
	until(t, func() bool { // 503 to a client that needs longer than overLimitTime
		r := s.do(t, "GET", "/health", "")
		return r.status == 200 && r.last
	})
	for _, path := range probePaths {
		s.do(t, "GET", path, "").wantOK(t)
	}
	for _, size := range []int{1, 50_000, 900_000} {
		r := s.post(t, "/v1/embed/text", `{"text":"x","more":"`+strings.Repeat("y", size)+`"}`)
		if r.wantError(t, 503, "too_many_connections", "Too many connections"); !r.last {
			t.Error("the connection stays open")
		}
	}
	only(t, s.send(t)).wantError(t, 503, "too_many_connections", "Too many connections") // it says nothing
	s.release()
	until(t, func() bool { return s.post(t, "/v1/embed/text", `{"text":"x"}`).status == 200 })
}

// TestRefuse: the answer to a connection that is not even served arrives whole, and not as a reset.
func TestRefuse(t *testing.T) {
	s := newService(t, func(_ *Config, svc *Service) { svc.Warning = "careful" })
	ln := must(s.cfg.Listen())
	defer ln.Close()
	client := must(net.Dial("tcp", ln.Addr().String()))
	defer client.Close()
	fmt.Fprint(client, strings.Repeat("x", 10_000))
	refuse(must(ln.Accept()), s.refusal())
	r := only(t, client)
	if r.wantError(t, 503, "too_many_connections", "Too many connections"); r.header.Get(headerWarning) != "careful" {
		t.Errorf("%v", r.header)
	}
}

// TestBacklogIsAnswered: what the kernel has accepted before a stop is answered after it.
func TestBacklogIsAnswered(t *testing.T) {
	plainOnly(t)
	s := newService(t, nil)
	ln := must(s.cfg.Listen())
	var clients []net.Conn
	for range 20 {
		c := must(net.Dial("tcp", ln.Addr().String()))
		defer c.Close()
		fmt.Fprint(c, postHead+"Content-Length: 2\r\n\r\n{}")
		clients = append(clients, c)
	}
	noError(t, s.Shutdown(context.Background()))
	noError(t, s.Serve(ln))
	for _, c := range clients {
		only(t, c).wantError(t, 503, "stopping", "")
	}
}

// TestDropNewcomers: connections that are there can be accepted, and the kernel takes no new ones.
func TestDropNewcomers(t *testing.T) {
	ln := must(testConfig().Listen())
	defer ln.Close()
	first := must(net.Dial("tcp", ln.Addr().String()))
	defer first.Close()
	dropNewcomers(ln)
	if c, err := net.DialTimeout("tcp", ln.Addr().String(), 50*time.Millisecond); err == nil {
		c.Close()
		t.Error("a connection was made")
	} else if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection was refused: %v", err)
	}
	c := must(ln.Accept())
	defer c.Close()
	fmt.Fprint(first, "x")
	_ = must(io.ReadFull(c, make([]byte, 1)))
}

// TestIdleConnectionIsAnsweredWhileStopping: the next request of a client that asks again and
// again gets an answer that says why there is no more.
func TestIdleConnectionIsAnsweredWhileStopping(t *testing.T) {
	s := serve(t, nil)
	c, ask := s.asker(t, askHealth)
	ask()
	s.mu.Lock()
	s.listeners[0].stopIdleTime = time.Hour
	s.mu.Unlock()
	stopped := s.shutdown()
	until(t, s.stopping.Load)
	if r := ask(); r.status != http.StatusServiceUnavailable || !r.last {
		t.Errorf("%d, connection closed %v", r.status, r.last)
	}
	c.Close()
	noError(t, <-stopped)
}

// TestGoneClient: a request whose client has closed the connection is given up, one whose client
// waits, with another request already sent, is not.
func TestGoneClient(t *testing.T) {
	for _, body := range []string{classifyBody(waitingImage, "", "x"), classifyBody(goodImage, "", waitingText)} {
		s := serve(t, func(_ *Config, svc *Service) { svc.RequestTimeout = time.Hour })
		c := s.send(t, posted(body))
		<-s.entered
		fmt.Fprint(c, askHealth)
		s.listeners[0].cancelGone()
		if busy := s.listeners[0].busy(); len(busy) != 1 || hungUp(busy[0].wire) {
			t.Errorf("%d connections with a request", len(busy))
		}
		if strings.Contains(s.log.String(), "client_gone") {
			t.Error("the client was given up while it waited")
		}
		c.Close()
		until(t, func() bool { return strings.Contains(s.log.String(), "client_gone") })
		until(t, func() bool { return s.listeners[0].count() == 0 })
	}
}

// TestDismiss: a service that ends before it has begun to serve tells those who wait for it.
func TestDismiss(t *testing.T) {
	ln := must(testConfig().Listen())
	s := &service{addr: ln.Addr().String()}
	var clients []net.Conn
	for _, request := range []string{askHealth, posted(strings.Repeat("{", 100_000))} {
		clients = append(clients, s.send(t, request))
	}
	silent := s.send(t)
	for range testConfig().MaxConnections + 8 { // more than would be served
		s.send(t).Close()
	}
	dismissed := make(chan error, 1)
	go func() { dismissed <- testConfig().Dismiss(ln) }()
	for _, c := range clients {
		only(t, c).wantError(t, 503, "stopping", "")
	}
	if b, err := io.ReadAll(silent); len(b) > 0 || err != nil {
		t.Errorf("who has asked nothing got %q, %v", b, err)
	}
	noError(t, <-dismissed)
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// TestSlowSendersMakeRoom: who holds all places with requests that it does not finish sending loses one to a client
// from elsewhere, and not to another of its own.
func TestSlowSendersMakeRoom(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxConnections = 3 })
	open := func() int {
		s.Server.mu.Lock()
		defer s.Server.mu.Unlock()
		if len(s.listeners) == 0 {
			return 0
		}
		return s.listeners[0].count()
	}
	var slow []net.Conn
	for _, half := range []string{"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\n", postHead + "Content-Length: 9\r\n\r\n{", "G"} {
		slow = append(slow, s.sendFrom(t, "127.0.0.1", half))
		until(t, func() bool { return open() == len(slow) })
		until(t, func() bool {
			l := s.listeners[0]
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.oldest(func(c *conn) (time.Time, bool) { p, _, _ := c.doing(); return c.opened, p == idle }) == nil
		})
	}
	const last = "Connection: close\r\n"
	only(t, s.sendFrom(t, "127.0.0.1", "GET /v1/stats HTTP/1.1\r\nHost: x\r\n"+last+"\r\n")).wantError(t, 503, "too_many_connections", "")
	ask := func(ip string) reply { return only(t, s.sendFrom(t, ip, posted("{}", last))) }
	ask("127.0.0.2").wantError(t, 400, "invalid_prompts", "") // of a client from elsewhere; there is nothing in it
	only(t, slow[0]).wantError(t, 503, "too_many_connections", "")
	until(t, func() bool { return open() == 2 })
	s.sendFrom(t, "127.0.0.2", "G") // takes the place that is free
	ask("127.0.0.2").wantError(t, 503, "too_many_connections", "")
	ask("127.0.0.3").wantError(t, 400, "invalid_prompts", "")
	only(t, slow[1]).wantError(t, 503, "too_many_connections", "")
}

// TestAccepting is a loop that accepts connections, which waits for one, takes one and does not come back.
func TestAccepting(t *testing.T) {
	s := newService(t, nil)
	ln := must(s.cfg.Listen())
	l := newListener(ln, s.cfg, nil, s.svc.Log)
	s.listeners = append(s.listeners, l)
	for range 2 {
		accepted := make(chan net.Conn)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		defer must(net.Dial("tcp", ln.Addr().String())).Close()
		defer (<-accepted).Close()
		if now := time.Now(); l.stuck(now) || !l.stuck(now.Add(2*stuckAccept)) || !s.Accepting() {
			t.Error("a connection that has just come")
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = l.Accept()
	}()
	for l.accepted.Load() != 0 { // it waits
		runtime.Gosched()
	}
	if l.stuck(time.Now().Add(time.Hour)) || !s.Accepting() {
		t.Error("an idle service")
	}
	ln.Close()
	<-ended
}
