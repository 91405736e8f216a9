package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/go-systemd/v22/daemon"
)

// systemd listens where systemd would, with a watchdog of so many microseconds. told fails the test unless it is told
// these next, one message after the other; what it is told in between and is skip does not count.
func systemd(t *testing.T, watchdog string) (told func(skip string, want ...string)) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", watchdog)
	c := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"}))
	t.Cleanup(func() { c.Close() })
	return func(skip string, want ...string) {
		t.Helper()
		for b := make([]byte, 1000); len(want) > 0; {
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			lines := slices.DeleteFunc(strings.Split(string(b[:n]), "\n"), func(line string) bool {
				return strings.HasPrefix(line, "STATUS=") || strings.HasPrefix(line, "EXTEND_TIMEOUT_USEC=")
			})
			if got := strings.Join(lines, "\n"); got == want[0] {
				want = want[1:]
			} else if got != skip && got != "" {
				t.Fatalf("systemd is told %q, want %q", got, want[0])
			}
		}
	}
}

// TestWatchdog feeds the watchdog while all is well and not while the service is stuck.
func TestWatchdog(t *testing.T) {
	told := systemd(t, "2000")
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	answers, ended := make(chan error), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		feedWatchdog(ctx, logger, func() error { return <-answers })
	}()
	for range 2 {
		answers <- nil
		told("", daemon.SdNotifyWatchdog)
		for range 3 {
			answers <- errors.New("nobody decodes")
		}
		answers <- nil
		told("", daemon.SdNotifyWatchdog)
		tellSystemd(logger, "marker")
		told("", "marker") // so nothing was told while it was stuck
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
	told := systemd(t, "20000")
	r := serve(t, t.TempDir(), "--backend", "cpu")
	told("", daemon.SdNotifyReady, daemon.SdNotifyWatchdog, daemon.SdNotifyWatchdog)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	told(daemon.SdNotifyWatchdog, daemon.SdNotifyStopping) // read on: the service waits where the socket is full
	if <-r.ended; r.cmd.ProcessState.ExitCode() != exitOK {
		t.Errorf("ended with %d", r.cmd.ProcessState.ExitCode())
	}
}
