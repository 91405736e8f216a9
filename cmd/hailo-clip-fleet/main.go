// Command hailo-clip-fleet is the broker of a fleet: a NATS server with JetStream. "hailo-clip fleet serve" runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/term"

	"hailoclip/api/fleet/broker"
	"hailoclip/api/fleet/broker/flags"
	"hailoclip/api/fleet/members"
)

// version is set by the Makefile.
var version = ""

type cli struct {
	flags.Serve
	Version kong.VersionFlag `help:"Print the version."`
}

func main() {
	var c cli
	kong.Parse(&c, kong.Name("hailo-clip-fleet"), kong.Vars{"version": "hailo-clip-fleet " + programVersion()},
		kong.Description(`The broker of a fleet of hailo-clip services: a NATS server with JetStream. "hailo-clip fleet --help" has the commands around it.`))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	log := logger(c.LogLevel, c.LogFormat)
	if err := run(ctx, c.Serve, log); err != nil {
		fmt.Fprintln(os.Stderr, "hailo-clip-fleet:", err)
		os.Exit(exitCode(err))
	}
}

// usageError is a mistake in the flags.
type usageError struct{ error }

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

func run(ctx context.Context, s flags.Serve, log *slog.Logger) error {
	c, err := config(s, log)
	if err != nil {
		return usageError{err}
	}
	log.Info("starting", "version", programVersion(), "store", c.Dir)
	if c.SyncInterval < 0 {
		log.Warn("every message is synced before it counts as stored: a power cut loses nothing, and an SD card takes some 17 images/s and wears out")
	} else {
		log.Info("what is stored is synced after a while: a power cut can lose what came in that time, which is sent again by \"hailo-clip index\"",
			"sync_interval", s.SyncInterval)
	}
	if !c.Secure {
		log.Info("no TLS and no keys: whoever may run programs on this host may use the broker")
	}
	b, err := broker.Start(c)
	if err != nil {
		return err
	}
	log.Info("serving", "url", b.URL(), "leaves", b.LeavesURL(), "cluster", b.ClusterAddress(), "max_payload", broker.MaxPayload)
	notify(log, daemon.SdNotifyReady+"\nSTATUS=nodes connect to "+b.URL())
	<-ctx.Done()
	log.Info("stopping")
	notify(log, daemon.SdNotifyStopping)
	b.Close()
	log.Info("stopped")
	return nil
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
}

// config is what the flags say.
func config(s flags.Serve, log *slog.Logger) (c broker.Config, err error) {
	if c.Dir, err = store(s.Store); err != nil {
		return c, err
	}
	var problems [5]error
	c.Host, c.Port, problems[0] = flags.Address("--listen", s.Listen)
	c.LeavesHost, c.LeavesPort, problems[1] = flags.Address("--leaves", s.Leaves)
	c.ClusterHost, c.ClusterPort, problems[2] = flags.Address("--cluster", s.Cluster)
	c.SyncInterval, problems[3] = s.Sync()
	c.MaxStore, problems[4] = s.Bytes()
	if err := errors.Join(problems[:]...); err != nil {
		return c, err
	}
	if c.Port == 0 {
		return c, errors.New("--listen is empty: write host:port")
	}
	if s.Credentials != "" {
		own, warning, err := members.ReadFile(s.Credentials)
		if err != nil {
			return c, err
		}
		if warning != "" {
			log.Warn(warning)
		}
		c.Leaf = &own
	}
	c.Name, c.Domain, c.Advertise, c.LeafOf, c.Routes, c.Log = s.Name, s.Domain, s.Advertise, s.LeafOf, s.Routes, log
	c.Secure = s.Secure || !broker.Loopback(c.Host) || s.Leaves != "" && !broker.Loopback(c.LeavesHost) || s.Cluster != "" && !broker.Loopback(c.ClusterHost)
	return c, nil
}

// store is the folder: that of --store, of the unit, or one in the user's cache folder, as hailo-clip has it.
func store(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if unit, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); unit != "" {
		return unit, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the streams: %w; give one with --store", err)
	}
	return filepath.Join(cache, "hailo-clip", "fleet"), nil
}

// logger writes to standard error: JSON, or text on a terminal, as hailo-clip does.
func logger(level, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "error": slog.LevelError,
	}[level]}
	if format == "json" || format == "auto" && !term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// programVersion is the Makefile's, or what "go install" knows.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
