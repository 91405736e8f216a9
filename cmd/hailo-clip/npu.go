package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/sim"
)

// npuOptions are those of the worker that holds the device.
func (o opener) npuOptions() (*npu.Options, error) {
	cfg, model := o.cfg, o.model
	if model.NPU == nil { // there is nothing to pull
		return nil, fmt.Errorf("%w: %s is a model for the CPU only; take one for the NPU: hailo-clip models pull %s --part npu, then --model %s",
			hailo.ErrNotInstalled, model.Name, hailo.PreferredModel, hailo.PreferredModel)
	}
	if !model.HasNPU() {
		return nil, fmt.Errorf("%w: %s has no files for the NPU; install them with: hailo-clip models pull %s --part npu",
			hailo.ErrNotInstalled, model.Name, model.Name)
	}
	worker, err := npu.FindWorker(cfg.NPU.Worker)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hailo.ErrNotInstalled, err)
	}
	options := o.options()
	options.Command = []string{worker}
	options.ImageHEF, _ = model.Path(model.NPU.Image)
	if cfg.CLIP.TextEncoder == "npu" && !model.HasNPUText() {
		return nil, fmt.Errorf("%w: clip.text_encoder is npu, but the files that encode texts there are not installed for %s",
			hailo.ErrNotInstalled, model.Name)
	}
	if model.HasNPUText() && cfg.CLIP.TextEncoder != "cpu" {
		options.Text, options.TextDigest, err = o.npuText()
		switch {
		case err != nil && cfg.CLIP.TextEncoder == "auto" && model.HasCPUText():
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
		DeviceTimeout: o.cfg.CLIP.DeviceTimeout, Log: o.log,
	}
	if o.cfg.CLIP.Device != "0" { // the former service's index of the only device
		options.Config.Device = o.cfg.CLIP.Device
	}
	return &options
}

// npuText loads what encoding texts on the NPU needs on the host, and the digest of all that makes
// their vectors what they are.
func (o opener) npuText() (*npu.Text, string, error) {
	model := o.model
	text, err := readText(model, o.tokenizer)
	if err != nil {
		return nil, "", err
	}
	digest, err := model.Digest(model.NPU.Text, model.NPU.TokenEmbedding, model.NPU.TextProjection, model.Manifest.Tokenizer)
	return text, digest, err
}

func readText(model *hailo.Model, tokenizer *hailo.Tokenizer) (*npu.Text, error) {
	vocabulary, width, table, err := model.ReadNpy(model.NPU.TokenEmbedding)
	if err != nil {
		return nil, err
	}
	rows, cols, projection, err := model.ReadNpy(model.NPU.TextProjection)
	if err != nil {
		return nil, err
	}
	if model.NPU.ProjectionTransposed {
		rows, cols = cols, rows
	}
	if rows != width || cols != model.EmbeddingDimension {
		return nil, fmt.Errorf("%s projects %d numbers to %d, want %d to %d: see projection_transposed in the model's manifest",
			model.NPU.TextProjection, rows, cols, width, model.EmbeddingDimension)
	}
	t := &npu.Text{
		ContextLength: model.ContextLength, Width: width, Vocabulary: vocabulary,
		EndToken: tokenizer.End(), PadToken: model.Tokens.PadID,
		Row:        func(token int32) []float32 { return table[int(token)*width:][:width] },
		Projection: projection, Transposed: model.NPU.ProjectionTransposed,
	}
	t.HEF, _ = model.Path(model.NPU.Text)
	return t, nil
}

// simOptions are those of the simulated chip: this program again, as a worker.
func (o opener) simOptions() (*npu.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m, arguments := o.model.Manifest, strings.Fields(o.cfg.Sim.Arguments)
	if o.cfg.Sim.Vectors == "model" && !o.model.Embedded() {
		return nil, usageError{fmt.Errorf("sim.vectors: model computes the demo model's vectors, not those of %s: set clip.model: demo or sim.vectors: hash", m.Name)}
	}
	options := o.options()
	options.Simulated, options.ImageHEF = true, "simulated"
	options.Command = slices.Concat([]string{self, "npu-sim",
		fmt.Sprintf("--image-size=%d", m.ImageSize), fmt.Sprintf("--dimension=%d", m.EmbeddingDimension),
		fmt.Sprintf("--context-length=%d", m.ContextLength), fmt.Sprintf("--width=%d", m.EmbeddingDimension),
		"--vectors=" + o.cfg.Sim.Vectors}, arguments)
	if o.cfg.CLIP.TextEncoder != "cpu" {
		options.Text = npu.SyntheticText(o.tokenizer.Size(), m.ContextLength, m.EmbeddingDimension, o.tokenizer.End(), m.Tokens.PadID)
		options.TextDigest = fmt.Sprintf("sim/%s/%s", m.Name, o.cfg.Sim.Vectors)
		for i, a := range arguments { // those that change vectors, and the word after, which may be the value
			if name := strings.TrimLeft(a, "-"); strings.HasPrefix(name, "vectors") || strings.HasPrefix(name, "output") {
				options.TextDigest += "/" + strings.Join(arguments[i:min(i+2, len(arguments))], " ")
			}
		}
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
	var encoders sim.Encoders
	if slices.Contains(c.Args, "--vectors=model") {
		var err error
		if encoders, err = demoEncoders(g); err != nil {
			return err
		}
	}
	if code := sim.Main(c.Args, encoders); code != exitOK {
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
