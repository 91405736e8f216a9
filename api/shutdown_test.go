package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestShutdownFinishesWhatIsInside(t *testing.T) {
	s := serve(t, nil)
	inside := make(chan reply, 1)
	go func() {
		r, err := s.try("POST", "/v1/classify", classifyBody(waitingImage, "", "x"))
		if err != nil {
			t.Error(err)
		}
		inside <- r
	}()
	<-s.working
	open := dial(t, s) // a connection that has been used, and is idle when the stop begins
	reader := bufio.NewReader(open)
	ask := func() *http.Response {
		t.Helper()
		fmt.Fprint(open, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if ask().StatusCode != http.StatusOK {
		t.Fatal("not healthy")
	}

	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
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
	if r := <-inside; r.status != 200 || !r.last {
		t.Errorf("the request inside: %d, connection closed %v, %s", r.status, r.last, r.body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStoppingOnOpenConnections(t *testing.T) {
	s := serve(t, nil)
	if r := s.do(t, "GET", "/health", ""); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	// The state between the moment that Shutdown begins and the one that it gets to the connection.
	s.stopping.Store(true)
	r := s.post(t, "/v1/classify", classifyBody(goodImage, "", "x"))
	if r.wantError(t, 503, "stopping", "stopping"); !r.last {
		t.Error("the connection stays open")
	}
	health := s.do(t, "GET", "/health", "")
	if health.status != 503 || !health.last {
		t.Errorf("%d %s", health.status, health.body)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	s := serve(t, nil)
	s.lastWords = time.Minute // it ends as soon as they are said
	inside := make(chan reply, 2)
	for _, body := range []string{classifyBody(waitingImage, "", "x"), classifyBody(goodImage, "", waitingText)} {
		go func() {
			r, err := s.try("POST", "/v1/classify", body)
			if err != nil {
				t.Error(err)
			}
			inside <- r
		}()
	}
	<-s.working
	<-s.working
	half := dial(t, s) // will never send the rest
	fmt.Fprint(half, postHead+"Content-Length: 1000\r\n\r\n{")

	ctx, cancel := context.WithDeadline(context.Background(), time.Now()) // there is no patience at all
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
	for range 2 {
		(<-inside).wantError(t, 503, "stopping", "stopping")
	}
	if _, err := half.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is still open")
	}
}

func TestPipelineClosedFirst(t *testing.T) {
	s := serve(t, nil)
	if err := s.pipeline.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantError(t, 503, "stopping", "stopping")
}

func TestShutdownBeforeServe(t *testing.T) {
	s := newService(t, nil)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ln); err != nil {
		t.Error(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := newService(t, nil).svc
	cases := []struct {
		name   string
		change func(*Service)
	}{
		{"no pipeline", func(s *Service) { s.Pipeline = nil }},
		{"no prompts", func(s *Service) { s.Prompts = nil }},
		{"no health", func(s *Service) { s.Health = nil }},
		{"no log", func(s *Service) { s.Log = nil }},
		{"no model", func(s *Service) { s.Model = "" }},
		{"no logit scale", func(s *Service) { s.LogitScale = 0 }},
		{"no timeout", func(s *Service) { s.RequestTimeout = 0 }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			svc := good
			c.change(&svc)
			if _, err := New(testConfig(), svc); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestAddr(t *testing.T) {
	c := Config{Host: "::1", Port: 5000}
	if got := c.Addr(); got != "[::1]:5000" {
		t.Errorf("Addr is %s", got)
	}
}
