package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/configs"
	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/model"
)

// put writes files below a folder.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// npuModel is a model with files for the NPU, none of which is ever run.
func npuModel(t *testing.T) *model.Model {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"mini/manifest.json": `{"name": "mini", "embedding_dimension": 512, "image_size": 224, "context_length": 77,
			"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "tokens": {"start": "<|startoftext|>", "end": "<|endoftext|>", "pad_id": 0},
			"cpu": {"image": "i.onnx", "text": "t.onnx"},
			"npu": {"image": "i.hef", "text": "t.hef", "token_embedding": "e.npy", "text_projection": "p.npy"},
			"files": {"i.onnx": {}, "t.onnx": {}, "i.hef": {}, "t.hef": {}, "e.npy": {}, "p.npy": {}, "tokenizer.json": {}}}`,
		"mini/i.onnx": "\x08\x07image", "mini/t.onnx": "\x08\x07text",
		"mini/i.hef": "\x01HEF image", "mini/t.hef": "\x01HEF text", "mini/e.npy": "\x93NUMPY", "mini/p.npy": "\x93NUMPY",
		"mini/tokenizer.json": "{}",
	})
	m, _, err := (&model.Catalog{Dir: dir}).Resolve("mini")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestChooseBackend(t *testing.T) {
	chip := t.TempDir()
	put(t, chip, map[string]string{ // no node in /dev yet: the chip is booting
		"sys/bus/pci/devices/0001:01:00.0/vendor": "0x1e60\n",
		"sys/bus/pci/devices/0001:01:00.0/device": "0x45c4\n",
	})
	old := t.TempDir()
	put(t, old, map[string]string{
		"sys/bus/pci/devices/0001:01:00.0/vendor": "0x1e60\n",
		"sys/bus/pci/devices/0001:01:00.0/device": "0x2864\n",
	})
	worker := filepath.Join(t.TempDir(), "worker")
	put(t, filepath.Dir(worker), map[string]string{"worker": "#!/bin/sh\n"})
	builtin, err := demo.Model()
	if err != nil {
		t.Fatal(err)
	}
	full := npuModel(t)
	cases := []struct {
		name, backend, root, worker string
		model                       *model.Model
		kind, why                   string
	}{
		{"no device", "auto", t.TempDir(), worker, full, "cpu", "no Hailo-10H"},
		{"a Hailo-8", "auto", old, worker, full, "cpu", "no Hailo-10H"},
		{"no worker", "auto", chip, "/nowhere/worker", full, "cpu", "/nowhere/worker"},
		{"no NPU files", "auto", chip, worker, builtin, "cpu", "no NPU files"},
		{"all there, still booting", "auto", chip, worker, full, "npu", "0001:01:00.0"},
		{"told to", "cpu", chip, worker, full, "cpu", "clip.backend is cpu"},
		{"told to simulate", "sim", chip, worker, full, "sim", "clip.backend is sim"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var cfg configs.Config
			cfg.CLIP.Backend, cfg.NPU.Worker = c.backend, c.worker
			kind, why := chooseBackend(cfg, c.model, c.root)
			if kind != c.kind || !strings.Contains(why, c.why) {
				t.Errorf("%s because %q, want %s because of %q", kind, why, c.kind, c.why)
			}
		})
	}
}

// TestWhyNotTheNPU has a model for the NPU alone on a machine that cannot use one: the error says why the
// CPU was asked at all.
func TestWhyNotTheNPU(t *testing.T) {
	var cfg configs.Config
	cfg.CLIP.Backend, cfg.NPU.Worker = "auto", "/nowhere/worker"
	m := npuModel(t)
	m.CPU = nil
	_, why := chooseBackend(cfg, m, "/")
	_, err := opener{cfg: cfg, model: m}.open(t.Context())
	if !errors.Is(err, model.ErrNotInstalled) || !strings.Contains(err.Error(), why) {
		t.Errorf("error %v lacks %q", err, why)
	}
	cfg.CLIP.Backend = "cpu"
	if _, err := (opener{cfg: cfg, model: m}).open(t.Context()); !errors.Is(err, model.ErrNotInstalled) || strings.Contains(err.Error(), "because") {
		t.Errorf("told to take the CPU: %v", err)
	}
}

// TestDamagedTextFiles: a table that cannot be read costs the NPU's text encoder and not the service,
// unless that encoder was asked for by name or there is no other.
func TestDamagedTextFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"worker": "#!/bin/sh\n"})
	full := npuModel(t)
	alone := *full
	alone.CPU = nil
	for _, c := range []struct {
		name, encoder string
		model         *model.Model
		opens         bool
	}{
		{"auto", "auto", full, true},
		{"by name", "npu", full, false},
		{"no other", "auto", &alone, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, _, err := configs.Load("", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			cfg.CLIP.TextEncoder, cfg.NPU.Worker = c.encoder, filepath.Join(dir, "worker")
			var log strings.Builder
			o := opener{cfg: cfg, model: c.model, log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))}
			device, err := o.npuOptions()
			if err == nil && device.TextDigest != "" {
				t.Errorf("digest of the texts %q", device.TextDigest)
			}
			if (err == nil) != c.opens || c.opens && !strings.Contains(log.String(), "e.npy") {
				t.Errorf("error %v, log %q", err, log.String())
			}
		})
	}
}

// textEncoder encodes every text with the same vector.
type textEncoder struct {
	hailo.Backend
	vector []float32
	err    error
}

func (e textEncoder) EncodeTexts(context.Context, [][]int32) ([][]float32, error) {
	return [][]float32{e.vector}, e.err
}

func TestTextCosine(t *testing.T) {
	a, b := textEncoder{vector: []float32{0.6, 0.8}}, textEncoder{vector: []float32{0.8, 0.6}}
	if c, err := textCosine(t.Context(), a, b, nil); err != nil || math.Abs(c-0.96) > 1e-6 {
		t.Errorf("%v, %v", c, err)
	}
	b.err = hailo.ErrDeviceLost
	for _, pair := range [][2]hailo.Backend{{a, b}, {b, a}} {
		if _, err := textCosine(t.Context(), pair[0], pair[1], nil); !errors.Is(err, hailo.ErrDeviceLost) {
			t.Error(err)
		}
	}
}

// TestTextEncoderOnTheCPU has images on the simulated chip and prompts on the CPU: the chip
// encodes no text, and their vectors are the demo model's on both.
func TestTextEncoderOnTheCPU(t *testing.T) {
	_, config := newControl(t, "  text_encoder: cpu\nsim:\n  vectors: model\n")
	r := serve(t, t.TempDir(), "--config", config)
	r.classifies(t)
	chip := r.get(t, "/v1/stats").body["npu"].(map[string]any)
	if chip["texts"] != 0.0 || chip["images"] == 0.0 {
		t.Errorf("the chip encoded %v texts and %v images", chip["texts"], chip["images"])
	}
}

func TestTextEncoderOnTheNPUMustBeThere(t *testing.T) {
	_, config := newControl(t, "  text_encoder: npu\n")
	r := runProgram(t, command(t, t.TempDir(), "serve", "--port", "0", "--backend", "cpu", "--config", config))
	if r.code != exitUsage || !strings.Contains(r.stderr, "text_encoder") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}

// TestSimComputesTheDemoModelOnly: with another model its vectors would be the wrong ones.
func TestSimComputesTheDemoModelOnly(t *testing.T) {
	var cfg configs.Config
	cfg.Sim.Vectors = "model"
	_, err := opener{cfg: cfg, model: npuModel(t)}.simOptions()
	var usage usageError
	if !errors.As(err, &usage) || !strings.Contains(err.Error(), "sim.vectors") {
		t.Errorf("error %v", err)
	}
}

// A text vector of the NPU that is unlike the CPU's is used on demand only, and both reasons are named.
func TestTrustTexts(t *testing.T) {
	for _, tt := range []struct {
		choice string
		cosine float64
		trust  bool
		says   string
	}{
		{"auto", 0.9, true, ""},
		{"npu", 1, true, ""},
		{"auto", 0.89, false, "texts are encoded on the CPU"},
		{"auto", math.NaN(), false, "texts are encoded on the CPU"},
		{"npu", -0.01, true, "scores will be wrong"},
	} {
		var log strings.Builder
		o := opener{log: slog.New(slog.NewTextHandler(&log, nil))}
		o.cfg.CLIP.TextEncoder = tt.choice
		if got := o.trustTexts(tt.cosine); got != tt.trust {
			t.Errorf("%+v: trusted %v", tt, got)
		}
		if tt.says == "" {
			if log.Len() > 0 {
				t.Errorf("%+v: %s", tt, log.String())
			}
			continue
		}
		for _, want := range []string{tt.says, "quantisation", "projection_transposed", "want=0.9"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%+v: no %q in: %s", tt, want, log.String())
			}
		}
	}
}
