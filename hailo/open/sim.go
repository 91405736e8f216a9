package open

import (
	"context"
	"os"
	"slices"
	"strings"

	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/sim"
)

// MadeUpVectors says that vectors tell nothing of images and texts.
func (c Config) MadeUpVectors() bool { return c.Backend == "sim" && c.Sim.Vectors == "hash" }

// MadeUpVectorsWarning is said wherever somebody could take such answers for true.
const MadeUpVectorsWarning = "the simulated chip makes its vectors from the bytes of the input: scores are nonsense, only good for measuring speed; " +
	"sim.vectors: model with clip.model: demo gives true ones"

// simOptions are those of the simulated chip: this program again, as a worker.
func (o *Opener) simOptions() (*npu.Options, error) {
	m, chip := o.Model.Manifest, sim.Default()
	if o.cfg.Sim.Vectors == "model" && !o.Model.Embedded() {
		return nil, ConfigError("sim.vectors: model computes the demo model's vectors, not those of " + m.Name +
			": set clip.model: demo or sim.vectors: hash")
	}
	chip.ImageSize, chip.Dimension, chip.ContextLength, chip.Width = m.ImageSize, m.EmbeddingDimension, m.ContextLength, m.EmbeddingDimension
	chip.Vectors = o.cfg.Sim.Vectors
	if rates := m.Rates; rates != nil { // the arguments below override them
		for i, rate := range []*model.Rate{npu.ImageModel: rates.Image, npu.TextModel: rates.Text} {
			if rate != nil {
				chip.Cost[i] = sim.CostOf(rate.Batch1, rate.Batch8)
			}
		}
	}
	image := chip.Cost[npu.ImageModel]
	if err := chip.Parse(strings.Fields(o.cfg.Sim.Arguments)); err != nil {
		return nil, ConfigError("sim.arguments: " + err.Error())
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	options := o.options()
	options.PublishedRate, options.SingleRate = image.Batch8(), 1/(image.Run+image.Frame).Seconds()
	options.ImageDigest = chip.Digest(m.Name)
	options.Simulated, options.ImageHEF, options.Command = true, "simulated", append([]string{self, "npu-sim"}, chip.Args()...)
	if o.cfg.TextEncoder != "cpu" {
		options.Text = &npu.Text{
			HEF: "simulated", ContextLength: m.ContextLength, Width: m.EmbeddingDimension,
			Vocabulary: min(o.Tokenizer.Size(), sim.Vocabulary), EndToken: o.Tokenizer.End(), PadToken: m.Tokens.PadID,
			Row: func(token int32) []float32 { return sim.TokenEmbedding(token, m.EmbeddingDimension) },
		}
		options.TextDigest = options.ImageDigest
	}
	return options, nil
}

// SimEncoders are the demo model's on the CPU, for a simulated chip that computes its vectors.
func SimEncoders(libraryDirs []string) (sim.Encoders, error) {
	m, err := demo.Model()
	if err != nil {
		return sim.Encoders{}, err
	}
	background := context.Background()
	b, err := onnx.Open(background, onnx.Config{}, m, cpuFrames, libraryDirs...)
	if err != nil {
		return sim.Encoders{}, err
	}
	tokenizer, err := m.LoadTokenizer()
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
	}, err
}
