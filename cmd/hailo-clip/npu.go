package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/sim"
	"hailoclip/hailo/token"
)

// npuOptions are those of the worker that holds the device.
func (o opener) npuOptions() (*npu.Options, error) {
	cfg, m := o.cfg, o.model
	if m.NPU == nil { // there is nothing to pull
		return nil, fmt.Errorf("%w: %s is a model for the CPU only; take one for the NPU: hailo-clip models pull %s --part npu, then --model %s",
			model.ErrNotInstalled, m.Name, model.Preferred, model.Preferred)
	}
	if !m.HasNPU() {
		return nil, fmt.Errorf("%w: %s has no files for the NPU; install them with: hailo-clip models pull %s --part npu",
			model.ErrNotInstalled, m.Name, m.Name)
	}
	worker, err := npu.FindWorker(cfg.NPU.Worker)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", model.ErrNotInstalled, err)
	}
	options := o.options()
	options.Command = []string{worker}
	options.ImageHEF, _ = m.Path(m.NPU.Image)
	if cfg.CLIP.TextEncoder == "npu" && !m.HasNPUText() {
		return nil, fmt.Errorf("%w: clip.text_encoder is npu, but the files that encode texts there are not installed for %s",
			model.ErrNotInstalled, m.Name)
	}
	if m.HasNPUText() && cfg.CLIP.TextEncoder != "cpu" {
		options.Text, options.TextDigest, err = o.npuText()
		switch {
		case err != nil && cfg.CLIP.TextEncoder == "auto" && m.HasCPUText():
			o.log.Warn("texts are encoded on the CPU: the NPU's files for them cannot be used", "error", err)
			options.Text, options.TextDigest = nil, ""
		case err != nil:
			return nil, err
		}
	}
	return options, nil
}

// options are those that all devices have.
func (o opener) options() *npu.Options {
	options := npu.Options{
		Config: o.cfg.NPU, ImageSize: o.model.ImageSize, Dimension: o.model.EmbeddingDimension, BatchSize: o.cfg.CLIP.Batch(),
		DeviceTimeout: time.Duration(o.cfg.CLIP.DeviceTimeoutMS) * time.Millisecond, Log: o.log,
	}
	if o.cfg.CLIP.Device != "0" { // the former service's index of the only device
		options.Config.Device = o.cfg.CLIP.Device
	}
	return &options
}

// npuText loads what encoding texts on the NPU needs on the host, and the digest of all that makes
// their vectors what they are.
func (o opener) npuText() (*npu.Text, string, error) {
	m := o.model
	text, err := readText(m, o.tokenizer)
	if err != nil {
		return nil, "", err
	}
	digest, err := m.Digest(m.NPU.Text, m.NPU.TokenEmbedding, m.NPU.TextProjection, m.Manifest.Tokenizer)
	return text, digest, err
}

func readText(m *model.Model, tokenizer *token.Tokenizer) (*npu.Text, error) {
	vocabulary, width, table, err := m.ReadNpy(m.NPU.TokenEmbedding)
	if err != nil {
		return nil, err
	}
	rows, cols, projection, err := m.ReadNpy(m.NPU.TextProjection)
	if err != nil {
		return nil, err
	}
	if m.NPU.ProjectionTransposed {
		rows, cols = cols, rows
	}
	if rows != width || cols != m.EmbeddingDimension {
		return nil, fmt.Errorf("%s projects %d numbers to %d, want %d to %d: see projection_transposed in the model's manifest",
			m.NPU.TextProjection, rows, cols, width, m.EmbeddingDimension)
	}
	t := &npu.Text{
		ContextLength: m.ContextLength, Width: width, Vocabulary: vocabulary,
		EndToken: tokenizer.End(), PadToken: m.Tokens.PadID,
		Row:        func(token int32) []float32 { return table[int(token)*width:][:width] },
		Projection: projection, Transposed: m.NPU.ProjectionTransposed,
	}
	t.HEF, _ = m.Path(m.NPU.Text)
	return t, nil
}

// simOptions are those of the simulated chip: this program again, as a worker.
func (o opener) simOptions() (*npu.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m, chip := o.model.Manifest, sim.Default()
	if o.cfg.Sim.Vectors == "model" && !o.model.Embedded() {
		return nil, usageError{fmt.Errorf("sim.vectors: model computes the demo model's vectors, not those of %s: set clip.model: demo or sim.vectors: hash", m.Name)}
	}
	chip.ImageSize, chip.Dimension, chip.ContextLength, chip.Width = m.ImageSize, m.EmbeddingDimension, m.ContextLength, m.EmbeddingDimension
	chip.Vectors = o.cfg.Sim.Vectors
	if err := chip.Parse(strings.Fields(o.cfg.Sim.Arguments)); err != nil {
		return nil, usageError{fmt.Errorf("sim.arguments: %w", err)}
	}
	options := o.options()
	options.Simulated, options.ImageHEF = true, "simulated"
	options.Command = append([]string{self, "npu-sim"}, chip.Args()...)
	if o.cfg.CLIP.TextEncoder != "cpu" {
		options.Text = &npu.Text{
			HEF: "simulated", ContextLength: m.ContextLength, Width: m.EmbeddingDimension,
			Vocabulary: min(o.tokenizer.Size(), sim.Vocabulary), EndToken: o.tokenizer.End(), PadToken: m.Tokens.PadID,
			Row: func(token int32) []float32 { return sim.TokenEmbedding(token, m.EmbeddingDimension) },
		}
		options.TextDigest = chip.TextDigest(m.Name)
	}
	return options, nil
}

// simulatedVectorsWarning is said wherever somebody could take such answers for true.
const simulatedVectorsWarning = "the simulated chip makes its vectors from the bytes of the input: scores are nonsense, only good for measuring speed; " +
	"sim.vectors: model with clip.model: demo gives true ones"

// simulatedVectors says that the backend is the simulated chip and makes up its vectors.
func (o opener) simulatedVectors() bool {
	return o.cfg.CLIP.Backend == "sim" && o.cfg.Sim.Vectors == "hash"
}

type npuSimCmd struct {
	Args []string `arg:"" optional:"" help:"Flags of the simulated chip; --help lists them."`
}

// Run is a worker process. With --vectors=model it computes the demo model's vectors.
func (c *npuSimCmd) Run(g *globals) error {
	if code := sim.Main(c.Args, func() (sim.Encoders, error) { return demoEncoders(g) }); code != exitOK {
		return exitError(code)
	}
	return nil
}

// demoEncoders are the demo model's on the CPU.
func demoEncoders(g *globals) (sim.Encoders, error) {
	state, err := g.stateDir()
	if err != nil {
		return sim.Encoders{}, err
	}
	model, err := demo.Model()
	if err != nil {
		return sim.Encoders{}, err
	}
	b, err := onnx.Open(onnx.Config{}, model, cpuFrames, libraryDirs(state)...)
	if err != nil {
		return sim.Encoders{}, err
	}
	background := context.Background()
	tokenizer, err := model.LoadTokenizer()
	if err != nil {
		return sim.Encoders{}, err
	}
	return sim.Encoders{
		Image: func(pixels []byte) ([]float32, error) {
			f, err := b.Frames().Get(background)
			if err != nil {
				return nil, err
			}
			defer f.Release()
			copy(f.Pixels, pixels)
			err = b.EncodeImages(background, []*hailo.Frame{f})
			return slices.Clone(f.Embedding), err
		},
		Text: func(tokens []int32) ([]float32, error) {
			if end := slices.Index(tokens, tokenizer.End()); end >= 0 {
				tokens = tokens[:end+1]
			}
			vectors, err := b.EncodeTexts(background, [][]int32{tokens})
			if err != nil {
				return nil, err
			}
			return vectors[0], nil
		},
	}, nil
}
