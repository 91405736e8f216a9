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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/npu"
)

// Main is the command npu-sim: a worker process with the descriptors that package npu gives it. With --vectors=model it
// opens the encoders; nil: there are none. It returns the exit code.
func Main(args []string, encoders func() (Encoders, error)) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM) // we end with our socket
	if err := run(args, encoders); err != nil {
		fmt.Fprintln(os.Stderr, "simulated chip:", err)
		return 1
	}
	return 0
}

func run(args []string, encoders func() (Encoders, error)) error {
	c, err := Parse(args, NewFaults(func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) }))
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs := flags(&c)
		fs.SetOutput(os.Stdout)
		fmt.Println("The simulated chip: a worker process that hailo-clip starts, with sim.arguments of the\nconfiguration as further flags.")
		fmt.Println()
		fs.PrintDefaults()
		fmt.Print("\n" + faultsHelp)
		return nil
	case err != nil:
		return err
	case c.Vectors == "model" && encoders == nil:
		return errors.New("vectors model: no real encoders here")
	case c.Vectors == "model":
		if c.Encoders, err = encoders(); err != nil {
			return err
		}
	}
	return serve(c)
}

// flags are those of npu-sim, into c. Their defaults are clip_vit_b_32 on a Hailo-10H.
func flags(c *Config) *flag.FlagSet {
	fs := flag.NewFlagSet("npu-sim", flag.ContinueOnError)
	fs.DurationVar(&c.Cost[npu.ImageModel].Run, "image-run", 12500*time.Microsecond, "time of an image run, besides its frames")
	fs.DurationVar(&c.Cost[npu.ImageModel].Frame, "image-frame", 1420*time.Microsecond, "time of each image in a run")
	fs.DurationVar(&c.Cost[npu.TextModel].Run, "text-run", 11500*time.Microsecond, "time of a text run, besides its texts")
	fs.DurationVar(&c.Cost[npu.TextModel].Frame, "text-frame", 8700*time.Microsecond, "time of each text in a run")
	fs.IntVar(&c.ImageSize, "image-size", 224, "pixels on a side")
	fs.IntVar(&c.Dimension, "dimension", 512, "numbers in an image embedding")
	fs.IntVar(&c.ContextLength, "context-length", 77, "tokens of a text")
	fs.IntVar(&c.Width, "width", 512, "numbers in a token embedding")
	fs.StringVar(&c.format, "output", "uint8", "format of the outputs: uint8, uint16 or float32")
	fs.StringVar(&c.Vectors, "vectors", "hash", "hash: from the bytes of the input; model: from the real encoders")
	fs.StringVar(&c.control, "control", "", "unix socket that takes faults, one a line")
	fs.Func("fault", "a `fault` from the start on, see below; may be repeated", func(s string) error { return c.Faults.Command(s) })
	fs.SetOutput(io.Discard) // a wrong flag is one line in the host's log and not the whole help
	return fs
}

// Parse reads the flags of npu-sim, and has no other effect than on faults. flag.ErrHelp is for --help.
func Parse(args []string, faults *Faults) (Config, error) {
	c := Config{Faults: faults}
	if err := flags(&c).Parse(args); err != nil {
		return c, err
	}
	formats := map[string]uint32{"uint8": npu.FormatUint8, "uint16": npu.FormatUint16, "float32": npu.FormatFloat32}
	var ok bool
	if c.Output, ok = formats[c.format]; !ok {
		return c, fmt.Errorf("output %q, want uint8, uint16 or float32", c.format)
	}
	if c.Vectors != "hash" && c.Vectors != "model" {
		return c, fmt.Errorf("vectors %q, want hash or model", c.Vectors)
	}
	for name, n := range map[string]int{"image-size": c.ImageSize, "dimension": c.Dimension, "context-length": c.ContextLength, "width": c.Width} {
		if n < 1 || n > 1024 {
			return c, fmt.Errorf("%s %d is out of bounds: 1 to 1024", name, n)
		}
	}
	for _, cost := range c.Cost {
		if cost.Run < 0 || cost.Frame < 0 {
			return c, errors.New("a run cannot take less than no time")
		}
	}
	return c, nil
}

// TextVectors names what decides the vectors of a text; those of chips that differ in it must not mix.
func (c Config) TextVectors() string { return strings.TrimSuffix(c.Vectors+"/"+c.format, "/uint8") }

func serve(config Config) error {
	if control := config.control; control != "" {
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
