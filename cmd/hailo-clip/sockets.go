package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"hailoclip/api"
	"hailoclip/configs"
)

// sockets are what a service listens on.
type sockets struct {
	main   []net.Listener // of the REST interface: at least one; and of what is served of it on others
	admin  net.Listener   // of metrics and profiles, handed over by systemd; nil: none
	immich string         // address of Immich's own, which is in main; "": it has none
}

// openSockets returns the sockets that systemd hands over or, where there is none to serve requests, one on the port; and the Unix
// socket and Immich's listener of the configuration. FileDescriptorName= says what a socket of systemd is for: "http", as is one without a name, or
// "admin". The caller closes them with dismiss, or has them served.
func openSockets(cfg configs.Config, log *slog.Logger) (all sockets, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, all.dismiss(cfg.Server))
		}
	}()
	for _, f := range activation.Files(true) { // true: no process that we start inherits them
		name := f.Name()
		isMain := name == "http" || strings.HasSuffix(name, ".socket") || strings.HasPrefix(name, "LISTEN_FD_")
		if !isMain && (name != "admin" || all.admin != nil) {
			log.Warn("a socket that systemd has handed over is not used: its name must be http or admin", "name", name)
			f.Close()
			continue
		}
		ln, err := net.FileListener(f)
		f.Close() // ln has a descriptor of its own
		if err != nil {
			return all, fmt.Errorf("connections cannot be accepted from the socket %q of systemd: %w", name, err)
		}
		ln = api.Handed{Listener: ln}
		log.Info("a socket of systemd is used", "name", name, "listening", ln.Addr().String())
		if isMain {
			all.main = append(all.main, ln)
		} else {
			all.admin = ln
		}
	}
	if len(all.main) == 0 {
		ln, err := listen(cfg.Server)
		if err != nil {
			return all, err
		}
		all.main = []net.Listener{api.Starting(ln)}
	}
	isOpen := func(ln net.Listener) bool { return ln.Addr().String() == cfg.Server.Socket }
	if cfg.Server.Socket != "" && !slices.ContainsFunc(all.main, isOpen) {
		ln, err := cfg.Server.ListenSocket()
		if err != nil {
			return all, err
		}
		log.Info("a Unix socket is open, too", "path", cfg.Server.Socket)
		all.main = append(all.main, api.Starting(ln))
	}
	if immich := cfg.Compat.Immich; immich.Enabled && immich.Listen != "" {
		ln, err := api.ListenForImmich(immich)
		if err != nil {
			return all, err
		}
		all.main, all.immich = append(all.main, ln), ln.Addr().String()
	}
	return all, nil
}

// dismiss closes the sockets of a service that has not served, see api.Config.Dismiss.
func (s sockets) dismiss(c api.Config) (err error) {
	for _, ln := range s.main {
		err = errors.Join(err, c.Dismiss(ln))
	}
	if s.admin != nil {
		err = errors.Join(err, s.admin.Close())
	}
	return err
}

// listen takes the port. Doctor tries it too.
func listen(c api.Config) (net.Listener, error) {
	ln, err := c.Listen()
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; is another hailo-clip running? choose another port with --port", err)
	}
	return ln, err
}
