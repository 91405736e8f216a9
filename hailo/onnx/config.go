package onnx

import (
	"errors"
	"fmt"
	"runtime"
)

// Config is what a user may set about the CPU encoder.
type Config struct {
	// Library is the path of libonnxruntime; "" looks beside the program, where "hailo-clip
	// setup" puts it, and in the system.
	Library string `yaml:"library"`
	// Threads is how many runs go on at once, each on one core: 1 to 256, 0 is one for each core.
	Threads int `yaml:"threads"`
	// Batch is how many images one run takes at most: 1 to 32, 0 is 4. With ViT-B/32 on one
	// core an image in a run of 4 takes 0.77 of the time of an image alone, and one in a run
	// of 8 takes 0.75; with the demo model it makes no difference.
	Batch int `yaml:"batch"`
}

const (
	maxThreads   = 256
	maxBatch     = 32
	defaultBatch = 4
)

// Validate says which values are out of bounds.
func (c Config) Validate() error {
	var errs []error
	if c.Threads < 0 || c.Threads > maxThreads {
		errs = append(errs, fmt.Errorf("threads is %d, must be 0 to %d", c.Threads, maxThreads))
	}
	if c.Batch < 0 || c.Batch > maxBatch {
		errs = append(errs, fmt.Errorf("batch is %d, must be 0 to %d", c.Batch, maxBatch))
	}
	return errors.Join(errs...)
}

func (c Config) threads() int {
	if c.Threads == 0 {
		return min(runtime.GOMAXPROCS(0), maxThreads)
	}
	return c.Threads
}

func (c Config) batch() int {
	if c.Batch == 0 {
		return defaultBatch
	}
	return c.Batch
}
