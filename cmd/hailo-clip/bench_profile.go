package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"hailoclip/bench/load"
	"hailoclip/bench/report"
	"hailoclip/stages/clip"
)

// benchImages are the flags that say which images to send.
type benchImages struct {
	Image   []string `sep:"none" placeholder:"FILE" type:"existingfile" help:"Image to send; give several. Default: generated ones."`
	Size    []string `default:"640x480" placeholder:"WxH" help:"Size of generated images, which cost about what photographs cost; several with commas."`
	Prompts int      `default:"20" help:"Prompts of each request; 0 embeds images instead of classifying them."`
}

// maxBenchImage bounds an image file.
const maxBenchImage = 64 << 20

// images reads the files, or generates n images of each size.
func (c *benchImages) images(n int) ([]load.Image, error) {
	var list []load.Image
	for _, name := range c.Image {
		data, err := readImage(name, maxBenchImage)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, load.Image{Name: name, Data: data})
	}
	if len(list) > 0 {
		return list, nil
	}
	for _, size := range c.Size {
		w, h, ok := strings.Cut(size, "x")
		width, errW := strconv.Atoi(w)
		height, errH := strconv.Atoi(h)
		if !ok || errW != nil || errH != nil {
			return nil, usageError{fmt.Errorf("--size: %q is not of the form 640x480", size)}
		}
		for seed := range n {
			data, err := load.Photo(width, height, uint64(seed))
			if err != nil {
				return nil, usageError{fmt.Errorf("--size: %w", err)}
			}
			list = append(list, load.Image{Name: size, Data: data})
		}
	}
	return list, nil
}

type benchProfileCmd struct {
	benchImages
	Duration    time.Duration `short:"d" default:"5s" help:"Time for each image."`
	CPUProfile  string        `name:"cpu-profile" placeholder:"FILE" help:"Write a CPU profile for \"go tool pprof\"."`
	HeapProfile string        `name:"heap-profile" placeholder:"FILE" help:"Write a heap profile, as of the end."`
}

func (c *benchProfileCmd) Help() string {
	return `One image after the other goes through decode, resize, encode and score of this process, so the
times are those of an idle machine.

Examples:
  hailo-clip bench profile --backend cpu --size 640x480,1280x720,1920x1080
  hailo-clip bench profile --backend sim --image street.jpg --cpu-profile cpu.out`
}

func (c *benchProfileCmd) Run(ctx context.Context, g *globals) error {
	if c.Duration < 10*time.Millisecond || c.Duration > time.Hour || c.Prompts < 0 || c.Prompts > load.MaxPrompts {
		return usageError{fmt.Errorf("--duration %v or --prompts %d is out of bounds: 10ms to 1h, 0 to %d", c.Duration, c.Prompts, load.MaxPrompts)}
	}
	images, err := c.images(1)
	if err != nil {
		return err
	}
	return withEngine(ctx, g, func(e *engine) error { return c.profile(ctx, e, images) })
}

func (c *benchProfileCmd) profile(ctx context.Context, e *engine, images []load.Image) error {
	do, texts := e.Classify, make([]string, c.Prompts)
	for i := range texts {
		texts[i] = load.Prompt(i)
	}
	if c.Prompts == 0 {
		do = e.EmbedImage
	}
	if c.CPUProfile != "" {
		f, err := os.Create(c.CPUProfile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	paths, err := load.Profile(images, c.Duration, func(image []byte, stage func(string, time.Duration)) error {
		r, err := do(ctx, &clip.Request{Image: image, Prompts: texts, TopK: 3})
		for _, t := range r.Times {
			stage(t.Stage, t.Work)
		}
		return err
	})
	pprof.StopCPUProfile()
	if err := errors.Join(err, writeFile(c.HeapProfile, func(w io.Writer) error {
		runtime.GC() // the profile is as of the last collection
		return pprof.Lookup("heap").WriteTo(w, 0)
	})); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\nmodel %s, backend %s, %d prompts\n\n", report.ThisMachine(), e.Model(), e.Health().Backend, c.Prompts)
	report.WritePaths(stdout, paths)
	return nil
}

// writeFile writes a file, unless its name is "".
func writeFile(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
