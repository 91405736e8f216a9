package pipeline

import (
	"errors"
	"fmt"
	"time"
)

// Config is the section "performance" of the configuration.
type Config struct {
	WorkerThreads    int      `yaml:"worker_threads"`    // workers of the decode and of the resize stage, 1..256
	MaxQueueSize     int      `yaml:"max_queue_size"`    // requests that may wait at the front door, 1..100000
	RequestTimeout   Duration `yaml:"request_timeout"`   // the deadline of a request, 1ms..1h
	MaxWait          Duration `yaml:"max_wait"`          // how long a batch waits for more frames, 0..1s
	WarmupEnabled    bool     `yaml:"warmup_enabled"`    // encode before the first request
	WarmupIterations int      `yaml:"warmup_iterations"` // how often, 0..1000
}

// Validate says which fields are out of bounds, all of them at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, field string, value any, bound string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %v is out of bounds: %s", field, value, bound))
		}
	}
	check(c.WorkerThreads >= 1 && c.WorkerThreads <= 256, "worker_threads", c.WorkerThreads, "1 to 256")
	check(c.MaxQueueSize >= 1 && c.MaxQueueSize <= 100_000, "max_queue_size", c.MaxQueueSize, "1 to 100000")
	check(c.RequestTimeout.Std() >= time.Millisecond && c.RequestTimeout.Std() <= time.Hour,
		"request_timeout", c.RequestTimeout, "1ms to 1h")
	check(c.MaxWait >= 0 && c.MaxWait.Std() <= time.Second, "max_wait", c.MaxWait, "0 to 1s")
	check(c.WarmupIterations >= 0 && c.WarmupIterations <= 1000, "warmup_iterations", c.WarmupIterations, "0 to 1000")
	return errors.Join(errs...)
}
