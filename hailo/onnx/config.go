package onnx

import (
	"cmp"
	"runtime"
)

// Config is what a user may set about the CPU encoder.
type Config struct {
	// Library is the path of libonnxruntime; "" looks beside the program, where "hailo-clip
	// setup" puts it, and in the system.
	Library string `yaml:"library"`
	// Threads is how many runs go on at once, each on one core; 0 is one for each core.
	Threads int `yaml:"threads" bounds:"0 to 256"`
	// Batch is how many images one run takes at most; 0 is 4. With ViT-B/32 on one core an image in a
	// run of 4 takes 0.77 of the time of an image alone, and one in a run of 8 takes 0.75; with the demo
	// model it makes no difference.
	Batch int `yaml:"batch" bounds:"0 to 32"`
}

// defaultBatch is what Batch 0 stands for.
const defaultBatch = 4

func (c Config) threads() int { return cmp.Or(c.Threads, min(runtime.GOMAXPROCS(0), 256)) }
