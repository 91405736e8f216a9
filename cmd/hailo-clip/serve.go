package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"hailoclip/api"
	"hailoclip/configs"
)

type serveCmd struct {
	Host string `placeholder:"ADDR" help:"Address to listen on (server.host)."`
	Port *int   `placeholder:"N" help:"Port to listen on; 0 is any free one (server.port)."`
}

func (c *serveCmd) Help() string {
	return `Every setting stands in the configuration file: "hailo-clip config show --default".

Examples:
  hailo-clip serve
  hailo-clip serve --host 127.0.0.1 --port 8080 --backend cpu
  HAILO_CLIP_PERFORMANCE_MAX_QUEUE_SIZE=64 hailo-clip serve --config my.yaml`
}

func (c *serveCmd) Run(ctx context.Context, g *globals) error {
	var flags []configs.Override
	if c.Host != "" {
		flags = append(flags, configs.Override{Key: "server.host", Value: c.Host, Source: "--host"})
	}
	if c.Port != nil {
		flags = append(flags, configs.Override{Key: "server.port", Value: strconv.Itoa(*c.Port), Source: "--port"})
	}
	p, err := g.place(flags...)
	if err != nil {
		return err
	}
	log := newLogger(p.cfg.Logging)
	log.Info("starting", "version", programVersion(), "configuration", p.file, "state", p.state)
	for _, warning := range append(p.cfg.Warnings(), quotaInForce()...) {
		log.Warn("the configuration makes the service slow", "warning", warning)
	}
	s, err := newService(ctx, p.cfg, p.state, serviceLogs{all: log, requests: log})
	if interrupted(ctx, err) {
		log.Info("stopped before it served") // as it was asked to: systemd would call anything but 0 a failure
		return nil
	}
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// listen takes the port. Doctor tries it too.
func listen(c api.Config) (net.Listener, error) {
	ln, err := c.Listen()
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; is another hailo-clip running? choose another port with --port", err)
	}
	return ln, err
}

// service is an engine behind the REST interface.
type service struct {
	engine *engine
	server *api.Server
	ln     net.Listener
}

// newService takes the port first, so that a second start fails at once and not after the model
// has been loaded; clients that connect meanwhile wait in the kernel's queue, and are answered with 503 where
// the start fails or is stopped.
func newService(ctx context.Context, cfg configs.Config, state string, log serviceLogs) (*service, error) {
	ln, err := listen(cfg.Server)
	if err != nil {
		return nil, err
	}
	e, err := newEngine(ctx, cfg, state, log.all)
	if err != nil {
		return nil, errors.Join(err, cfg.Server.Dismiss(ln))
	}
	giveUp := func(err error) (*service, error) {
		return nil, errors.Join(err, e.close(context.WithoutCancel(ctx)), cfg.Server.Dismiss(ln))
	}
	cfg.Server.MaxBodyMemoryBytes = e.memory.bodies
	if cfg.Server, err = fitDescriptors(cfg.Server, log.all); err != nil {
		return giveUp(err)
	}
	server, err := api.New(cfg.Server, api.Service{
		Pipeline: e.pipe, Prompts: e.prompts, Health: e.health, Stats: e.stats, Model: e.model.Name,
		LogitScale: e.logitScale(), Softmax: cfg.CLIP.ApplySoftmax,
		RequestTimeout: cfg.Performance.RequestTimeout, Version: programVersion(), Log: log.requests,
		Warning: e.warning(),
	})
	if err != nil {
		return giveUp(err)
	}
	return &service{engine: e, server: server, ln: ln}, nil
}

// otherFiles is how many files the service may come to open beside its connections and what it has
// open when it begins to serve: a device's worker that is started again, a cache file made anew.
const otherFiles = 16

// fitDescriptors lowers max_connections to what the limit of open files allows, with a warning. When
// that is next to nothing it is an error. The Go runtime has raised the soft limit to the hard one.
func fitDescriptors(c api.Config, log *slog.Logger) (api.Config, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return c, nil //nolint:nilerr // it would only have been a warning
	}
	used, _ := os.ReadDir("/proc/self/fd") // none where there is no /proc
	return lowerConnections(c, limit.Cur, len(used)+otherFiles, log)
}

// lowerConnections is fitDescriptors for a limit of which others are taken.
func lowerConnections(c api.Config, limit uint64, others int, log *slog.Logger) (api.Config, error) {
	const remedy = "raise it (ulimit -n; LimitNOFILE in the systemd unit)"
	wanted, needed := c.MaxConnections, func() uint64 { return uint64(c.Descriptors() + others) }
	if needed() <= limit {
		return c, nil
	}
	for needed() > limit {
		if c.MaxConnections--; c.MaxConnections < 1 {
			return c, fmt.Errorf("the process may open %d files, and the service needs %d for one connection: %s", limit, needed()+1, remedy)
		}
	}
	log.Warn("fewer connections than server.max_connections: the process may not open so many files; "+remedy,
		"max_connections", wanted, "lowered_to", c.MaxConnections, "open_files_limit", limit)
	return c, nil
}

// url is where the service can be opened on this machine.
func (s *service) url() string { return api.URL(s.ln.Addr()) }

// run serves until ctx ends, then drains within server.shutdown_timeout: stop accepting, finish
// what is inside, flush the cache, release the device.
func (s *service) run(ctx context.Context) error {
	e := s.engine
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(s.ln) }()
	e.log.Info("serving", "url", s.url(), "listening", s.ln.Addr().String(), "model", e.model.Name)
	notify(e.log, daemon.SdNotifyReady)

	besides, endBesides := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { e.precompute(besides) })
	running.Go(func() { feedWatchdog(besides, e.log, s.stuck) })

	var err error
	failed := false
	select {
	case err = <-served: // the listener failed
		failed = true
	case <-ctx.Done():
		e.log.Info("stopping", "timeout", e.cfg.Server.ShutdownTimeout.String())
		notify(e.log, daemon.SdNotifyStopping)
	}
	endBesides()
	running.Wait()
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Server.ShutdownTimeout)
	defer cancel()
	err = errors.Join(err, s.server.Shutdown(deadline))
	if !failed {
		err = errors.Join(err, <-served)
	}
	err = errors.Join(err, e.close(deadline))
	e.log.Info("stopped")
	return err
}
