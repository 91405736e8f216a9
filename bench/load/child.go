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
	log   *os.File // what it writes to standard error; a file, so that reading it costs us nothing
	ended chan struct{}
}

// StartChild starts the command, a service that logs JSON, one object a line, to standard error,
// and one with msg "serving" and its url when it serves. It blocks until then, and fails when the
// process ends before or ctx ends. Stop it after use; it ends with this process in any case.
func StartChild(ctx context.Context, cmd *exec.Cmd) (c *Child, err error) {
	c = &Child{cmd: cmd, ended: make(chan struct{})}
	if c.log, err = os.CreateTemp("", "hailo-clip-bench-*.log"); err != nil {
		return nil, err
	}
	_ = os.Remove(c.log.Name()) // the open file is all we need, and nothing is left when we are killed
	cmd.Stderr = c.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true} // Ctrl-C is ours: we stop it in order
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, c.log.Close())
	}
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // the code is in ProcessState
	}()
	for {
		if c.URL = c.serving(); c.URL != "" {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), c.Stop())
		case <-c.ended:
			err := fmt.Errorf("the service ended at its start (%v):\n%s", cmd.ProcessState, c.tail())
			return nil, errors.Join(err, c.log.Close())
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

// tail is the end of the log.
func (c *Child) tail() []byte {
	const most = 2000
	info, err := c.log.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, min(most, info.Size()))
	n, _ := c.log.ReadAt(b, info.Size()-int64(len(b)))
	return bytes.TrimSpace(b[:n])
}

// Stop ends the service as systemd does, kills it after 30 seconds, and returns an error with
// the end of its log when it ended by itself or did not end well.
func (c *Child) Stop() error {
	defer c.log.Close()
	select {
	case <-c.ended:
		return fmt.Errorf("the service ended by itself (%v):\n%s", c.cmd.ProcessState, c.tail())
	default:
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails when it is gone already
	select {
	case <-c.ended:
	case <-time.After(30 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
	if !c.cmd.ProcessState.Success() {
		return fmt.Errorf("the service did not end well (%v):\n%s", c.cmd.ProcessState, c.tail())
	}
	return nil
}
