package npu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hailoclip/hailo/npu/wire"
)

// Config is the section "npu" of the configuration. The zero value is not valid: every number
// must be given.
type Config struct {
	Worker         string `yaml:"worker"`           // the worker program; "": looked for, see FindWorker
	Device         string `yaml:"-"`                // device id (clip.device) as the runtime's scan names it; "": the only one
	Group          string `yaml:"group"`            // group_id of the virtual device; "" and "UNIQUE": nobody else may use it
	InFlight       int    `yaml:"in_flight"`        // image frames given to the device at once, 1 to 64
	TextBatch      int    `yaml:"text_batch"`       // texts given to the device at once, 1 to 16
	StartTimeoutMS int    `yaml:"start_timeout_ms"` // limit for opening the device, and for loading each model; 1000 to 600000
}

// maxDeviceID is what fits into the vendor's hailo_device_id_t.
const maxDeviceID = 31

// Validate says which fields are out of bounds, all of them at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, field string, value any, bound string) {
		if !ok {
			errs = append(errs, fmt.Errorf("npu.%s: %v is out of bounds: %s", field, value, bound))
		}
	}
	check(len(c.Device) <= maxDeviceID, "device", c.Device, "at most 31 bytes")
	check(len(c.Group) < len(wire.Text64{}), "group", c.Group, "at most 63 bytes")
	check(c.InFlight >= 1 && c.InFlight <= 64, "in_flight", c.InFlight, "1 to 64")
	check(c.TextBatch >= 1 && c.TextBatch <= 16, "text_batch", c.TextBatch, "1 to 16")
	check(c.StartTimeoutMS >= 1000 && c.StartTimeoutMS <= 600_000, "start_timeout_ms", c.StartTimeoutMS, "1000 to 600000")
	return errors.Join(errs...)
}

func (c Config) startTimeout() time.Duration {
	return time.Duration(c.StartTimeoutMS) * time.Millisecond
}

// WorkerName is the file name of the worker program.
const WorkerName = "hailo-clip-npu"

// FindWorker returns the path of the worker program: the configured one or, when that is "",
// the first found beside this program and in /usr/lib/hailo-clip. The error says where it
// looked.
func FindWorker(configured string) (string, error) {
	candidates := []string{configured}
	if configured == "" {
		candidates = candidates[:0]
		if self, err := os.Executable(); err == nil {
			candidates = append(candidates, filepath.Join(filepath.Dir(self), WorkerName))
		}
		candidates = append(candidates, filepath.Join("/usr/lib/hailo-clip", WorkerName))
	}
	var why []string
	for _, path := range candidates {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
			err = fmt.Errorf("%s is not a program", path)
		default:
			return path, nil
		}
		why = append(why, err.Error())
	}
	return "", fmt.Errorf("npu worker not found: %s", strings.Join(why, "; "))
}
