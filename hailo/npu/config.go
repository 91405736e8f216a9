package npu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the section "npu" of the configuration; New relies on its bounds. The zero value is invalid.
type Config struct {
	Worker    string `yaml:"worker"`                          // the worker program; "": looked for, see FindWorker
	Device    string `yaml:"-"`                               // device id as the runtime's scan names it; "": the only one
	Group     string `yaml:"group" bounds:"at most 63 bytes"` // of the virtual device; "" and "UNIQUE": nobody else may use it
	InFlight  int    `yaml:"in_flight" bounds:"1 to 64"`      // image frames given to the device at once
	TextBatch int    `yaml:"text_batch" bounds:"1 to 16"`     // texts given to the device at once
	// StartTimeout is for opening the device, and for loading each model.
	StartTimeout time.Duration `yaml:"start_timeout" milliseconds:"start_timeout_ms" bounds:"1s to 10m"`
}

// WorkerName is the file name of the worker program.
const WorkerName = "hailo-clip-npu"

// PackageDir is where the Debian package has the worker, and ONNX Runtime.
const PackageDir = "/usr/lib/hailo-clip"

// FindWorker returns the path of the worker program: the configured one or, when that is "",
// the first found beside this program and in PackageDir. The error says where it
// looked.
func FindWorker(configured string) (string, error) {
	candidates := []string{configured}
	if configured == "" {
		candidates = []string{filepath.Join(PackageDir, WorkerName)}
		if self, err := os.Executable(); err == nil {
			candidates = []string{filepath.Join(filepath.Dir(self), WorkerName), candidates[0]}
		}
	}
	var why []string
	for _, path := range candidates {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
		if err == nil {
			err = fmt.Errorf("%s is not a program", path)
		}
		why = append(why, err.Error())
	}
	return "", fmt.Errorf("npu worker not found: %s", strings.Join(why, "; "))
}
