package configs

import (
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"hailoclip/api"
	"hailoclip/api/access"
	"hailoclip/api/admin"
	"hailoclip/api/compat"
	"hailoclip/api/fleet"
	"hailoclip/api/outbound"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/notify"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/open"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// Config is the whole configuration; hailo-clip.yaml documents every key.
type Config struct {
	Server         api.Config      `yaml:"server"`
	Access         access.Config   `yaml:"access"`
	CLIP           CLIP            `yaml:"clip"`
	TextEmbedding  cache.Config    `yaml:"text_embedding"`
	Performance    pipeline.Config `yaml:"performance"`
	Streams        stream.Config   `yaml:"streams"`
	Health         Health          `yaml:"health"`
	Events         event.Config    `yaml:"events"`
	CPU            onnx.Config     `yaml:"cpu"`
	NPU            npu.Config      `yaml:"npu"`
	Sim            open.Sim        `yaml:"sim"`
	ResourceLimits ResourceLimits  `yaml:"resource_limits"`
	Admin          admin.Config    `yaml:"admin"`
	Logging        Logging         `yaml:"logging"`
	Compat         compat.Config   `yaml:"compat"`
	Fetch          outbound.Config `yaml:"fetch"`
	Notify         notify.Config   `yaml:"notify"`
	Fleet          fleet.Config    `yaml:"fleet"`

	PromptSets map[string]sets.Definition `yaml:"prompt_sets"` // by name; the API cannot change them
}

// CLIP says which model runs where, and how images and scores are made.
type CLIP struct {
	Model       string `yaml:"model"`
	open.Config `yaml:",inline"`
	Engine      `yaml:",inline"`
}

// Engine is what the engine takes of the section "clip".
type Engine = clip.Config

// Check reports what the bounds of the fields cannot say.
func (c CLIP) Check(fault func(field, format string, args ...any)) {
	if c.Model == "" {
		fault("model", `"" is out of bounds: auto, or the name of a model`)
	}
}

// Health says how the service watches itself.
type Health struct {
	// A known image and text are encoded when idle for so long.
	ProbeInterval time.Duration `yaml:"probe_interval" bounds:"1s to 1h, or 0 for never"`
}

// ResourceLimits are for the systemd unit; MemoryMax also sets the Go runtime's soft limit.
type ResourceLimits struct {
	MemoryMax string `yaml:"memory_max"` // "3G", "512M", "infinity"
	CPUQuota  string `yaml:"cpu_quota"`  // "80%"; only the unit uses it
}

// Logging says what is logged, and how.
type Logging struct {
	Level    string `yaml:"level"`                             // debug, info, warning, error
	Format   string `yaml:"format" bounds:"auto, json, text"`  // auto: text on a terminal, else JSON
	Requests int    `yaml:"requests" bounds:"0 to 1000000000"` // of the successes of a route one in so many is logged; 0: none
}

// Check reports what the bounds of the fields cannot say.
func (r ResourceLimits) Check(fault func(field, format string, args ...any)) {
	if _, err := r.MemoryBytes(); err != nil {
		fault("memory_max", "%w", err)
	}
	if !cpuQuota.MatchString(r.CPUQuota) {
		fault("cpu_quota", `%q is out of bounds: a percentage such as "80%%"`, r.CPUQuota)
	}
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
	if m := memorySize.FindStringSubmatch(r.MemoryMax); m != nil {
		n, _ := strconv.ParseFloat(m[1], 64) // digits
		n *= math.Pow(1024, float64(strings.Index(" KMGT", m[2])))
		if n >= 64<<20 && n <= 1<<50 {
			return int64(n), nil
		}
	}
	return 0, fmt.Errorf(`%q is out of bounds: a size from 64M to 1024T, such as "3G" or "512M", or "infinity"`, r.MemoryMax)
}

// Check reports what the bounds of the fields cannot say.
func (l Logging) Check(fault func(field, format string, args ...any)) {
	if _, ok := levels[strings.ToLower(l.Level)]; !ok {
		fault("level", "%q is out of bounds: debug, info, warning, error", l.Level)
	}
}

// levels are the values of Logging.Level, in lower case; "warning" and "critical" are Python's.
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn,
	"error": slog.LevelError, "critical": slog.LevelError,
}

// SlogLevel is Level, whose case makes no difference.
func (l Logging) SlogLevel() slog.Level { return levels[strings.ToLower(l.Level)] }

// YAML writes the configuration as a file would have it, without comments, and *** for secrets.
func (c Config) YAML() ([]byte, error) { return yaml.Marshal(c) }
