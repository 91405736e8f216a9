package configs

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"hailoclip/api"
	"hailoclip/cache"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// Config is the whole configuration; hailo-clip.yaml documents every key.
type Config struct {
	Server         api.Config      `yaml:"server"`
	CLIP           CLIP            `yaml:"clip"`
	TextEmbedding  cache.Config    `yaml:"text_embedding"`
	Performance    pipeline.Config `yaml:"performance"`
	Health         Health          `yaml:"health"`
	CPU            onnx.Config     `yaml:"cpu"`
	NPU            npu.Config      `yaml:"npu"`
	Sim            Sim             `yaml:"sim"`
	ResourceLimits ResourceLimits  `yaml:"resource_limits"`
	Logging        Logging         `yaml:"logging"`
}

// CLIP says which model runs where, and how pictures and scores are made.
type CLIP struct {
	Model              string      `yaml:"model"`               // "auto" or the name of a model
	Backend            string      `yaml:"backend"`             // auto, npu, cpu, sim
	TextEncoder        string      `yaml:"text_encoder"`        // auto, npu, cpu
	OnDeviceLoss       string      `yaml:"on_device_loss"`      // cpu, fail
	Device             string      `yaml:"device"`              // device id, or "0" for the only one
	BatchSize          Auto        `yaml:"batch_size"`          // images the NPU encodes together, 1..32; auto: DefaultBatch
	DeviceTimeoutMS    int         `yaml:"device_timeout_ms"`   // a device silent for longer is restarted, 100..600000
	EmbeddingDimension int         `yaml:"embedding_dimension"` // 0: the model's; otherwise it must be the model's
	ImageSize          int         `yaml:"image_size"`          // likewise
	Engine             clip.Config `yaml:",inline"`
}

// Sim says what the simulated chip of the backend sim does.
type Sim struct {
	Vectors   string `yaml:"vectors"`   // hash: made from the input's bytes; model: the demo model's
	Arguments string `yaml:"arguments"` // more flags for "hailo-clip npu-sim"
}

// Validate returns all errors, each starting with the field.
func (s Sim) Validate() error { return oneOf("vectors", s.Vectors, "hash", "model") }

// Health says how the service watches itself.
type Health struct {
	ProbeInterval pipeline.Duration `yaml:"probe_interval"` // a known image and text are encoded when idle for so long, 1s..1h; 0 is never
}

// ResourceLimits are for the systemd unit; MemoryMax also sets the Go runtime's soft limit.
type ResourceLimits struct {
	MemoryMax string `yaml:"memory_max"` // "3G", "512M", "infinity"
	CPUQuota  string `yaml:"cpu_quota"`  // "80%"; only the unit uses it
}

// Logging says what is logged, and how.
type Logging struct {
	Level  string `yaml:"level"`  // debug, info, warning, error
	Format string `yaml:"format"` // json, text
}

// Validate returns all errors, each starting with the key: "server.port: ...".
func (c Config) Validate() error {
	return errors.Join(
		section("server", c.Server.Validate()),
		section("clip", c.CLIP.Validate()),
		section("text_embedding", c.TextEmbedding.Validate()),
		section("performance", c.Performance.Validate()),
		section("health", c.Health.Validate()),
		section("cpu", c.CPU.Validate()),
		section("npu", c.NPU.Validate()),
		section("sim", c.Sim.Validate()),
		section("resource_limits", c.ResourceLimits.Validate()),
		section("logging", c.Logging.Validate()),
	)
}

// section puts the section's name before every error, which starts with its field.
func section(name string, err error) error {
	if err == nil {
		return nil
	}
	var named []error
	for _, e := range flatten(err) {
		if strings.HasPrefix(e.Error(), name+".") {
			named = append(named, e)
			continue
		}
		named = append(named, fmt.Errorf("%s.%w", name, e))
	}
	return errors.Join(named...)
}

// Validate returns all errors, each starting with the field.
func (c CLIP) Validate() error {
	return errors.Join(
		oneOf("backend", c.Backend, "auto", "npu", "cpu", "sim"),
		oneOf("text_encoder", c.TextEncoder, "auto", "npu", "cpu"),
		oneOf("on_device_loss", c.OnDeviceLoss, "cpu", "fail"),
		within("batch_size", int(c.BatchSize), 0, 32),
		within("device_timeout_ms", c.DeviceTimeoutMS, 100, 600_000),
		within("embedding_dimension", c.EmbeddingDimension, 0, 8192),
		within("image_size", c.ImageSize, 0, 1024),
		check(c.Model != "", "model", `""`, "auto, or the name of a model"),
		c.Engine.Validate(),
	)
}

// Validate returns all errors, each starting with the field.
func (h Health) Validate() error {
	d := h.ProbeInterval.Std()
	return check(d == 0 || d.Seconds() >= 1 && d.Hours() <= 1, "probe_interval", h.ProbeInterval, "1s to 1h, or 0 for never")
}

// Validate returns all errors, each starting with the field.
func (r ResourceLimits) Validate() error {
	_, err := r.MemoryBytes()
	return errors.Join(err,
		check(cpuQuota.MatchString(r.CPUQuota), "cpu_quota", r.CPUQuota, `a percentage such as "80%"`))
}

var (
	cpuQuota   = regexp.MustCompile(`^([1-9][0-9]{0,4}%)?$`)
	memorySize = regexp.MustCompile(`^([0-9]{1,15})([KMGT]?)$`)
)

// MemoryBytes reads MemoryMax as systemd does (K, M, G, T are powers of 1024); math.MaxInt64
// where there is no limit.
func (r ResourceLimits) MemoryBytes() (int64, error) {
	if r.MemoryMax == "" || r.MemoryMax == "infinity" {
		return math.MaxInt64, nil
	}
	m := memorySize.FindStringSubmatch(r.MemoryMax)
	if m == nil {
		return 0, fmt.Errorf(`memory_max: %q is not a size such as "3G", "512M" or "infinity"`, r.MemoryMax)
	}
	n, _ := strconv.ParseFloat(m[1], 64) // digits
	n *= math.Pow(1024, float64(strings.Index("KMGT", m[2])+1)*float64(min(len(m[2]), 1)))
	if n < 64<<20 || n > 1<<50 {
		return 0, fmt.Errorf("memory_max: %s is out of bounds: 64M to 1024T", r.MemoryMax)
	}
	return int64(n), nil
}

// Validate returns all errors, each starting with the field.
func (l Logging) Validate() error {
	_, err := l.SlogLevel()
	return errors.Join(err, oneOf("format", l.Format, "json", "text"))
}

// SlogLevel reads Level; upper case and Python's "warning" and "critical" are understood too.
func (l Logging) SlogLevel() (slog.Level, error) {
	switch strings.ToLower(l.Level) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "critical":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("level: %q is out of bounds: debug, info, warning, error", l.Level)
}

func oneOf(field, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fmt.Errorf("%s: %q is out of bounds: %s", field, value, strings.Join(allowed, ", "))
}

func within(field string, value, low, high int) error {
	return check(value >= low && value <= high, field, value, fmt.Sprintf("%d to %d", low, high))
}

func check(ok bool, field string, value any, bound string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s: %v is out of bounds: %s", field, value, bound)
}

// Keys lists every key, "server.host" and so on, in the order of the struct.
func Keys() []string {
	var all []string
	fields("", reflect.ValueOf(Config{}), func(key string, _ reflect.Value) { all = append(all, key) })
	return all
}

// fields visits every key of the struct v with its field.
func fields(prefix string, v reflect.Value, visit func(key string, field reflect.Value)) {
	for f, field := range v.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			fields(prefix, field, visit)
		case name == "-":
		case field.Kind() == reflect.Struct:
			fields(prefix+name+".", field, visit)
		default:
			visit(prefix+name, field)
		}
	}
}

// sections lists the top-level keys.
func sections() []string {
	var all []string
	for f := range reflect.TypeFor[Config]().Fields() {
		all = append(all, f.Tag.Get("yaml"))
	}
	return all
}

// YAML writes the configuration as a file would have it, without comments.
func (c Config) YAML() ([]byte, error) { return yaml.Marshal(c) }
