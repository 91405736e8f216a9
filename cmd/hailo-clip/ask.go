package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/api"
	"hailoclip/api/access"
	"hailoclip/api/client"
	"hailoclip/cache/sets"
	"hailoclip/configs"
)

// asks are the flags of commands that ask a service.
type asks struct {
	keyFlag
	URL string `name:"url" placeholder:"URL" help:"Service to ask, or unix:PATH. Default: the one that serves this state folder, at server.port, else one for this command alone."`
}

// service calls work with a client of the service that has the prompt sets of the state folder. Where none runs it is
// started for the command: on a port of this machine's own address, with the same limits.
func (a asks) service(ctx context.Context, g *globals, work func(*client.Client) error) error {
	url := a.URL
	if err := noStart(url, g); err != nil {
		return err
	}
	key, err := a.key()
	if err != nil {
		return err
	}
	o := client.Options{Key: key}
	if url == "" {
		p, err := g.place()
		if err != nil {
			return err
		}
		if url, err = p.served(ctx); err != nil {
			return err
		} else if url == "" {
			return g.serve(ctx, work)
		}
		o.HTTP = p.cfg.Server.OwnClient()
	}
	return askAt(url, o, work)
}

// askAt calls work with a client of the service at url.
func askAt(url string, o client.Options, work func(*client.Client) error) error {
	c, err := client.New(url, o)
	if err != nil {
		return usageError{fmt.Errorf("--url: %w", err)}
	}
	defer c.Close()
	return work(c)
}

// askOwn calls work with a client of the service on the configured address, and a context of one second.
func askOwn(ctx context.Context, c api.Config, work func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	o := client.Options{HTTP: c.OwnClient(), Key: os.Getenv(configs.KeyVariable), Retries: -1}
	return askAt(c.URL(), o, func(service *client.Client) error { return work(ctx, service) })
}

// askHealth says whether a hailo-clip answers on the configured address, well or not.
func askHealth(ctx context.Context, c api.Config) (h client.Health, ok bool) {
	err := askOwn(ctx, c, func(ctx context.Context, service *client.Client) (err error) {
		h, err = service.Health(ctx)
		return err
	})
	return h, err == nil && h.Service == "hailo-clip"
}

// served is the URL of the service that has the prompt sets of the state folder; "" where none runs. It is known by the locks
// on its files: that of the sets, which is there from the first set on, and that of the prompt cache.
func (p place) served(ctx context.Context) (url string, err error) {
	held := ""
	for _, path := range []string{filepath.Join(p.state, sets.FileName), p.cfg.TextEmbedding.Path(p.state)} {
		if is, err := locked(path); err != nil {
			return "", err
		} else if is && held == "" {
			held = path
		}
	}
	url = p.cfg.Server.URL()
	_, answers := askHealth(ctx, p.cfg.Server)
	switch {
	case held != "" && answers:
		return url, nil
	case held != "":
		return "", fmt.Errorf("%s is held by another hailo-clip, which is not a service at %s: give its address with --url, "+
			"or wait for its end", held, url)
	case answers:
		complain("hailo-clip: the service at %s has another state folder than %s; to ask that one, give --url %s",
			url, p.state, url)
	}
	return "", nil
}

// locked says whether another process holds a file, or another user has it; nobody holds one that is not there, nor "".
func locked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, fs.ErrPermission):
		return true, nil
	case err != nil:
		return false, err
	}
	defer f.Close() // and unlock
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// serve serves for as long as work takes, with a key that nobody else has.
func (g *globals) serve(ctx context.Context, work func(*client.Client) error) error {
	p, err := g.place(
		configs.Override{Key: "server.host", Value: "127.0.0.1", Source: "the command"},
		configs.Override{Key: "server.port", Value: "0", Source: "the command"},
		configs.Override{Key: "admin.listen", Value: "", Source: "the command"},
	)
	if err != nil {
		return err
	}
	p.quiet()
	key := access.NewKey()
	p.cfg.Server.TLS, p.cfg.Server.Socket = api.TLS{}, ""
	p.cfg.Access.Keys = []access.Key{{Name: "command", Hash: access.Sum([]byte(key)), Manage: true}}
	s, err := newService(ctx, p, stderr.logger(p.cfg.Logging), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // the end of ctx ends work first
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.run(serving) }()
	err = askAt(s.url(), client.Options{Key: key}, work)
	stop()
	return errors.Join(err, <-served)
}
