// Package open picks the encoders for this machine and opens them: the NPU, the CPU, the simulated chip, or
// one of the devices with the CPU beside it.
package open

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/token"
)

// ConfigError is a combination of values that no machine can do, in the words of the configuration file.
type ConfigError string

func (e ConfigError) Error() string { return string(e) }

// Catalog is the models folder dir, with the known models and the one that is part of the program.
func Catalog(dir string, known fs.FS) (*model.Catalog, error) {
	manifests, err := model.ReadManifests(known)
	if err != nil {
		return nil, err
	}
	builtin, err := demo.Model()
	return &model.Catalog{Dir: dir, Vendor: model.VendorResources, Known: manifests, Builtin: builtin}, err
}

// Opener is a model whose encoders can be opened.
type Opener struct {
	Model     *model.Model
	ModelWhy  string // why this model
	Tokenizer *token.Tokenizer

	cfg Config
	log *slog.Logger
}

// New finds a model by its name and loads its tokenizer.
func New(ctx context.Context, cfg Config, catalog *model.Catalog, name string, log *slog.Logger) (*Opener, error) {
	m, why, err := catalog.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	for field, n := range map[string][2]int{
		"embedding_dimension": {cfg.EmbeddingDimension, m.EmbeddingDimension}, "image_size": {cfg.ImageSize, m.ImageSize},
	} {
		if n[0] != 0 && n[0] != n[1] {
			return nil, ConfigError(fmt.Sprintf("clip.%s: %d, but model %s has %d; 0 takes the model's", field, n[0], m.Name, n[1]))
		}
	}
	tokenizer, err := m.LoadTokenizer()
	return &Opener{Model: m, ModelWhy: why, Tokenizer: tokenizer, cfg: cfg, log: log}, err
}

// Encoders is what encodes on this machine.
type Encoders struct {
	Images hailo.Backend   // encodes images; it owns the frames, and its status is the service's
	Texts  []hailo.Backend // in the order in which to try them
	Device *npu.Backend    // the NPU or the simulated chip, for its counters; nil without one
	CPU    *onnx.Backend   // likewise; nil where nothing is encoded on the CPU
	Why    string          // why this kind

	opened []hailo.Backend // what Close closes, in that order
}

// Close releases all devices.
func (e *Encoders) Close() error {
	var errs []error
	for _, b := range e.opened {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// Open opens what the configuration names, and proves that it encodes. It waits some seconds for a device; one that
// needs longer, because the machine has just been switched on, is not ready until it is there. The caller closes the
// encoders.
func (o *Opener) Open(ctx context.Context) (*Encoders, error) {
	p, err := o.plan(ctx)
	if err != nil {
		return nil, err
	}
	e := &Encoders{Why: p.Why}
	if err := o.open(ctx, p, e); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (o *Opener) open(ctx context.Context, p Plan, e *Encoders) (err error) {
	var first, cpu hailo.Backend // first encodes the images
	if p.device != nil {
		if e.Device, err = npu.New(*p.device); err != nil {
			return err
		}
		first, e.opened = e.Device, append(e.opened, e.Device)
		if p.device.Text != nil {
			e.Texts = append(e.Texts, e.Device)
		}
	}
	if p.cpuNeeded || p.standIn {
		if e.CPU, err = o.openCPU(ctx, p); err == nil {
			cpu = e.CPU
			e.Texts, e.opened = append(e.Texts, cpu), append(e.opened, cpu)
		} else if p.cpuNeeded {
			return err
		} else {
			o.log.Warn("no CPU encoder to stand in while the device is lost: requests will get 503", "error", err)
		}
	}
	standsIn := p.standIn && cpu != nil && o.Model.HasCPU()
	if e.Device == nil {
		first = cpu
	} else if ready, err := o.await(ctx, e.Device, standsIn); err != nil {
		return err
	} else if ready && len(e.Texts) == 2 && !p.device.Simulated && !o.trustTexts(textCosine(ctx, e.Device, cpu, o.known())) {
		e.Texts = e.Texts[1:]
	}
	probe, err := hailo.NewProbe(ctx, first, e.Texts[0], o.known(), o.cfg.ProbeInterval, o.cfg.Warmup, o.log)
	if err != nil {
		return err
	}
	e.Images, e.opened = probe, slices.Insert(e.opened, 0, hailo.Backend(probe))
	if e.Texts[0] == first {
		e.Texts[0] = probe
	}
	if standsIn {
		e.Images = hailo.NewFailover(probe, cpu)
	}
	return nil
}

// deviceWait is how long a start waits for the device.
const deviceWait = 5 * time.Second

// await waits for the device and says whether it is ready. Its error is only that of ctx: without a device the program
// starts all the same.
func (o *Opener) await(ctx context.Context, device *npu.Backend, standsIn bool) (ready bool, err error) {
	wait, cancel := context.WithTimeout(ctx, deviceWait)
	defer cancel()
	err = device.Await(wait)
	if err == nil || ctx.Err() != nil {
		return err == nil, context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) { // no start has failed yet
		o.log.Warn("the device is still being opened", "cpu_stands_in", standsIn)
	} else {
		o.log.Error("the device is not ready yet, it is tried until it is", "error", err, "cpu_stands_in", standsIn)
	}
	return false, nil
}

// cpuFrames bounds the images between resize and answer: enough for full batches on every core.
const cpuFrames = 32

// openCPU opens the model's encoders for the CPU, if their files are there.
func (o *Opener) openCPU(ctx context.Context, p Plan) (*onnx.Backend, error) {
	err := fmt.Errorf("%w: %s has no files for the CPU; install them with: hailo-clip models pull %s --part cpu",
		model.ErrNotInstalled, o.Model.Name, o.Model.Name)
	if o.Model.HasCPU() || p.device != nil && o.Model.HasCPUText() {
		var b *onnx.Backend
		if b, err = onnx.Open(ctx, o.cfg.CPU, o.Model, cpuFrames, o.cfg.LibraryDirs...); err == nil {
			return b, nil
		}
	}
	switch {
	case p.device != nil && p.cpuNeeded:
		err = fmt.Errorf("texts are encoded on the CPU: %w", err)
	case p.device == nil && o.cfg.Backend == "auto": // who has only files for the NPU asks why it is not taken
		err = fmt.Errorf("the CPU is to encode, because %s: %w", p.Why, err)
	}
	return nil, err
}

// known are the tokens of the text that encoders are tried with.
func (o *Opener) known() []int32 {
	tokens, _ := o.Tokenizer.EncodeCut("a photo of a cat", o.Model.ContextLength)
	return tokens
}

// sameText is the least cosine between the vectors that two encoders of the same model make of a text. The value is a
// judgement, not a measurement on a device. A transposed projection, whose shape may be right, gives about 0; an encoder
// that loses a tenth by quantisation can no longer separate prompts that differ by hundredths. The model zoo's figures
// (Retrieval@10 of 89.5 on the chip, 90.6 before) suggest far more for a sound one.
const sameText = 0.9

// textsDiffer says what the reasons for less than sameText look like, and what to do.
const textsDiffer = "a cosine near 0: the text projection lies the wrong way round, see projection_transposed in the model's manifest; " +
	"a larger one: the text HEF lost so much to quantisation, take another HEF or set clip.text_encoder to cpu"

// trustTexts judges how alike the device's vector of a text is to the CPU's. A device that differs is trusted only where
// the configuration demands it, one that could not be compared is.
func (o *Opener) trustTexts(cosine float64, err error) bool {
	if err != nil {
		o.log.Warn("the text encoders of NPU and CPU could not be compared", "error", err)
		return true
	}
	if cosine >= sameText {
		return true
	}
	demanded, what := o.cfg.TextEncoder != "auto", "texts are encoded on the CPU"
	if demanded {
		what = "scores will be wrong"
	}
	o.log.Error("the NPU's text encoder does not agree with the CPU's: "+what, "cosine", cosine, "want", sameText, "why", textsDiffer)
	return demanded
}

// textCosine is the cosine of the vectors, of unit length, that two encoders make of a text.
func textCosine(ctx context.Context, a, b hailo.Backend, tokens []int32) (float64, error) {
	var of [2][]float32
	for i, encoder := range []hailo.Backend{a, b} {
		vectors, err := encoder.EncodeTexts(ctx, [][]int32{tokens})
		if err != nil {
			return 0, err
		}
		of[i] = vectors[0]
	}
	return hailo.Dot(of[0], of[1]), nil
}
