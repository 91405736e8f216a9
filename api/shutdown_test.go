package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"hailoclip/pipeline"
)

func TestShutdownFinishesWhatIsInside(t *testing.T) {
	s := serve(t, nil)
	inside := s.occupy(t)
	open, ask := s.asker(t) // a connection that has been used, and is idle when the stop begins
	if ask().status != http.StatusOK {
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
	if r := only(t, inside); r.status != 200 {
		t.Errorf("the request inside: %d %s", r.status, r.body)
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
	inside := []net.Conn{s.send(t, posted(classifyBody(waitingImage, "", "x"))), s.send(t, posted(classifyBody(goodImage, "", waitingText)))}
	<-s.entered
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
	if err := s.svc.Engine.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantError(t, 503, "stopping", "stopping")
}

func TestShutdownBeforeServe(t *testing.T) {
	s := newService(t, nil)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
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
		change func(*Config, *Service)
	}{
		{"config", func(c *Config, _ *Service) { c.Port = -1 }},
		{"no engine", func(_ *Config, s *Service) { s.Engine = nil }},
		{"no log", func(_ *Config, s *Service) { s.Log = nil }},
		{"no timeout", func(_ *Config, s *Service) { s.RequestTimeout = 0 }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg, svc := testConfig(), good
			c.change(&cfg, &svc)
			if _, err := New(cfg, svc); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestConfig(t *testing.T) {
	if err := testConfig().Validate(); err != nil {
		t.Error(err)
	}
	cases := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"port", func(c *Config) { c.Port = 65536 }, "server.port: 65536 is out of bounds: 0 to 65535"},
		{"debug", func(c *Config) { c.Debug = true }, "server.debug: true is not supported: for more log lines set logging.level: debug"},
		{"read_timeout", func(c *Config) { c.ReadTimeout = 0 }, "server.read_timeout: 0s is out of bounds: 100ms to 1h"},
		{"write_timeout", func(c *Config) { c.WriteTimeout = -1 }, "server.write_timeout: -1ns is out of bounds: 100ms to 1h"},
		{"idle_timeout", func(c *Config) { c.IdleTimeout = pipeline.Duration(2 * time.Hour) }, "server.idle_timeout: 2h0m0s is out of bounds: 100ms to 1h"},
		{"shutdown_timeout", func(c *Config) { c.ShutdownTimeout = -1 }, "server.shutdown_timeout: -1ns is out of bounds: 0 to 1h"},
		{"max_body_bytes", func(c *Config) { c.MaxBodyBytes = 0 }, "server.max_body_bytes: 0 is out of bounds: 1024 to 1073741824"},
		{"max_body_memory_bytes", func(c *Config) { c.MaxBodyMemoryBytes = 1 << 20 }, "server.max_body_memory_bytes: 1048576 is out of bounds: at least 2097152 and twice max_body_bytes"},
		{"max_body_memory_bytes for one body", func(c *Config) { c.MaxBodyBytes = 32<<20 + 1 }, "server.max_body_memory_bytes: 67108864 is out of bounds: at least 2097152 and twice max_body_bytes"},
		{"max_header_bytes", func(c *Config) { c.MaxHeaderBytes = 0 }, "server.max_header_bytes: 0 is out of bounds: 1024 to 1048576"},
		{"max_connections", func(c *Config) { c.MaxConnections = 0 }, "server.max_connections: 0 is out of bounds: 1 to 1000000"},
		{"max_prompts", func(c *Config) { c.MaxPrompts = 0 }, "server.max_prompts: 0 is out of bounds: 1 to 100000"},
		{"max_prompt_bytes", func(c *Config) { c.MaxPromptBytes = 1 << 20 }, "server.max_prompt_bytes: 1048576 is out of bounds: 1 to 65536"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig()
			c.change(&cfg)
			if err := cfg.Validate(); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	c := Config{Host: "::1", Port: 5000}
	if got := c.Addr(); got != "[::1]:5000" {
		t.Errorf("Addr is %s", got)
	}
}
