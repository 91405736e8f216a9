package sim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"hailoclip/hailo/npu/wire"
)

// Config is what a simulated chip is. [Default] gives clip_vit_b_32 on a Hailo-10H.
type Config struct {
	Cost          [wire.Models]Cost // of the image and of the text model
	ImageSize     int               // pixels on a side
	Dimension     int               // of the image output
	ContextLength int               // rows of the text input and output
	Width         int               // numbers in such a row
	Output        string            // format of both outputs: uint8, uint16, float32; the text input is UINT16, as in the HEF
	Vectors       string            // "hash": from the bytes of the input; "model": from real encoders
	Faults        []string          // commands that hold from the start on, see faultsHelp
	Control       string            // path of a unix socket that takes such commands, one a line; "": none
}

// Cost is the time that a run of n frames takes: Run + n * Frame.
type Cost struct{ Run, Frame time.Duration }

// CostOf is the cost of an encoder that takes so many items per second in runs of one and of eight; those of
// package model's Rate.
func CostOf(batch1, batch8 float64) Cost {
	one, eight := float64(time.Second)/batch1, 8*float64(time.Second)/batch8
	frame := (eight - one) / 7
	return Cost{Run: max(0, time.Duration(one-frame)), Frame: max(0, time.Duration(frame))}
}

// Batch8 is how many items per second that is in runs of eight.
func (c Cost) Batch8() float64 { return 8 / (c.Run + 8*c.Frame).Seconds() }

// formats are the names of those of package wire.
var formats = []string{wire.FormatUint8: "uint8", wire.FormatUint16: "uint16", wire.FormatFloat32: "float32"}

// Default returns the chip that the vendor's figures describe.
func Default() Config {
	return Config{
		Cost: [wire.Models]Cost{
			wire.ImageModel: {Run: 12500 * time.Microsecond, Frame: 1420 * time.Microsecond},
			wire.TextModel:  {Run: 11500 * time.Microsecond, Frame: 8700 * time.Microsecond},
		},
		ImageSize: 224, Dimension: 512, ContextLength: 77, Width: 512, Output: formats[wire.FormatUint8], Vectors: "hash",
	}
}

// flags binds c to the flags of the command npu-sim; their defaults are what c says now.
func (c *Config) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("npu-sim", flag.ContinueOnError)
	image, text := &c.Cost[wire.ImageModel], &c.Cost[wire.TextModel]
	fs.DurationVar(&image.Run, "image-run", image.Run, "time of an image run, besides its frames")
	fs.DurationVar(&image.Frame, "image-frame", image.Frame, "time of each image in a run")
	fs.DurationVar(&text.Run, "text-run", text.Run, "time of a text run, besides its texts")
	fs.DurationVar(&text.Frame, "text-frame", text.Frame, "time of each text in a run")
	fs.IntVar(&c.ImageSize, "image-size", c.ImageSize, "pixels on a side")
	fs.IntVar(&c.Dimension, "dimension", c.Dimension, "numbers in an image embedding")
	fs.IntVar(&c.ContextLength, "context-length", c.ContextLength, "tokens of a text")
	fs.IntVar(&c.Width, "width", c.Width, "numbers in a token embedding")
	fs.StringVar(&c.Output, "output", c.Output, "format of the outputs: uint8, uint16 or float32")
	fs.StringVar(&c.Vectors, "vectors", c.Vectors, "hash: from the bytes of the input; model: from the real encoders")
	fs.StringVar(&c.Control, "control", c.Control, "unix socket that takes faults, one a line")
	fs.Func("fault", "a `fault` from the start on, see below; may be repeated", func(line string) error {
		c.Faults = append(c.Faults, line)
		return newFaults(func() {}).command(line)
	})
	return fs
}

// Parse changes c by flags of the command npu-sim. With --help among them it prints what there is and
// returns flag.ErrHelp.
func (c *Config) Parse(args []string) error {
	fs := c.flags()
	fs.SetOutput(io.Discard) // a wrong flag is one line in the host's log and not the whole help
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(os.Stdout)
		fmt.Println("The simulated chip: a worker process that hailo-clip starts, with sim.arguments of the\nconfiguration as further flags.")
		fmt.Println()
		fs.PrintDefaults()
		fmt.Print("\n" + faultsHelp + "\nExample:\n  HAILO_CLIP_SIM_ARGUMENTS=\"--fault crash=1000\" hailo-clip serve --backend sim\n")
	}
	if err != nil {
		return err
	}
	return c.validate()
}

func (c *Config) validate() error {
	for name, n := range map[string]int{"image-size": c.ImageSize, "dimension": c.Dimension, "context-length": c.ContextLength, "width": c.Width} {
		if n < 1 || n > 1024 {
			return fmt.Errorf("%s %d is out of bounds: 1 to 1024", name, n)
		}
	}
	for _, cost := range c.Cost {
		if cost.Run < 0 || cost.Frame < 0 {
			return errors.New("a run cannot take less than no time")
		}
	}
	if slices.Index(formats, c.Output) < 1 {
		return fmt.Errorf("output %q, want uint8, uint16 or float32", c.Output)
	}
	if c.Vectors != "hash" && c.Vectors != "model" {
		return fmt.Errorf("vectors %q, want hash or model", c.Vectors)
	}
	return nil
}

// Args returns the flags with which Parse makes c of Default.
func (c Config) Args() (args []string) {
	normal := Default()
	usual := normal.flags()
	c.flags().VisitAll(func(f *flag.Flag) {
		if value := f.Value.String(); value != usual.Lookup(f.Name).Value.String() {
			args = append(args, "--"+f.Name+"="+value)
		}
	})
	for _, fault := range c.Faults {
		args = append(args, "--fault="+fault)
	}
	return args
}

// Digest names all that makes the vectors of texts and images what they are, for hailo.Info: of another model,
// kind of vectors or format they must not mix.
func (c Config) Digest(model string) string {
	parts := []string{"sim", model, c.Vectors}
	if c.Output != Default().Output {
		parts = append(parts, c.Output)
	}
	return strings.Join(parts, "/")
}
