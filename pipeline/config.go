package pipeline

import "time"

// Config is the section "performance" of the configuration; New and Stages rely on its bounds.
type Config struct {
	WorkerThreads    int           `yaml:"worker_threads" bounds:"1 to 256"`    // workers of the decode and of the resize stage
	MaxQueueSize     int           `yaml:"max_queue_size" bounds:"1 to 100000"` // requests that may wait at the front door
	RequestTimeout   time.Duration `yaml:"request_timeout" bounds:"1ms to 1h"`  // the deadline of a request
	BatchTimeout     time.Duration `yaml:"batch_timeout" bounds:"1ms to 1h"`    // of one with many images
	MaxWait          time.Duration `yaml:"max_wait" bounds:"0 to 1s"`           // how long a frame waits for others in any case; see stages/batch for the wait that is tuned
	WarmupEnabled    bool          `yaml:"warmup_enabled"`                      // encode before the first request
	WarmupIterations int           `yaml:"warmup_iterations" bounds:"0 to 1000"`
}
