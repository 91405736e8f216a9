package configs

import (
	_ "embed"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hailo-clip.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// mustLoad reads a file with that text, and the environment over it.
func mustLoad(t *testing.T, text string, environ ...string) Config {
	t.Helper()
	c, err := Read(write(t, text), environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Config
}

// existing is a configuration as the former Python service has it.
//
//go:embed testdata/former-service.yaml
var existing string

func TestExistingFileLoadsUnchanged(t *testing.T) {
	c := mustLoad(t, existing)
	if c.CLIP.Model != "clip-vit-b-32" || c.CLIP.LogitScale != 100 || c.CLIP.Device != "0" ||
		c.CLIP.BatchSize != 1 || c.Performance.RequestTimeout != 30*time.Second || c.Performance.WarmupEnabled {
		t.Errorf("loaded as %+v", c)
	}
	if c.Server.MaxBodyBytes != 16<<20 {
		t.Errorf("a key that is not in the file lost its default: %+v", c.Server)
	}
}

// TestDefaultIsComplete holds the documentation to the code: every key stands in the file.
func TestDefaultIsComplete(t *testing.T) {
	c := mustLoad(t, "")
	if c.Server.Port != 5000 || c.Performance.WorkerThreads != 2 || c.Performance.MaxQueueSize != 10 || c.CLIP.Images.Decode.MaxPixels != 50_000_000 {
		t.Errorf("defaults of the specification: %+v", c)
	}
	l := newLayers(new(Config))
	l.file("default", Default)
	for _, s := range l.settings {
		if l.where[s.key] == "" || !strings.Contains(string(Default), s.name[strings.LastIndex(s.name, ".")+1:]) {
			t.Errorf("%s is not in hailo-clip.yaml", s.name)
		}
	}
}

func TestLayers(t *testing.T) {
	const text = "server:\n  port: 1111\n  host: file\nperformance:\n  max_queue_size: 7\nclip:\n  device_timeout: 3s\n"
	env := []string{"HAILO_CLIP_SERVER_PORT=2222", "HAILO_CLIP_CLIP_DEVICE_TIMEOUT_MS=4000", "HAILO_CLIP_CLIP_LOGIT_SCALE=12.5",
		"HAILO_CLIP_STATE_DIR=/x", "PATH=/bin"}
	file := write(t, text)
	c, err := Read(file, env, []Override{{"server.port", "3333", "--port"}, {"clip.model", "a: {b", "--model"}}) // text stays text
	if err != nil || c.File != file || c.Server.Port != 3333 || c.CLIP.Model != "a: {b" || c.Server.Host != "file" || c.CLIP.LogitScale != 12.5 ||
		c.Performance.MaxQueueSize != 7 || c.CLIP.DeviceTimeout != 4*time.Second {
		t.Errorf("loaded from %s as %+v, %v", c.File, c.Config, err)
	}
	if c := mustLoad(t, text, env...); c.Server.Port != 2222 {
		t.Errorf("environment over file: port %d", c.Server.Port)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	cases := []struct {
		name, text string
		env        []string
		flags      []Override
		want       []string
	}{
		{"unknown section", "sevrer:\n  port: 1\n", nil, nil, []string{"line 1", `unknown key "sevrer"`}},
		{"section is a number", "server: 5\n", nil, nil, []string{"line 1", "where a section belongs"}},
		{"duplicate key", "server:\n  port: 1\n  port: 2\n", nil, nil, []string{"line 3", "already"}},
		{"no milliseconds", "npu:\n  start_timeout_ms: x\n", nil, nil, []string{
			"line 2: npu.start_timeout_ms: \"x\" is not a duration: write milliseconds (500) or a unit (30s, 500ms)"}},
		{"duration out of range", "performance:\n  request_timeout: 1e300\n", nil, nil, []string{`"1e300" is out of range for a duration`}},
		{"duration not a number", "performance:\n  request_timeout: NaN\n", nil, nil, []string{`"NaN" is out of range for a duration`}},
		{"duration .nan", "performance:\n  request_timeout: .nan\n", nil, nil, []string{`".nan" is not a duration`}},
		{"syntax in the first line", "server: port: 5\n", nil, nil, []string{"hailo-clip.yaml: line 1: mapping values are not allowed"}},
		{"syntax in another line", "server:\n\tport: 5\n", nil, nil, []string{"hailo-clip.yaml: line 2: begins with a tab: YAML is indented with spaces"}},
		{"no text", "server:\n  host: \x00\n", nil, nil, []string{"hailo-clip.yaml: control characters are not allowed"}},
		{"debug", "server:\n  debug: true\n", nil, nil, []string{
			"line 2: server.debug: true is not supported: for more log lines set logging.level: debug"}},
		{"bound of another key", "server:\n  max_body_bytes: 134217729\n", nil, nil, []string{
			"built-in configuration: line 29: server.max_body_memory_bytes: 268435456 is out of bounds: at least 2097152 and twice max_body_bytes"}},
		{"old name and new", "clip:\n  device_timeout: 5s\n  device_timeout_ms: 5000\n", nil, nil, []string{
			"line 3: clip.device_timeout_ms: stands already in line 2"}},
		{"old name", "clip:\n  device_timout_ms: 5\n", nil, nil, []string{`did you mean "clip.device_timeout_ms"?`}},
		{"new name", "npu:\n  start_timout: 5\n", nil, nil, []string{`did you mean "npu.start_timeout"?`}},
		{"bad memory", "resource_limits:\n  memory_max: 3 G\n", nil, nil, []string{"memory_max", `"3 G"`, "512M"}},
		{"environment bound", "", []string{"HAILO_CLIP_SERVER_PORT=-1"}, nil, []string{"HAILO_CLIP_SERVER_PORT: server.port", "-1"}},
		{"environment key", "", []string{"HAILO_CLIP_SERVER_PROT=1"}, nil, []string{"HAILO_CLIP_SERVER_PROT", "section server"}},
		{"flag", "", nil, []Override{{Key: "clip.backend", Value: "gpu", Source: "--backend"}}, []string{"--backend: clip.backend", `"gpu"`, "npu"}},
		{"all faults at once", "server:\n  port: abc\n  prot: 1\nperformance:\n  request_timeout: soon\n  max_queue_size: 0\n",
			[]string{"HAILO_CLIP_CPU_THREADS=few"}, []Override{{Key: "clip.fit", Value: "no", Source: "--fit"}}, []string{
				"hailo-clip.yaml: line 2: server.port: `abc` is not a whole number\n",
				"hailo-clip.yaml: line 3: unknown key \"prot\" of section server; did you mean \"server.port\"?\n",
				"hailo-clip.yaml: line 5: performance.request_timeout: \"soon\" is not a duration: write seconds (30) or a unit (30s, 500ms)\n",
				"hailo-clip.yaml: line 6: performance.max_queue_size: 0",
				"HAILO_CLIP_CPU_THREADS: cpu.threads: `few` is not a whole number\n",
				"--fit: clip.fit: "}},
		{"fraction for a whole number", "server:\n  port: 5000.7\n", nil, nil, []string{"line 2: server.port: `5000.7` is not a whole number"}},
		{"whole number with a point", "server:\n  port: 5000.0\n", nil, nil, []string{"line 2: server.port: `5000.0` is not a whole number"}},
		{"whole number too large", "server:\n  port: 99999999999999999999\n", nil, nil, []string{"server.port: `99999999999999999999`"}},
		{"text for a number", "clip:\n  logit_scale: big\n", nil, nil, []string{"line 2: clip.logit_scale: `big` is not a number"}},
		{"text for true or false", "clip:\n  apply_softmax: maybe\n", nil, nil, []string{"line 2: clip.apply_softmax: `maybe` is neither true nor false"}},
		{"list for a value", "server:\n  port: [1]\n", nil, nil, []string{"line 2: server.port: found a list where one value belongs"}},
		{"section for a value", "server:\n  port: {a: 1}\n", nil, nil, []string{"line 2: server.port: found a section where one value belongs"}},
		{"list for a section", "server: [1]\n", nil, nil, []string{"line 1: server: found a list where a section belongs"}},
		{"list for a file", "- 1\n", nil, nil, []string{"line 1: found a list where a section belongs"}},
		{"null", "text_embedding:\n  cache_file: null\n", nil, nil, []string{"line 2: text_embedding.cache_file: has no value"}},
		{"nothing", "server:\n  port:\n", nil, nil, []string{"line 2: server.port: has no value"}},
		{"tag", "server:\n  port: !!int 5\n", nil, nil, []string{"line 2: server.port: found a YAML tag where one value belongs"}},
		{"alias of a value", "server:\n  port: &a 1\n  max_prompts: *a\n", nil, nil, []string{"line 3: server.max_prompts: found the alias *a"}},
		{"alias of a section", "server: &a\n  port: 1\nclip: *a\n", nil, nil, []string{"line 3: clip: found the alias *a where a section"}},
		{"alias of a key", "server:\n  &port port: 1\n  *port : 2\n", nil, nil, []string{"line 3: server.port: stands already in line 2"}},
		{"alias as a key", "server:\n  host: &port x\n  *port : 2\n", nil, nil, []string{"line 3: found the alias *port where a key belongs"}},
		{"merge", "server:\n  <<: {port: 1}\n", nil, nil, []string{`line 2: unknown key "<<" of section server`}},
		{"list as a key", "? [a]\n: 1\n", nil, nil, []string{"found a list where a key belongs"}},
		{"key with a point", "server.port: 1\n", nil, nil, []string{"line 1: server.port: write the section"}},
		{"duplicate section", "server:\n  port: 1\nserver:\n  host: x\n", nil, nil, []string{"line 3: server: stands already in line 1"}},
		{"duplicate unknown key", "x: 1\nx: 1\n", nil, nil, []string{"line 2: x: stands already in line 1"}},
		{"empty environment for a number", "", []string{"HAILO_CLIP_SERVER_PORT="}, nil, []string{"HAILO_CLIP_SERVER_PORT: server.port: `` is not a whole number"}},
		{"empty environment for a duration", "", []string{"HAILO_CLIP_PERFORMANCE_REQUEST_TIMEOUT="}, nil,
			[]string{`HAILO_CLIP_PERFORMANCE_REQUEST_TIMEOUT: performance.request_timeout: "" is not a duration`}},
		{"environment duration", "", []string{"HAILO_CLIP_PERFORMANCE_REQUEST_TIMEOUT=soon"}, nil,
			[]string{`HAILO_CLIP_PERFORMANCE_REQUEST_TIMEOUT: performance.request_timeout: "soon" is not a duration`}},
		{"environment section", "", []string{"HAILO_CLIP_SEVRER_PORT=1"}, nil, []string{`HAILO_CLIP_SEVRER_PORT: unknown key "sevrer_port"`}},
		{"environment without section", "", []string{"HAILO_CLIP_PORT=1"}, nil, []string{`HAILO_CLIP_PORT: unknown key "port"`}},
		{"flag of an unknown key", "", nil, []Override{{Key: "clip.modle", Value: "x", Source: "--modle"}},
			[]string{`--modle: unknown key "modle" of section clip; did you mean "clip.model"?`}},
		{"two documents", "server:\n  port: 1\n---\nserver:\n  port: 2\n", nil, nil, []string{"more than one"}},
		{"not YAML", "server: [", nil, nil, []string{"hailo-clip.yaml", "line 1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(write(t, c.text), c.env, c.flags)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "built-in configuration") && c.name != "bound of another key" {
				t.Errorf("a refused value was set all the same: %v", err)
			}
			if strings.Contains(err.Error(), "configs.") || strings.Contains(err.Error(), "!!") {
				t.Errorf("speaks Go or YAML internals: %v", err)
			}
		})
	}
	if _, err := Read("/does/not/exist.yaml", nil, nil); err == nil {
		t.Error("a named file that is missing was accepted")
	}
	if _, err := Read(write(t, strings.Repeat("#", maxFile+1)), nil, nil); err == nil {
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
}

func TestYAMLRoundTrip(t *testing.T) {
	c := mustLoad(t, existing)
	text, err := c.YAML()
	if again := mustLoad(t, string(text)); err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("came back as %+v, %v\nwas %+v", again, err, c)
	}
}

// TestValues holds that what people write arrives as they mean it, in a file and in the environment.
func TestValues(t *testing.T) {
	const unset = "\x00"
	cases := []struct {
		name, section, key, yaml, env string
		got                           func(Config) any
		want                          any
	}{
		{"number for text", "clip", "device", "0", "0", func(c Config) any { return c.CLIP.Device }, "0"},
		{"leading zeros of text", "clip", "model", "007", "007", func(c Config) any { return c.CLIP.Model }, "007"},
		{"yes for text", "clip", "model", "yes", "yes", func(c Config) any { return c.CLIP.Model }, "yes"},
		{"null in the environment is text", "clip", "model", `"null"`, "null", func(c Config) any { return c.CLIP.Model }, "null"},
		{"empty text", "text_embedding", "cache_file", `""`, "", func(c Config) any { return c.TextEmbedding.CacheFile }, ""},
		{"whole number for a number", "clip", "logit_scale", "100", "100", func(c Config) any { return c.CLIP.LogitScale }, 100.0},
		{"exponent", "clip", "logit_scale", "1e2", "1e2", func(c Config) any { return c.CLIP.LogitScale }, 100.0},
		{"quoted number", "server", "port", `"1_234"`, "1_234", func(c Config) any { return c.Server.Port }, 1234},
		{"large number", "text_embedding", "cache_list_bytes", "0x200000000", "0x200000000", func(c Config) any { return c.TextEmbedding.CacheListBytes }, int64(8 << 30)},
		{"off", "clip", "apply_softmax", "off", "OFF", func(c Config) any { return c.CLIP.ApplySoftmax }, false},
		{"seconds", "performance", "request_timeout", "0.5", "0.5", func(c Config) any { return c.Performance.RequestTimeout }, 500 * time.Millisecond},
		{"unit", "performance", "request_timeout", "2m", "2m", func(c Config) any { return c.Performance.RequestTimeout }, 2 * time.Minute},
		{"bare seconds", "clip", "device_timeout", "2.5", "2.5", func(c Config) any { return c.CLIP.DeviceTimeout }, 2500 * time.Millisecond},
		{"old name", "clip", "device_timeout_ms", "2500", "2500", func(c Config) any { return c.CLIP.DeviceTimeout }, 2500 * time.Millisecond},
		{"another old name", "npu", "start_timeout_ms", "7000", "7000", func(c Config) any { return c.NPU.StartTimeout }, 7 * time.Second},
		{"inlined key", "clip", "max_pixels", "1000000", "1000000", func(c Config) any { return c.CLIP.Images.Decode.MaxPixels }, 1_000_000},
		{"list", "server", "allowed_hosts", "[a.example, 'b:1']", "a.example, b:1", func(c Config) any { return strings.Join(c.Server.AllowedHosts, "|") }, "a.example|b:1"},
		{"list of one", "server", "allowed_origins", `"*"`, "*", func(c Config) any { return strings.Join(c.Server.AllowedOrigins, "|") }, "*"},
		{"empty list", "server", "allowed_hosts", "[]", "", func(c Config) any { return len(c.Server.AllowedHosts) }, 0},
		{"empty section", "server", "#", "", unset, func(c Config) any { return c.Server.Port }, 5000},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			loaded := []Config{mustLoad(t, c.section+":\n  "+c.key+": "+c.yaml+"\n")}
			if c.env != unset {
				loaded = append(loaded, mustLoad(t, "", "HAILO_CLIP_"+strings.ToUpper(c.section+"_"+c.key)+"="+c.env))
			}
			for i, l := range loaded {
				if c.got(l) != c.want {
					t.Errorf("%s: %v, want %v", []string{"file", "environment"}[i], c.got(l), c.want)
				}
			}
		})
	}
}

func TestOtherVariablesAreLeftAlone(t *testing.T) {
	mustLoad(t, "", StateVariable+"=1", "PATH=/bin", "HAILO=1", "HAILO_TEST_FAULTS=1")
}

// FuzzLoad: whatever is accepted is written out as a file that says the same.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(existing))
	f.Add(Default)
	f.Add([]byte("server: &a\n  port: 1\nclip: *a\n"))
	f.Add([]byte("clip: {model: \"\\0 ~\"}\n? [a]\n: *b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		load := func(text []byte) (Config, error) {
			var c Config
			l := newLayers(&c)
			l.file("default", Default)
			l.file("fuzz", text)
			l.validate()
			return c, errors.Join(l.faults...)
		}
		c, err := load(text)
		if err != nil {
			return
		}
		written, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Notify.Webhooks) > 0 || c.Notify.MQTT.Password != "" {
			return // what is secret is not written
		}
		if again, err := load(written); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("came back as %+v, %v\nwas %+v", again, err, c)
		}
	})
}
