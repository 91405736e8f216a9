package open

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
)

// Config says what is to encode, and how: the keys of the section "clip" and, with "-", what is said elsewhere.
type Config struct {
	Backend      string `yaml:"backend" bounds:"auto, npu, cpu, sim"`
	TextEncoder  string `yaml:"text_encoder" bounds:"auto, npu, cpu"`
	OnDeviceLoss string `yaml:"on_device_loss" bounds:"cpu, fail"` // cpu: it stands in
	Device       string `yaml:"device" bounds:"at most 31 bytes"`  // its id; "0": the only one, as the former service had it
	BatchSize    Auto   `yaml:"batch_size" bounds:"0 to 32"`       // see Batch
	// DeviceTimeout is after how long a silent device is restarted.
	DeviceTimeout      time.Duration `yaml:"device_timeout" milliseconds:"device_timeout_ms" bounds:"100ms to 10m"`
	EmbeddingDimension int           `yaml:"embedding_dimension" bounds:"0 to 8192"` // 0: the model's; else it must be it
	ImageSize          int           `yaml:"image_size" bounds:"0 to 1024"`          // likewise

	ProbeInterval time.Duration `yaml:"-"` // see hailo.NewProbe
	Warmup        int           `yaml:"-"` // probes at the start; one at least is made
	CPU           onnx.Config   `yaml:"-"`
	NPU           npu.Config    `yaml:"-"`
	Sim           Sim           `yaml:"-"`
	LibraryDirs   []string      `yaml:"-"` // where "setup" may have put ONNX Runtime
}

// Sim is the section "sim" of the configuration: what the simulated chip does.
type Sim struct {
	Vectors   string `yaml:"vectors" bounds:"hash, model"` // hash: made from the input's bytes; model: the demo model's
	Arguments string `yaml:"arguments"`                    // more flags for "hailo-clip npu-sim"
	// ServeHash lets hash vectors get into the indexes of other systems, see MadeUpVectors.
	ServeHash bool `yaml:"serve_hash"`
}

// Auto is a number, or "auto", which is 0: the program chooses.
type Auto int

// UnmarshalText reads either.
func (a *Auto) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 0, 32)
	if err != nil && !strings.EqualFold(string(text), "auto") {
		return fmt.Errorf("%#q is neither a whole number nor auto", text)
	}
	*a = Auto(n)
	return nil
}

// MarshalYAML writes either.
func (a Auto) MarshalYAML() (any, error) {
	if a == 0 {
		return "auto", nil
	}
	return int(a), nil
}

// DefaultBatch is how many images the NPU encodes together unless the configuration says otherwise.
const DefaultBatch = 8

// Batch is BatchSize, or what auto stands for.
func (c Config) Batch() int { return cmp.Or(int(c.BatchSize), DefaultBatch) }
