package open

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/model"
)

// folder makes a folder with files.
func folder(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		assert.Must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755))
	}
	return root
}

// npuModel is a model with files for the NPU, none of which is ever run.
func npuModel(t *testing.T) *model.Model {
	t.Helper()
	dir := folder(t, map[string]string{
		"mini/manifest.json": `{"name": "mini", "embedding_dimension": 512, "image_size": 224, "context_length": 77,
			"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "tokens": {"start": "<|startoftext|>", "end": "<|endoftext|>", "pad_id": 0},
			"cpu": {"image": "i.onnx", "text": "t.onnx"},
			"npu": {"image": "i.hef", "text": "t.hef", "token_embedding": "e.npy", "text_projection": "p.npy"},
			"files": {"i.onnx": {}, "t.onnx": {}, "i.hef": {}, "t.hef": {}, "e.npy": {}, "p.npy": {}, "tokenizer.json": {}}}`,
		"mini/i.onnx": "\x08\x07image", "mini/t.onnx": "\x08\x07text",
		"mini/i.hef": "\x01HEF image", "mini/t.hef": "\x01HEF text", "mini/e.npy": "\x93NUMPY", "mini/p.npy": "\x93NUMPY",
		"mini/tokenizer.json": "{}",
	})
	m, _, err := (&model.Catalog{Dir: dir}).Resolve(t.Context(), "mini")
	assert.Must(t, err)
	return m
}

// workerProgram is the path of a program that is never run.
func workerProgram(t *testing.T) string {
	return folder(t, map[string]string{"w": "#!/bin/sh\n"}) + "/w"
}

// logTo is a logger of warnings and errors.
func logTo(b *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func TestChoose(t *testing.T) {
	bus := func(device string) string { // no node in /dev yet: the chip is booting
		const at = "sys/bus/pci/devices/0001:01:00.0/"
		return folder(t, map[string]string{at + "vendor": "0x1e60\n", at + "device": device})
	}
	chip, worker, full := bus("0x45c4\n"), workerProgram(t), npuModel(t)
	builtin := assert.Value(demo.Model())
	for _, c := range []struct {
		name, backend, root, worker string
		model                       *model.Model
		kind, why                   string
	}{
		{"no device", "auto", t.TempDir(), worker, full, "cpu", "no Hailo-10H"},
		{"a Hailo-8", "auto", bus("0x2864\n"), worker, full, "cpu", "no Hailo-10H"},
		{"no worker", "auto", chip, "/nowhere/worker", full, "cpu", "/nowhere/worker"},
		{"no NPU files", "auto", chip, worker, builtin, "cpu", "no NPU files"},
		{"all there, still booting", "auto", chip, worker, full, "npu", "0001:01:00.0"},
		{"told to", "cpu", chip, worker, full, "cpu", "clip.backend is cpu"},
		{"told to simulate", "sim", chip, worker, full, "sim", "clip.backend is sim"},
	} {
		cfg := Config{Backend: c.backend}
		cfg.NPU.Worker = c.worker
		kind, why := choose(cfg, c.model, c.root)
		assert.True(t, kind == c.kind && strings.Contains(why, c.why), "%s: %s because %q, want %s", c.name, kind, why, c.kind)
	}
}

// TestWhyNotTheNPU has a model for the NPU alone on a machine that cannot use one: the error says why the
// CPU was asked at all, unless it was by name.
func TestWhyNotTheNPU(t *testing.T) {
	m := npuModel(t)
	m.CPU = nil
	for backend, told := range map[string]bool{"auto": false, "cpu": true} {
		cfg := Config{Backend: backend}
		cfg.NPU.Worker = "/nowhere/worker"
		_, why := choose(cfg, m, "/")
		_, err := (&Opener{cfg: cfg, Model: m}).Open(t.Context())
		assert.ErrorIs(t, err, model.ErrNotInstalled, "%s", backend)
		for _, words := range []string{"because", why} {
			assert.True(t, strings.Contains(err.Error(), words) != told, "%s: error %v; %q", backend, err, why)
		}
	}
}

// TestDamagedTextFiles: a table that cannot be read costs the NPU's text encoder and not the service,
// unless that encoder was asked for by name or there is no other.
func TestDamagedTextFiles(t *testing.T) {
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
		var log strings.Builder
		cfg := Config{TextEncoder: c.encoder}
		cfg.NPU.Worker = workerProgram(t)
		device, err := (&Opener{cfg: cfg, Model: c.model, log: logTo(&log)}).npuOptions(t.Context())
		assert.True(t, err != nil || device.Text == nil && device.TextDigest == "", "%s: texts in %+v", c.name, device)
		logged := strings.Contains(log.String(), "e.npy")
		assert.True(t, (err == nil) == c.opens && (logged || !c.opens), "%s: error %v, log %q", c.name, err, log.String())
	}
}

// TestBuiltText: what BuildText makes of a checkpoint is what the NPU's text encoder is opened with.
func TestBuiltText(t *testing.T) {
	const vocabulary, width, dimension = 5, 4, 512
	var numbers []byte
	for i := range (vocabulary + dimension) * width {
		numbers = binary.LittleEndian.AppendUint32(numbers, math.Float32bits(float32(i)))
	}
	header := fmt.Sprintf(`{"token_embedding.weight": {"dtype": "F32", "shape": [%d, %d], "data_offsets": [0, %d]},
		"text_projection": {"dtype": "F32", "shape": [%d, %d], "data_offsets": [%d, %d]}}`,
		vocabulary, width, 4*vocabulary*width, width, dimension, 4*vocabulary*width, len(numbers))
	checkpoint := folder(t, map[string]string{"x.safetensors": string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + string(numbers)})
	full := npuModel(t)
	e, _ := full.Path("e.npy")
	p, _ := full.Path("p.npy")
	assert.Must(t, os.Remove(e), os.Remove(p))
	catalog := &model.Catalog{Dir: filepath.Dir(filepath.Dir(e))}
	m, _, err := catalog.Resolve(t.Context(), "mini")
	assert.True(t, err == nil && m.HasNPU() && !m.HasNPUText(), "without the files: %v", err)
	_, err = catalog.BuildText(t.Context(), "mini", checkpoint+"/x.safetensors")
	assert.Must(t, err)
	m, _, err = catalog.Resolve(t.Context(), "mini")
	assert.Must(t, err)
	o := &Opener{Model: m, Tokenizer: assert.Value(assert.Value(demo.Model()).LoadTokenizer())}
	text := assert.Value(o.npuText())
	assert.True(t, text.Vocabulary == vocabulary && text.Width == width && len(text.Projection) == width*dimension, "%+v", text)
	assert.True(t, slices.Equal(text.Row(3), []float32{12, 13, 14, 15}) && text.Projection[dimension+1] == vocabulary*width+dimension+1, "other numbers")
}

// TestSimulatedChip: with another model than the demo's its true vectors would be the wrong ones, and whatever changes
// its vectors gives their text encoder another name.
func TestSimulatedChip(t *testing.T) {
	var unfit ConfigError
	o := &Opener{cfg: Config{Sim: Sim{Vectors: "model"}}, Model: npuModel(t)}
	_, err := o.simOptions()
	assert.True(t, errors.As(err, &unfit) && strings.Contains(err.Error(), "sim.vectors"), "error %v", err)
	o.Model = assert.Value(demo.Model())
	o.Tokenizer = assert.Value(o.Model.LoadTokenizer())
	for want, s := range map[string]Sim{
		"sim/demo/hash":         {Vectors: "hash", Arguments: "--control=/vectors --fault slow=2"},
		"sim/demo/model":        {Vectors: "model"},
		"sim/demo/hash/float32": {Vectors: "hash", Arguments: "--output float32"},
	} {
		o.cfg.Sim = s
		assert.Equal(t, assert.Value(o.simOptions()).TextDigest, want, "%+v", s)
	}
}

// TestSimulatedRates: the chip takes its times from the manifest, unless its arguments say others.
func TestSimulatedRates(t *testing.T) {
	o := &Opener{cfg: Config{Sim: Sim{Vectors: "hash"}}, Model: assert.Value(demo.Model())}
	o.Tokenizer = assert.Value(o.Model.LoadTokenizer())
	times := func() string {
		t.Helper()
		command := assert.Value(o.simOptions()).Command
		return strings.Join(slices.DeleteFunc(command, func(arg string) bool { return !strings.Contains(arg, "-run=") && !strings.Contains(arg, "-frame=") }), " ")
	}
	assert.Equal(t, times(), "", "without rates")
	m := *o.Model
	m.Rates = &model.Rates{Image: &model.Rate{Batch1: 100, Batch8: 400}, Source: "test"}
	o.Model = &m
	assert.Equal(t, times(), "--image-frame=1.428571ms --image-run=8.571428ms", "images")
	m.Rates.Text = &model.Rate{Batch1: 100, Batch8: 800}
	o.cfg.Sim.Arguments = "--image-run 5ms"
	assert.Equal(t, times(), "--image-frame=1.428571ms --image-run=5ms --text-frame=0s --text-run=10ms", "with an argument")
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
	c, err := textCosine(t.Context(), a, b, nil)
	assert.True(t, err == nil && math.Abs(c-0.96) <= 1e-6, "%v, %v", c, err)
	b.err = hailo.ErrDeviceLost
	for _, pair := range [][2]hailo.Backend{{a, b}, {b, a}} {
		assert.ErrorIs(t, assert.Err(textCosine(t.Context(), pair[0], pair[1], nil)), hailo.ErrDeviceLost)
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
		o := &Opener{cfg: Config{TextEncoder: tt.choice}, log: logTo(&log)}
		assert.Equal(t, o.trustTexts(tt.cosine, nil), tt.trust, "%+v: trusted", tt)
		assert.True(t, (log.Len() == 0) == (tt.says == ""), "%+v: %s", tt, log.String())
		for _, want := range []string{tt.says, "quantisation", "projection_transposed", "want=0.9"} {
			assert.True(t, tt.says == "" || strings.Contains(log.String(), want), "%+v: no %q in: %s", tt, want, log.String())
		}
	}
}
