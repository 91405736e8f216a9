package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/go-systemd/v22/daemon"
)

// systemd listens where systemd would, and returns what it is told, one message after the other.
func systemd(t *testing.T) (socket string, next func() string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return socket, func() string {
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// TestWatchdog feeds the watchdog while all is well and not while the service is stuck.
func TestWatchdog(t *testing.T) {
	socket, next := systemd(t)
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "2000")
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	answers, ended := make(chan error), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		feedWatchdog(ctx, logger, func() error { return <-answers })
	}()
	wantNext := func(want string) {
		t.Helper()
		if got := next(); got != want {
			t.Errorf("systemd is told %q, want %q", got, want)
		}
	}
	for range 2 {
		answers <- nil
		wantNext(daemon.SdNotifyWatchdog)
		for range 3 {
			answers <- errors.New("nobody decodes")
		}
		answers <- nil
		wantNext(daemon.SdNotifyWatchdog)
		notify(logger, "marker")
		wantNext("marker") // so nothing was told while it was stuck
	}
	cancel()
	close(answers)
	<-ended
	if n := strings.Count(log.String(), "nobody decodes"); n != 2 {
		t.Errorf("%d complaints: %s", n, log.String())
	}
}

// TestServiceNotifies is a service that systemd started: ready, alive while idle, stopping.
func TestServiceNotifies(t *testing.T) {
	socket, next := systemd(t)
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "20000")
	r := serve(t, t.TempDir(), "--backend", "cpu")
	for _, want := range []string{daemon.SdNotifyReady, daemon.SdNotifyWatchdog, daemon.SdNotifyWatchdog} {
		if got := next(); got != want {
			t.Errorf("systemd is told %q, want %q", got, want)
		}
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	got := next()
	for got == daemon.SdNotifyWatchdog { // read on: the service waits where the socket is full
		got = next()
	}
	if got != daemon.SdNotifyStopping {
		t.Errorf("systemd is told %q", got)
	}
	if <-r.ended; r.cmd.ProcessState.ExitCode() != exitOK {
		t.Errorf("ended with %d", r.cmd.ProcessState.ExitCode())
	}
}
