package device

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

// MaxLog is how many bytes of the kernel's log are looked at.
const MaxLog = 1 << 20

// Access asks the kernel, device cgroup included, whether this process may read and write a file, without opening it.
func Access(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
}

// KernelLog returns what dmesg prints, with the priority before each line.
func KernelLog(context.Context) ([]byte, error) {
	b := make([]byte, MaxLog)
	n, err := syscall.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if errors.Is(err, syscall.EPERM) {
		return nil, errors.New("only root may")
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// Command runs a program for at most 5 s, and returns the start of its output. What it keeps open is given up too.
func Command(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
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
