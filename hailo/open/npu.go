package open

import (
	"context"
	"fmt"

	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
)

// options are those that all devices have.
func (o *Opener) options() *npu.Options {
	options := npu.Options{
		Config: o.cfg.NPU, ImageSize: o.Model.ImageSize, Dimension: o.Model.EmbeddingDimension, BatchSize: o.cfg.Batch(),
		DeviceTimeout: o.cfg.DeviceTimeout, Log: o.log,
	}
	if r := o.Model.Rates; r != nil && r.Image != nil {
		options.PublishedRate, options.SingleRate = r.Image.Batch8, r.Image.Batch1
	}
	if o.cfg.Device != "0" {
		options.Config.Device = o.cfg.Device
	}
	return &options
}

// npuOptions are those of the worker that holds the NPU.
func (o *Opener) npuOptions(ctx context.Context) (*npu.Options, error) {
	m := o.Model
	notInstalled := func(format string, args ...any) (*npu.Options, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{model.ErrNotInstalled}, args...)...)
	}
	if m.NPU == nil { // there is nothing to pull
		return notInstalled("%s is a model for the CPU only; take one for the NPU: hailo-clip models pull %s --part npu, then --model %s",
			m.Name, model.Preferred, model.Preferred)
	}
	if !m.HasNPU() {
		return notInstalled("%s has no files for the NPU; install them with: hailo-clip models pull %s --part npu", m.Name, m.Name)
	}
	worker, err := npu.FindWorker(o.cfg.NPU.Worker)
	if err != nil {
		return notInstalled("%w", err)
	}
	options := o.options()
	options.Command = []string{worker}
	options.ImageHEF, _ = m.Path(m.NPU.Image)
	if options.ImageDigest, err = m.ImageDigest(ctx, m.NPU.Image); err != nil {
		return nil, err
	}
	if o.cfg.TextEncoder == "npu" && !m.HasNPUText() {
		return notInstalled("clip.text_encoder is npu, but the files that encode texts there are not installed for %s", m.Name)
	}
	if !m.HasNPUText() || o.cfg.TextEncoder == "cpu" {
		return options, nil
	}
	text, err := o.npuText()
	if err == nil {
		options.TextDigest, err = m.Digest(ctx, m.NPU.Text, m.NPU.TokenEmbedding, m.NPU.TextProjection, m.Manifest.Tokenizer)
	}
	switch {
	case err == nil:
		options.Text = text
	case o.cfg.TextEncoder == "auto" && m.HasCPUText():
		o.log.Warn("texts are encoded on the CPU: the NPU's files for them cannot be used", "error", err)
	default:
		return nil, err
	}
	return options, nil
}

// npuText loads what encoding texts on the NPU needs on the host.
func (o *Opener) npuText() (*npu.Text, error) {
	files, dimension := o.Model.NPU, o.Model.EmbeddingDimension
	vocabulary, width, table, err := o.Model.ReadNpy(files.TokenEmbedding)
	if err != nil {
		return nil, err
	}
	rows, cols, projection, err := o.Model.ReadNpy(files.TextProjection)
	if err != nil {
		return nil, err
	}
	if files.ProjectionTransposed {
		rows, cols = cols, rows
	}
	if rows != width || cols != dimension {
		return nil, fmt.Errorf("%s projects %d numbers to %d, want %d to %d: see projection_transposed in the model's manifest",
			files.TextProjection, rows, cols, width, dimension)
	}
	t := &npu.Text{
		ContextLength: o.Model.ContextLength, Width: width, Vocabulary: vocabulary,
		EndToken: o.Tokenizer.End(), PadToken: o.Model.Tokens.PadID,
		Row:        func(token int32) []float32 { return table[int(token)*width:][:width] },
		Projection: projection, Transposed: files.ProjectionTransposed,
	}
	t.HEF, _ = o.Model.Path(files.Text)
	return t, nil
}
