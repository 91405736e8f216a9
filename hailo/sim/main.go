package sim

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the command npu-sim: a worker process with the descriptors that package wire describes. real
// opens the encoders for --vectors=model; nil: there are none. It returns the exit code.
func Main(args []string, real func() (Encoders, error)) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM) // we end with our socket
	config := Default()
	err := config.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = serve(config, real)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulated chip:", err)
		return 1
	}
	return 0
}

func serve(config Config, real func() (Encoders, error)) (err error) {
	var encoders Encoders
	if config.Vectors == "model" {
		if real == nil {
			return errors.New("vectors model: no real encoders here")
		}
		if encoders, err = real(); err != nil {
			return err
		}
	}
	commanded := newFaults(func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) })
	for _, command := range config.Faults {
		if err := commanded.command(command); err != nil {
			return err
		}
	}
	if config.Control != "" {
		_ = os.Remove(config.Control) // of the worker before us
		l, err := net.Listen("unix", config.Control)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		go listen(l, commanded)
	}
	// From a shell descriptor 3 may be open too, but it is no such socket.
	if kind, err := unix.GetsockoptInt(3, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return errors.New("descriptor 3 is not the socket of hailo-clip: this program is started by hailo-clip, not by hand")
	}
	// Non-blocking, so that a read does not hold a thread.
	if err := unix.SetNonblock(3, true); err != nil {
		return fmt.Errorf("descriptor 3: %w", err)
	}
	c := &chip{Config: config, encoders: encoders, faults: commanded, conn: os.NewFile(3, "socket"), memory: mapFrames}
	return c.run()
}

// mapFrames maps descriptor 4.
func mapFrames(size uint64) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(4, &st); err != nil {
		return nil, fmt.Errorf("descriptor 4: %w", err)
	}
	if size == 0 || st.Size < 0 || size != uint64(st.Size) {
		return nil, fmt.Errorf("%w: frames of %d bytes announced, %d given", errViolation, size, st.Size)
	}
	data, err := unix.Mmap(4, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("descriptor 4: %w", err)
	}
	return data, nil
}

// listen takes commands until the process ends. Each line is answered with "ok" or what was wrong.
func listen(l net.Listener, f *faults) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				answer := "ok"
				if err := f.command(lines.Text()); err != nil {
					answer = err.Error()
				}
				_, _ = io.WriteString(conn, answer+"\n")
			}
		}()
	}
}
