package npu

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a worker process and our end of its socket.
type process struct {
	conn   *os.File
	cmd    *exec.Cmd
	stderr *lineLog
	exited chan struct{} // closed when the process has been reaped: it can write to no frame any more
	err    error         // how it ended; read after exited
}

// startProcess starts the worker with its socket as descriptor 3 and the memory as 4. The
// caller must kill it, wait for exited and close conn.
func startProcess(command []string, memory *os.File, log *slog.Logger) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker socket")
	defer theirs.Close()
	if err := unix.SetNonblock(pair[0], true); err != nil {
		_ = unix.Close(pair[0])
		return nil, fmt.Errorf("socket: %w", err)
	}
	p := &process{
		conn:   os.NewFile(uintptr(pair[0]), "npu socket"), // non-blocking, so that deadlines work
		cmd:    exec.Command(command[0], command[1:]...),
		stderr: &lineLog{log: log},
		exited: make(chan struct{}),
	}
	p.cmd.Stderr = p.stderr
	p.cmd.ExtraFiles = []*os.File{theirs, memory}
	p.cmd.Env = append(os.Environ(), "HAILORT_LOGGER_PATH=NONE") // or the library writes files wherever we run
	p.cmd.WaitDelay = time.Second                                // for whoever else holds its stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // Ctrl-C in a terminal must not take the device away while we drain
	}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that started the process ends, so it stays ours.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = p.cmd.Wait()
		p.stderr.flush()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		p.conn.Close()
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	return p, nil
}

// kill ends the process at once. It does not wait for exited.
func (p *process) kill() { _ = p.cmd.Process.Kill() } // it may have ended already

// reap waits for the end of a process that was killed and is stuck in the kernel; false: ctx ended first.
func (p *process) reap(ctx context.Context) bool {
	select {
	case <-p.exited:
		return true
	case <-ctx.Done():
		return false
	}
}

// reapSoon waits no longer than the limit.
func (p *process) reapSoon() bool {
	timer := time.NewTimer(reapLimit)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return false
	}
}

// send writes a message. It blocks while the socket is full; a kill ends that.
func (p *process) send(m message) error {
	_, err := p.conn.Write(Append(make([]byte, 0, 64), m))
	return err
}

// receive reads a message into buf, which is longer than MaxPacket, so that nothing is cut.
// io.EOF: the worker has closed its end.
func (p *process) receive(buf []byte) (message, error) {
	n, err := p.conn.Read(buf)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	return Parse(buf[:n])
}

// describe is how the process ended, with its last words.
func (p *process) describe() string {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	if last := p.stderr.lastLine(); last != "" {
		return how + ": " + last
	}
	return how
}

const (
	maxLogLine  = 400 // bytes of a line of the worker that are kept
	maxLogBurst = 50  // lines of the worker that are logged in maxLogEvery
	maxLogEvery = 10 * time.Second
)

// lineLog logs what the worker writes to stderr, in lines, neither long nor many.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	line    []byte // of the line that has not ended yet, at most maxLogLine
	last    string
	window  time.Time
	lines   int // logged since window
	dropped int
}

// Write never fails: a worker must not die because of its log.
func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		l.line = append(l.line, part[:min(len(part), maxLogLine-len(l.line))]...)
		if ended {
			l.emit()
		}
		rest = after
	}
	return len(b), nil
}

func (l *lineLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.emit()
}

func (l *lineLog) emit() {
	text := string(bytes.ToValidUTF8(bytes.TrimSpace(l.line), []byte("?")))
	l.line = l.line[:0]
	if text == "" {
		return
	}
	l.last = text
	if now := time.Now(); now.Sub(l.window) > maxLogEvery {
		if l.dropped > 0 {
			l.log.Warn("npu worker: lines left out", "lines", l.dropped)
		}
		l.window, l.lines, l.dropped = now, 0, 0
	}
	if l.lines++; l.lines > maxLogBurst {
		l.dropped++
		return
	}
	l.log.Info("npu worker", "line", text)
}

func (l *lineLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
