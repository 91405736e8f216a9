package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"

	"hailoclip/api"
	"hailoclip/api/access"
	"hailoclip/api/admin"
	"hailoclip/api/fleet"
	"hailoclip/configs"
	"hailoclip/hailo/demo"
)

type serveCmd struct {
	Host        string   `placeholder:"ADDR" help:"Address to listen on (server.host)."`
	Port        *int     `placeholder:"N" help:"Port to listen on; 0 is any free one (server.port)."`
	AdminListen *string  `placeholder:"ADDR" help:"Address and port for metrics and profiles; main: the service's own port; empty: none (admin.listen)."`
	LogLevel    string   `placeholder:"LEVEL" help:"debug, info, warning or error (logging.level)."`
	LogFormat   string   `placeholder:"FORMAT" help:"auto, json or text (logging.format)."`
	Set         []string `sep:"none" placeholder:"KEY=VALUE" help:"Any other setting, such as performance.max_queue_size=64; may be repeated."`
}

// overrides are the settings that flags give. Those with a flag of their own come last, so that they override --set.
func (c *serveCmd) overrides() (all []configs.Override, err error) {
	for _, s := range c.Set {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("--set %s: write KEY=VALUE", s)}
		}
		all = append(all, configs.Override{Key: key, Value: value, Source: "--set"})
	}
	if c.Port != nil {
		all = append(all, configs.Override{Key: "server.port", Value: strconv.Itoa(*c.Port), Source: "--port"})
	}
	if c.AdminListen != nil {
		all = append(all, configs.Override{Key: "admin.listen", Value: *c.AdminListen, Source: "--admin-listen"})
	}
	for _, f := range []configs.Override{
		{Key: "server.host", Value: c.Host, Source: "--host"},
		{Key: "logging.level", Value: c.LogLevel, Source: "--log-level"},
		{Key: "logging.format", Value: c.LogFormat, Source: "--log-format"},
	} {
		if f.Value != "" {
			all = append(all, f)
		}
	}
	return all, nil
}

func (c *serveCmd) Help() string {
	return `Every setting can be given in the configuration file ("hailo-clip config show --default" prints them all), in the environment
(HAILO_CLIP_SERVER_PORT=8080; commas between the items of a list), and by --set. On SIGHUP (kill -HUP, systemctl reload) the service
reads the file again and applies what can change while it runs; the log says what needs a restart.

Examples:
  hailo-clip serve
  hailo-clip serve --host 127.0.0.1 --port 8080 --backend cpu
  hailo-clip serve --log-level debug --set server.allowed_origins=https://example.org
  HAILO_CLIP_PERFORMANCE_MAX_QUEUE_SIZE=64 hailo-clip serve --config my.yaml`
}

func (c *serveCmd) Run(ctx context.Context, g *globals) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	hup, endHangups := hangups(stop) // first of all: until then SIGHUP ends the command
	defer endHangups()
	flags, err := c.overrides()
	if err != nil {
		return err
	}
	p, err := g.place(flags...)
	if err != nil {
		return err
	}
	log := stderr.logger(p.cfg.Logging)
	log.Info("starting", "version", programVersion(), "configuration", p.file, "state", p.state)
	for _, warning := range append(p.cfg.Warnings(), quotaInForce()...) {
		log.Warn("the configuration makes the service slow", "warning", warning)
	}
	for _, danger := range p.cfg.Dangers() {
		log.Warn("the configuration lets others do what they should not", "warning", danger)
	}
	if exposure := p.cfg.Exposure(); exposure != "" {
		log.Info(exposure)
	}
	p.again = func() (configs.Loaded, error) { return g.checked(flags...) }
	s, err := newService(ctx, p, log, log)
	if interrupted(ctx, err) {
		log.Info("stopped before it served")
		return nil // systemd takes any other exit code for a failure
	}
	if err != nil {
		return err
	}
	go s.reload.reloads(ctx, hup)
	return s.run(ctx)
}

// service is an engine behind the REST interface.
type service struct {
	engine  *engine
	access  *access.Keys // its Apply changes them while the service runs
	streams *streams
	server  *api.Server
	sockets sockets
	admin   *admin.Server // nil: there is none
	reload  *reloader
	node    *fleet.Node         // nil: the service is in no fleet
	prompts chan configs.Config // has a configuration whose prompt file has changed; room for one
}

// url is where the service can be opened on its own machine.
func (s *service) url() string { return s.engine.cfg.Server.URLOf(s.sockets.main[0].Addr()) }

// newService takes the port first, so that a second start fails at once and not after the model has been loaded. Until the service
// serves, only /healthz and /readyz are answered; other requests wait, and get 503 if the start fails or is stopped. On a socket
// of systemd's all requests wait, then for the next start.
func newService(ctx context.Context, p place, log, requests *slog.Logger) (s *service, err error) {
	socks, err := openSockets(p.cfg, log)
	if err != nil {
		return nil, err
	}
	loaded, end := context.WithCancel(ctx)
	go extendStart(loaded, log)
	e, err := newEngine(ctx, p, true, log)
	end()
	defer func() {
		if err != nil && e != nil {
			err = errors.Join(err, e.Close(context.WithoutCancel(ctx)))
		}
		if err != nil {
			err = errors.Join(err, socks.dismiss(p.cfg.Server))
		}
	}()
	if err != nil {
		return nil, err
	}
	if e.cfg.Server, err = fitDescriptors(e.cfg, len(socks.main), log); err != nil {
		return nil, err
	}
	samples, err := demo.Samples()
	if err != nil {
		return nil, err
	}
	streams, err := e.newStreams()
	if err != nil {
		return nil, err
	}
	node, err := fleet.Join(e.cfg.Fleet, fleet.Parts{Engine: e.Engine, Streams: streams.hub, Version: programVersion(), Log: log})
	if err != nil {
		return nil, errors.Join(err, streams.close(context.WithoutCancel(ctx)))
	}
	keys, reload := access.New(p.cfg.Access), newReloader(p, log)
	server, err := api.New(e.cfg.Server, api.Service{
		Fleet:  statusOf(node),
		Engine: e.Engine, RequestTimeout: p.cfg.Performance.RequestTimeout, BatchTimeout: p.cfg.Performance.BatchTimeout,
		Version: programVersion(), Warning: e.warning, Log: requests,
		Hub: streams.hub, Bus: streams.bus, Store: streams.store, Lost: streams.lost, Memory: streams.memory, Notifier: streams.notifier,
		Samples: consoleSamples(samples), Access: keys, Allowed: streams.allowed, Compat: e.cfg.Compat, MadeUp: e.warning != "" && !e.cfg.Sim.ServeHash,
		Recorder: e.recorder, Admin: e.adminOnMain(reload), LogEvery: p.cfg.Logging.Requests, LogDropped: stderr.lost.Load,
	})
	if err != nil {
		node.Close()
		return nil, errors.Join(err, streams.close(context.WithoutCancel(ctx)))
	}
	s = &service{
		engine: e, streams: streams, server: server, sockets: socks, access: keys, reload: reload, node: node, prompts: make(chan configs.Config, 1),
	}
	reload.service = s
	onOwn := e.adminParts(reload)
	onOwn.Metrics, onOwn.Hosts, onOwn.Listener = server.WriteMetrics, server.AllowedHosts, socks.admin
	s.admin = admin.Listen(e.cfg.Admin, onOwn)
	return s, nil
}

// statusOf is nil where there is no fleet.
func statusOf(node *fleet.Node) func(context.Context) *fleet.Status {
	if node == nil {
		return nil
	}
	return node.Status
}

// consoleSamples offers the demo model's samples in the console.
func consoleSamples(samples []demo.Sample) (list []api.Sample) {
	for _, s := range samples {
		list = append(list, api.Sample{Name: s.File, JPEG: s.JPEG})
	}
	return list
}

// adminParts is what the metrics and profiles are served with, without the parts that the server has.
func (e *engine) adminParts(reload *reloader) admin.Parts {
	p := admin.Parts{Log: e.log}
	if reload.load != nil {
		p.Reload = func(ctx context.Context) (any, error) { return reload.Reload(ctx) }
	}
	return p
}

// adminOnMain is adminParts where they are served on the service's own port, else nil.
func (e *engine) adminOnMain(reload *reloader) *admin.Parts {
	if e.cfg.Admin.Listen != admin.OnMain {
		return nil
	}
	return new(e.adminParts(reload))
}

// run serves until ctx ends and then for server.lame_duck more. Then it drains within server.shutdown_timeout: it accepts no more,
// ends streams, finishes the requests inside, flushes the cache and releases the device.
func (s *service) run(ctx context.Context) error {
	e := s.engine
	serving := len(s.sockets.main)
	served := make(chan error, serving)
	for _, ln := range s.sockets.main {
		go func() { served <- s.server.Serve(ln) }()
	}
	serves := []any{"url", s.url(), "listening", s.sockets.main[0].Addr().String(), "model", e.Model()}
	if s.sockets.immich != "" {
		serves = append(serves, "immich", s.sockets.immich)
	}
	e.log.Info("serving", serves...)
	tellSystemd(e.log, daemon.SdNotifyReady+"\nSTATUS="+s.status())

	telling, endTelling := context.WithCancel(context.Background())
	var tells sync.WaitGroup
	besides, endBesides := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for c := e.cfg; ; {
			e.precompute(besides, c)
			select {
			case <-besides.Done():
				return
			case c = <-s.prompts:
			}
		}
	})
	running.Go(func() { s.node.Run(besides) })
	running.Go(func() { feedWatchdog(besides, e.log, s.stuck) })
	if s.admin != nil {
		tells.Go(func() { s.admin.Run(telling) })
	}
	tells.Go(func() { s.streams.notifier.Run(telling) })

	var err error
	select {
	case err = <-served: // a listener failed
		serving--
	case <-ctx.Done():
		c := s.reload.config().Server
		e.log.Info("stopping", "lame_duck", c.LameDuck.String(), "timeout", c.ShutdownTimeout.String())
		tellSystemd(e.log, daemon.SdNotifyStopping+"\nSTATUS=stopping\n"+extendTimeout(c.LameDuck+c.ShutdownTimeout+releaseTime))
		s.node.Leave()
		s.server.LameDuck(context.WithoutCancel(ctx))
	}
	endBesides()
	e.PromptSets().End() // answers those who wait for a set to be encoded
	running.Wait()
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.reload.config().Server.ShutdownTimeout)
	defer cancel()
	err = errors.Join(err, s.server.Shutdown(deadline))
	for range serving {
		err = errors.Join(err, <-served)
	}
	endTelling() // only now: the last events are told, too
	tells.Wait()
	err = errors.Join(err, s.streams.close(deadline), e.Close(deadline))
	e.log.Info("stopped")
	return err
}
