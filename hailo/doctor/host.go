package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host returns the Env of the machine that this process runs on, without Version, Backend,
// Worker, Service, Models and Extra, which the caller knows.
func Host() Env {
	gids, _ := os.Getgroups()
	return Env{
		Root: "/", UID: os.Geteuid(), GIDs: append(gids, os.Getegid()),
		Access: access, KernelLog: kernelLog, Command: command,
	}
}

// access asks the kernel, device cgroup included, without opening the file.
func access(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
}

// kernelLog returns what dmesg prints, with the priority before each line.
func kernelLog(context.Context) ([]byte, error) {
	b := make([]byte, maxLog)
	n, err := syscall.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if errors.Is(err, syscall.EPERM) {
		return nil, errors.New("only root may")
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// command runs a program; it and what it keeps open is given up when ctx ends.
func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out limited
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.WaitDelay = &out, time.Second
	cmd.Env = append(os.Environ(), "HAILORT_LOGGER_PATH=NONE") // or hailortcli writes a log into the current folder
	err := cmd.Run()
	return out.b.Bytes(), err
}

// limited keeps the first 64 KiB of what is written and drops the rest. The buffer is not
// embedded: its ReadFrom would go around the limit.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), maxRead-l.b.Len())])
	return len(p), nil
}
