package main

import (
	"context"
	"fmt"
	"runtime"

	"hailoclip/api/bulk"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// Bounds of --resize. With fewer pixels a copy in JPEG could take more bytes than its pixels.
const (
	minResize = 64
	maxResize = 4096
)

// resized is the digest of an encoder with --resize: vectors of copies are not quite those of the images, and do not mix with them. What
// decodes JPEGs makes the copies, so it is part of it.
func (c *indexRunCmd) resized(digest string) string {
	if c.Resize == 0 {
		return digest
	}
	return bulk.Resized(digest, c.Resize, decode.JPEGs())
}

// shrinker makes the copies that are sent, on all processors, in half of the memory at most.
func (c *indexRunCmd) shrinker(p place) (func(context.Context, []byte) ([]byte, error), error) {
	limit, err := p.cfg.ResourceLimits.MemoryBytes()
	if err != nil {
		return nil, err
	}
	workers := runtime.GOMAXPROCS(0)
	memory := clip.DivideMemory(clip.MemoryLimits{Max: limit, Workers: workers}, stderr.logger(p.cfg.Logging))
	s := stages.NewShrinker(p.cfg.CLIP.Engine.Images.Decode, c.Resize, workers, decode.NewBudget(memory.Images, memory.Runtime, workers, workers))
	return func(ctx context.Context, image []byte) ([]byte, error) {
		small, err := s.Shrink(ctx, image)
		if clip.ImageFault(err) != "" {
			err = fmt.Errorf("%w: %w", bulk.ErrImage, err)
		}
		return small, err
	}, nil
}
