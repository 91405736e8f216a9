package api

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"
)

// shutdown stops s and sends what comes of it.
func (s *service) shutdown() <-chan error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	return stopped
}

func TestShutdownFinishesWhatIsInside(t *testing.T) {
	s := serve(t, nil)
	inside := s.occupy(t)
	open, ask := s.asker(t, askHealth) // a connection that has been used, and is idle when the stop begins
	ask().wantOK(t)

	stopped := s.shutdown()
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("the idle connection stays open")
	}
	until(t, func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown returned %v with a request inside", err)
	default:
	}
	s.release()
	only(t, inside).wantOK(t)
	noError(t, <-stopped)
}

func TestStoppingOnOpenConnections(t *testing.T) {
	s := serve(t, nil)
	s.do(t, "GET", "/health", "").wantOK(t)
	// The state between the moment that Shutdown begins and the one that it gets to the connection.
	s.stopping.Store(true)
	r := s.post(t, "/v1/classify", classifyBody(goodImage, "", "x"))
	if r.wantError(t, 503, "stopping", "stopping"); !r.last {
		t.Error("the connection stays open")
	}
	if health := s.do(t, "GET", "/health", ""); health.status != 503 || !health.last {
		t.Errorf("%d %s", health.status, health.body)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	s := serve(t, nil)
	s.abortTime = time.Minute // it ends as soon as they are out
	inside := []net.Conn{s.occupy(t), s.send(t, posted(classifyBody(goodImage, "", waitingText)))}
	<-s.entered
	half := s.send(t, postHead+"Content-Length: 1000\r\n\r\n{") // will never send the rest

	ctx, cancel := context.WithDeadline(context.Background(), time.Now()) // there is no patience at all
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
	for _, c := range inside {
		only(t, c).wantError(t, 503, "stopping", "stopping")
	}
	if _, err := half.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is still open")
	}
}

func TestEngineClosedFirst(t *testing.T) {
	s := serve(t, nil)
	noError(t, s.svc.Engine.Close(context.Background()))
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantError(t, 503, "stopping", "stopping")
}

func TestShutdownBeforeServe(t *testing.T) {
	s := newService(t, nil)
	noError(t, s.Shutdown(context.Background()))
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	noError(t, s.Serve(ln))
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Service){
		"no engine":           func(s *Service) { s.Engine = nil },
		"no log":              func(s *Service) { s.Log = nil },
		"no timeout":          func(s *Service) { s.RequestTimeout = 0 },
		"no time for batches": func(s *Service) { s.BatchTimeout = 0 },
	} {
		svc := newService(t, nil).svc
		change(&svc)
		if _, err := New(testConfig(), svc); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestHandedSocket: the connections that wait at a socket which others hold are theirs, the requests that come on connections
// of before are served, and the last of each ends it.
func TestHandedSocket(t *testing.T) {
	s := newService(t, nil)
	ln := must(s.cfg.Listen()).(*net.TCPListener)
	defer ln.Close() // the socket of whoever has it handed over
	file := must(ln.File())
	defer file.Close()
	s.serve(t, Handed{must(net.FileListener(file))})
	_, ask := s.asker(t, posted(classifyBody(goodImage, "", "x")))
	ask().wantOK(t)
	until(t, func() bool { return len(s.listeners[0].busy()) == 0 })
	s.listeners[0].mu.Lock() // of drain
	s.listeners[0].stopIdleTime = time.Hour
	s.listeners[0].mu.Unlock()

	stopped := s.shutdown()
	<-s.listeners[0].ended
	waiting := s.send(t, askHealth)
	r := ask()
	if r.wantOK(t); !r.last {
		t.Error("the connection stays open")
	}
	noError(t, <-stopped)
	successor := serve(t, nil)
	go func() { _ = successor.Serve(ln) }()
	if r := must(read(must(http.ReadResponse(bufio.NewReader(waiting), nil)))); r.status != http.StatusOK {
		t.Errorf("who has waited got %d %s", r.status, r.body)
	}
}

// TestDrain: what comes before Shutdown is served, on connections that end.
func TestDrain(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.LameDuck = time.Nanosecond })
	_, ask := s.asker(t, posted(classifyBody(goodImage, "", "x")))
	if r := ask(); r.last || s.Draining() {
		t.Error("the connection ends before there is a stop")
	}
	s.LameDuck(context.Background())
	if r := ask(); r.status != http.StatusOK || !r.last || !s.Draining() {
		t.Errorf("%d %s, the last one: %v", r.status, r.body, r.last)
	}
	if r := s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")); r.status != http.StatusOK || !r.last { // on a new connection
		t.Errorf("%d %s, the last one: %v", r.status, r.body, r.last)
	}
}
