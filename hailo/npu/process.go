package npu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/npu/wire"
)

// process is a worker process and our end of its socket.
type process struct {
	conn   *os.File
	cmd    *exec.Cmd
	stderr *lineLog
	exited chan struct{}            // closed when the process has been reaped: it can write to no frame any more
	err    error                    // how it ended; read after exited
	packet [wire.MaxPacket + 1]byte // longer than any, so that nothing is cut
}

// startProcess starts the worker with its socket as descriptor 3 and the memory as 4. The
// caller must stop it and close conn. One process at a time uses a lineLog.
func startProcess(command []string, memory *os.File, stderr *lineLog) (*process, error) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &process{
		conn:   ours,
		cmd:    exec.Command(command[0], command[1:]...),
		stderr: stderr,
		exited: make(chan struct{}),
	}
	stderr.next()
	p.cmd.Stderr = stderr
	p.cmd.ExtraFiles = []*os.File{theirs, memory}
	// The library writes its log to stderr, and nowhere else: not to files wherever we run or in
	// anybody's home, and not to the system's log too.
	p.cmd.Env = append(os.Environ(), "HAILORT_LOGGER_PATH=NONE", "HAILORT_LOGGER_PRINT_TO_SYSLOG=0")
	p.cmd.WaitDelay = time.Second // for whoever else holds its stderr
	// Ctrl-C in a terminal must not take the device away while we drain. When this process dies the
	// worker sees it by the socket, and has time to let go of the device.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		p.conn.Close()
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.stderr.flush()
		close(p.exited)
	}()
	return p, nil
}

// leave asks the process to let go of the device and end, by closing our side of its socket. What it
// says until then can still be received, for as long as it has. It does not block, and ends a send
// that does.
func (p *process) leave() {
	if raw, err := p.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
	_ = p.conn.SetWriteDeadline(time.Now())
	_ = p.conn.SetReadDeadline(time.Now().Add(leaveLimit))
}

// stop ends the process and waits for its end. It is asked to leave, and killed when it does not within the
// limit, or when the chip is silent and could not be told anyway: a worker that is killed leaves objects behind in
// the chip's server. One that the kill does not end is stuck in the kernel: stuck is called, and it is waited for
// until ctx ends, false.
func (p *process) stop(ctx context.Context, silent bool, stuck func()) bool {
	p.leave()
	if !silent && p.ends(leaveLimit) {
		return true
	}
	_ = p.cmd.Process.Kill() // it may have ended already
	if p.ends(reapLimit) {
		return true
	}
	p.stderr.log.Error("npu: the worker was killed and does not end, it may be stuck in the driver", "pid", p.cmd.Process.Pid)
	stuck()
	return p.reap(ctx)
}

// reap waits for the end of the process; false: ctx ended first.
func (p *process) reap(ctx context.Context) bool {
	select {
	case <-p.exited:
	case <-ctx.Done():
	}
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// ends waits for the end of the process, no longer than the limit.
func (p *process) ends(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return p.reap(ctx)
}

// errSocket marks errors of the socket, which say less than how the process ended.
var errSocket = errors.New("worker socket")

// send writes a message. It blocks while the socket is full; leave ends that.
func (p *process) send(m wire.Message) error {
	if _, err := p.conn.Write(wire.Append(make([]byte, 0, 64), m)); err != nil {
		return fmt.Errorf("%w: %w", errSocket, err)
	}
	return nil
}

// receive reads a message; the end of the worker's side is an errSocket too. One reader at a time.
func (p *process) receive() (wire.Message, error) {
	n, err := p.conn.Read(p.packet[:])
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSocket, err)
	}
	return wire.Parse(p.packet[:n])
}

// describe is how the process ended, with its last line.
func (p *process) describe() string {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return strings.TrimSuffix(how+": "+p.stderr.lastLine(), ": ")
}
