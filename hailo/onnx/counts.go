package onnx

import (
	"context"
	"sync/atomic"

	"hailoclip/hailo"
)

// maxCounted is the largest run with a count of its own.
const maxCounted = 32

// counts are behind Backend.Counts.
type counts struct {
	images, texts, failed atomic.Uint64
	runs                  [maxCounted + 1]atomic.Uint64
}

// Counts returns what was encoded since the start. It does not block.
func (b *Backend) Counts() hailo.Counts {
	c := hailo.Counts{Images: b.counts.images.Load(), Texts: b.counts.texts.Load(), Failed: b.counts.failed.Load()}
	c.Batches = make([]uint64, len(b.counts.runs))
	for i := range b.counts.runs {
		c.Batches[i] = b.counts.runs[i].Load()
	}
	return c
}

// ran counts a run of n images or texts that ended with err.
func (c *counts) ran(ctx context.Context, n int, images bool, err error) {
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		c.failed.Add(uint64(n))
	case images:
		c.images.Add(uint64(n))
		c.runs[min(n, maxCounted)].Add(1)
	default:
		c.texts.Add(uint64(n))
	}
}
