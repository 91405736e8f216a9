package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Child is a service that runs for a measurement, in a process of its own.
type Child struct {
	URL   string
	cmd   *exec.Cmd
	stop  context.CancelFunc
	log   *os.File // what it writes to standard error; a file, so that reading it costs us nothing
	ended chan struct{}
}

// StartChild starts the program, a service that logs JSON, one object a line, to standard error,
// and one with msg "serving" and its url when it serves. It blocks until then, and fails when the
// process ends before or ctx ends. Stop it after use; it ends with this process in any case.
func StartChild(ctx context.Context, environment []string, program string, args ...string) (c *Child, err error) {
	c = &Child{ended: make(chan struct{})}
	if c.log, err = os.CreateTemp("", "hailo-clip-bench-*.log"); err != nil {
		return nil, err
	}
	_ = os.Remove(c.log.Name()) // the open file is all we need, and nothing is left when we are killed
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.cmd, c.stop = exec.CommandContext(running, program, args...), stop
	c.cmd.Env, c.cmd.Stderr = environment, c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true} // Ctrl-C is ours: we stop it in order
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 30 * time.Second // then it is killed
	if err := c.cmd.Start(); err != nil {
		stop()
		return nil, errors.Join(err, c.log.Close())
	}
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait() // the code is in ProcessState
	}()
	for {
		if c.URL = c.serving(); c.URL != "" {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), c.Stop())
		case <-c.ended:
			return nil, c.failed("ended at its start")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// maxStartLog is how much of the log the line may come in.
const maxStartLog = 1 << 20

// serving looks for the line in the log.
func (c *Child) serving() string {
	lines := bufio.NewScanner(io.NewSectionReader(c.log, 0, maxStartLog))
	lines.Buffer(nil, maxStartLog)
	for lines.Scan() {
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			return line.URL
		}
	}
	return ""
}

// failed is an error with the end of the log, which it closes.
func (c *Child) failed(what string) error {
	defer c.stop()
	defer c.log.Close()
	end, _ := c.log.Seek(0, io.SeekEnd)
	log := make([]byte, min(end, 2000))
	n, _ := c.log.ReadAt(log, end-int64(len(log)))
	return fmt.Errorf("the service %s (%v):\n%s", what, c.cmd.ProcessState, bytes.TrimSpace(log[:n]))
}

// Stop ends the service as systemd does, kills it after 30 seconds, and returns an error with
// the end of its log when it ended by itself or did not end well.
func (c *Child) Stop() error {
	select {
	case <-c.ended:
		return c.failed("ended by itself")
	default:
	}
	c.stop()
	<-c.ended
	if !c.cmd.ProcessState.Success() {
		return c.failed("did not end well")
	}
	return c.log.Close()
}
