package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hailoclip/bench"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// benchPictures are the flags that say which pictures to send.
type benchPictures struct {
	Image   []string `sep:"none" placeholder:"FILE" type:"existingfile" help:"Picture to send; give several. Default: generated ones."`
	Size    []string `default:"640x480" placeholder:"WxH" help:"Size of generated pictures, which cost about what photographs cost; several with commas."`
	Prompts int      `default:"20" help:"Prompts of each request; 0 embeds pictures instead of classifying them."`
}

// maxBenchImage bounds a picture file.
const maxBenchImage = 64 << 20

// pictures reads or generates n pictures of each size.
func (c *benchPictures) pictures(n int) ([]bench.Picture, error) {
	var list []bench.Picture
	for _, name := range c.Image {
		data, err := readImage(name, maxBenchImage)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, bench.Picture{Name: name, Data: data})
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
			data, err := bench.Photo(width, height, uint64(seed))
			if err != nil {
				return nil, usageError{fmt.Errorf("--size: %w", err)}
			}
			list = append(list, bench.Picture{Name: size, Data: data})
		}
	}
	return list, nil
}

type benchProfileCmd struct {
	benchPictures
	Duration    time.Duration `short:"d" default:"5s" help:"Time for each picture."`
	CPUProfile  string        `name:"cpu-profile" placeholder:"FILE" help:"Write a CPU profile for \"go tool pprof\"."`
	HeapProfile string        `name:"heap-profile" placeholder:"FILE" help:"Write a heap profile, as of the end."`
}

func (c *benchProfileCmd) Help() string {
	return `One picture after the other goes through decode, resize, encode and score of this process, so the
times are those of an idle machine.

Examples:
  hailo-clip bench profile --backend cpu --size 640x480,1280x720,1920x1080
  hailo-clip bench profile --backend sim --image street.jpg --cpu-profile cpu.out`
}

func (c *benchProfileCmd) Run(ctx context.Context, g *globals) error {
	if c.Duration < 10*time.Millisecond || c.Duration > time.Hour || c.Prompts < 0 || c.Prompts > bench.MaxPrompts {
		return usageError{fmt.Errorf("--duration %v or --prompts %d is out of bounds: 10ms to 1h, 0 to %d", c.Duration, c.Prompts, bench.MaxPrompts)}
	}
	pictures, err := c.pictures(1)
	if err != nil {
		return err
	}
	return withEngine(ctx, g, func(e *engine) error { return c.profile(ctx, e, pictures) })
}

func (c *benchProfileCmd) profile(ctx context.Context, e *engine, pictures []bench.Picture) error {
	var vectors []float32
	if c.Prompts > 0 {
		texts := make([]string, c.Prompts)
		for i := range texts {
			texts[i] = bench.Prompt(i)
		}
		found, err := e.prompts(ctx, fair.Caller{}, texts)
		if err != nil {
			return err
		}
		vectors = found.Matrix
	}
	stop, err := bench.Profiles(c.CPUProfile, c.HeapProfile)
	if err != nil {
		return err
	}
	scoring := pipeline.Scoring{LogitScale: e.logitScale(), Softmax: true, TopK: 3}
	paths, err := bench.Profile(ctx, e.pipe, pictures, vectors, scoring, c.Duration)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\nmodel %s, backend %s, %d prompts\n\n", bench.ThisMachine(), e.model.Name, e.encoders.Images.Info().Backend, c.Prompts)
	bench.WritePaths(stdout, paths)
	return nil
}
