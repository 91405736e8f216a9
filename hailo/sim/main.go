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
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/npu"
)

// Main is the command npu-sim: a worker process with the descriptors that package npu gives
// it. The encoders are used with --vectors model. It returns the exit code.
func Main(args []string, encoders Encoders) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM) // we end with our socket
	faults := NewFaults(func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) })
	config, control, err := parse(args, encoders, faults)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = serve(config, control)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulated chip:", err)
		return 1
	}
	return 0
}

// parse reads the flags. Their defaults are clip_vit_b_32 on a Hailo-10H.
func parse(args []string, encoders Encoders, faults *Faults) (Config, string, error) {
	c := Config{Faults: faults}
	fs := flag.NewFlagSet("npu-sim", flag.ContinueOnError)
	fs.DurationVar(&c.Cost[npu.ImageModel].Run, "image-run", 12500*time.Microsecond, "time of an image run, besides its frames")
	fs.DurationVar(&c.Cost[npu.ImageModel].Frame, "image-frame", 1420*time.Microsecond, "time of each image in a run")
	fs.DurationVar(&c.Cost[npu.TextModel].Run, "text-run", 11500*time.Microsecond, "time of a text run, besides its texts")
	fs.DurationVar(&c.Cost[npu.TextModel].Frame, "text-frame", 8700*time.Microsecond, "time of each text in a run")
	fs.IntVar(&c.ImageSize, "image-size", 224, "pixels on a side")
	fs.IntVar(&c.Dimension, "dimension", 512, "numbers in an image embedding")
	fs.IntVar(&c.ContextLength, "context-length", 77, "tokens of a text")
	fs.IntVar(&c.Width, "width", 512, "numbers in a token embedding")
	format := fs.String("output", "uint8", "format of the outputs: uint8, uint16 or float32")
	vectors := fs.String("vectors", "hash", "hash: from the bytes of the input; model: from the real encoders")
	control := fs.String("control", "", "unix socket that takes faults, one a line")
	fs.Func("fault", "a `fault` from the start on, see below; may be repeated", faults.Command)
	fs.SetOutput(io.Discard) // a wrong flag is one line in the host's log and not the whole help
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(os.Stdout)
			fmt.Println("The simulated chip: a worker process that hailo-clip starts, with sim.arguments of the\nconfiguration as further flags.")
			fmt.Println()
			fs.PrintDefaults()
			fmt.Print("\n" + faultsHelp)
		}
		return c, "", err
	}
	switch *format {
	case "uint8":
		c.Output = npu.FormatUint8
	case "uint16":
		c.Output = npu.FormatUint16
	case "float32":
		c.Output = npu.FormatFloat32
	default:
		return c, "", fmt.Errorf("output %q, want uint8, uint16 or float32", *format)
	}
	switch *vectors {
	case "hash":
	case "model":
		if encoders.Image == nil || encoders.Text == nil {
			return c, "", errors.New("vectors model: no real encoders here")
		}
		c.Encoders = encoders
	default:
		return c, "", fmt.Errorf("vectors %q, want hash or model", *vectors)
	}
	for name, n := range map[string]int{"image-size": c.ImageSize, "dimension": c.Dimension, "context-length": c.ContextLength, "width": c.Width} {
		if n < 1 || n > 1024 {
			return c, "", fmt.Errorf("%s %d is out of bounds: 1 to 1024", name, n)
		}
	}
	for _, cost := range c.Cost {
		if cost.Run < 0 || cost.Frame < 0 {
			return c, "", errors.New("a run cannot take less than no time")
		}
	}
	return c, *control, nil
}

func serve(config Config, control string) error {
	if control != "" {
		_ = os.Remove(control) // of the worker before us
		l, err := net.Listen("unix", control)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		go listen(l, config.Faults)
	}
	// From a shell descriptor 3 may be open too, but it is no such socket.
	if kind, err := unix.GetsockoptInt(3, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return errors.New("descriptor 3 is not the socket of hailo-clip: this program is started by hailo-clip, not by hand")
	}
	// Non-blocking, so that a read does not hold a thread.
	if err := unix.SetNonblock(3, true); err != nil {
		return fmt.Errorf("descriptor 3: %w", err)
	}
	c := &chip{Config: config, conn: os.NewFile(3, "socket"), memory: mapFrames}
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
func listen(l net.Listener, faults *Faults) {
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
				if err := faults.Command(lines.Text()); err != nil {
					answer = err.Error()
				}
				_, _ = io.WriteString(conn, answer+"\n")
			}
		}()
	}
}
