package configs

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hailo-clip.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// existing is a configuration as the former Python service has it.
const existing = `server:
  host: 0.0.0.0
  port: 5000
  debug: false
clip:
  model: clip-vit-b-32
  embedding_dimension: 512
  device: 0
  image_size: 224
  batch_size: 1
  device_timeout_ms: 5000
  apply_softmax: true
  logit_scale: 100.0
text_embedding:
  mode: ondemand
  cache_enabled: true
  cache_max_entries: 1000
performance:
  worker_threads: 2
  max_queue_size: 10
  request_timeout: 30
  warmup_enabled: false
  warmup_iterations: 3
resource_limits:
  memory_max: "3G"
  cpu_quota: "80%"
logging:
  level: INFO
  format: json
`

func TestExistingFileLoadsUnchanged(t *testing.T) {
	c, _, err := Load(write(t, existing), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.CLIP.Model != "clip-vit-b-32" || c.CLIP.LogitScale != 100 || c.CLIP.Device != "0" ||
		c.CLIP.BatchSize != 1 || c.Performance.RequestTimeout.Std() != 30*time.Second || c.Performance.WarmupEnabled {
		t.Errorf("loaded as %+v", c)
	}
	if c.Server.MaxBodyBytes != 16<<20 {
		t.Errorf("a key that is not in the file lost its default: %+v", c.Server)
	}
}

// TestDefaultIsComplete holds the documentation to the code: every key stands in the file.
func TestDefaultIsComplete(t *testing.T) {
	c, file, err := Load(write(t, ""), nil, nil)
	if err != nil || file == "" {
		t.Fatal(file, err)
	}
	if c.Server.Port != 5000 || c.Performance.WorkerThreads != 2 || c.Performance.MaxQueueSize != 10 || c.CLIP.Pictures.Decode.MaxPixels != 50_000_000 {
		t.Errorf("defaults of the specification: %+v", c)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(Default, &root); err != nil {
		t.Fatal(err)
	}
	for _, key := range Keys() {
		if lineOf(&root, strings.Split(key, ".")) == 0 {
			t.Errorf("%s is not in hailo-clip.yaml", key)
		}
	}
}

func TestLayers(t *testing.T) {
	file := write(t, "server:\n  port: 1111\n  host: file\nperformance:\n  max_queue_size: 7\n")
	env := []string{"HAILO_CLIP_SERVER_PORT=2222", "HAILO_CLIP_CLIP_LOGIT_SCALE=12.5", "HAILO_CLIP_STATE_DIR=/x", "PATH=/bin"}
	c, _, err := Load(file, env, []Override{{Key: "server.port", Value: "3333", Source: "--port"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Server.Port != 3333 || c.Server.Host != "file" || c.CLIP.LogitScale != 12.5 || c.Performance.MaxQueueSize != 7 {
		t.Errorf("loaded as %+v", c)
	}
	if c, _, err = Load(file, env, nil); err != nil || c.Server.Port != 2222 {
		t.Errorf("environment over file: port %d, %v", c.Server.Port, err)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	cases := []struct {
		name, text string
		env        []string
		flags      []Override
		want       []string
	}{
		{"unknown key", "server:\n  prot: 1\n", nil, nil, []string{"hailo-clip.yaml: line 2", `unknown key "prot"`}},
		{"unknown section", "sevrer:\n  port: 1\n", nil, nil, []string{"line 1", `unknown key "sevrer"`}},
		{"wrong type", "\nserver:\n  port: many\n", nil, nil, []string{"line 3", "`many`", "whole number"}},
		{"section is a number", "server: 5\n", nil, nil, []string{"line 1", "where a section belongs"}},
		{"duplicate key", "server:\n  port: 1\n  port: 2\n", nil, nil, []string{"line 3", "already"}},
		{"out of bounds", "server:\n  host: x\n  port: 70000\n", nil, nil, []string{"line 3", "server.port", "70000", "65535"}},
		{"two at once", "server:\n  port: 70000\nperformance:\n  max_queue_size: 0\n", nil, nil,
			[]string{"line 2: server.port", "line 4: performance.max_queue_size: 0"}},
		{"bad duration", "performance:\n  request_timeout: soon\n", nil, nil, []string{"soon", "not a duration"}},
		{"debug", "server:\n  debug: true\n", nil, nil, []string{"line 2", "logging.level"}},
		{"bad memory", "resource_limits:\n  memory_max: lots\n", nil, nil, []string{"memory_max", "lots", "512M"}},
		{"environment value", "", []string{"HAILO_CLIP_SERVER_PORT=x"}, nil, []string{"HAILO_CLIP_SERVER_PORT", "`x`"}},
		{"environment bound", "", []string{"HAILO_CLIP_SERVER_PORT=-1"}, nil, []string{"HAILO_CLIP_SERVER_PORT: server.port", "-1"}},
		{"environment key", "", []string{"HAILO_CLIP_SERVER_PROT=1"}, nil, []string{"HAILO_CLIP_SERVER_PROT", "section server"}},
		{"flag", "", nil, []Override{{Key: "clip.backend", Value: "gpu", Source: "--backend"}}, []string{"--backend: clip.backend", `"gpu"`, "npu"}},
		{"nested flag value stays text", "", nil, []Override{{Key: "clip.model", Value: "a: {b", Source: "--model"}}, nil},
		{"two documents", "server:\n  port: 1\n---\nserver:\n  port: 2\n", nil, nil, []string{"more than one"}},
		{"not YAML", "server: [", nil, nil, []string{"hailo-clip.yaml", "line 1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Load(write(t, c.text), c.env, c.flags)
			if c.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "configs.") || strings.Contains(err.Error(), "!!") {
				t.Errorf("speaks Go or YAML internals: %v", err)
			}
		})
	}
	if _, _, err := Load("/does/not/exist.yaml", nil, nil); err == nil {
		t.Error("a named file that is missing was accepted")
	}
	if _, _, err := Load(write(t, strings.Repeat("#", maxFile+1)), nil, nil); err == nil {
		t.Error("a file that is too large was accepted")
	}
}

func TestMemoryBytes(t *testing.T) {
	cases := map[string]int64{"3G": 3 << 30, "512M": 512 << 20, "infinity": math.MaxInt64, "": math.MaxInt64, "104857600": 100 << 20, "1T": 1 << 40}
	for text, want := range cases {
		if n, err := (ResourceLimits{MemoryMax: text}).MemoryBytes(); err != nil || n != want {
			t.Errorf("%q: %d, %v; want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"1K", "-1", "3 G", "3GB", "99999999999T"} {
		if n, err := (ResourceLimits{MemoryMax: text}).MemoryBytes(); err == nil {
			t.Errorf("%q accepted as %d", text, n)
		}
	}
}

func TestYAMLRoundTrip(t *testing.T) {
	c, _, err := Load(write(t, existing), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Load(write(t, string(text)), nil, nil)
	if err != nil || again != c {
		t.Errorf("came back as %+v, %v\nwas %+v", again, err, c)
	}
	if keys := Keys(); !slices.Contains(keys, "clip.max_pixels") || !slices.Contains(keys, "server.port") {
		t.Errorf("keys %v", keys)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(existing))
	f.Add(Default)
	f.Add([]byte("server: &a\n  port: 1\nclip: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Config
		if decode(text, &c) == nil {
			if err := c.Validate(); err != nil {
				locate(err, "f", text, nil)
			}
		}
	})
}
