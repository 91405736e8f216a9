package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hailoclip/configs"
	"hailoclip/configs/models"
	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
)

// openStore finds the models folder in the state folder.
func openStore(state string) (*hailo.Store, error) {
	known, err := hailo.ReadManifests(models.FS)
	if err != nil {
		return nil, err
	}
	builtin, err := demo.Model()
	if err != nil {
		return nil, err
	}
	return &hailo.Store{Dir: modelsDir(state), Vendor: hailo.VendorResources, Known: known, Builtin: builtin}, nil
}

// resolveModel returns the configured model and why it is this one.
func resolveModel(cfg configs.Config, state string) (*hailo.Model, string, error) {
	store, err := openStore(state)
	if err != nil {
		return nil, "", err
	}
	return store.Resolve(cfg.CLIP.Model)
}

// chooseBackend says what clip.backend stands for on the machine below root, and why. The chip on
// the bus decides and not its node, which comes up to a minute after the machine's start: the
// worker is tried until it is there.
func chooseBackend(cfg configs.Config, model *hailo.Model, root string) (kind, why string) {
	if cfg.CLIP.Backend != "auto" {
		return cfg.CLIP.Backend, "clip.backend is " + cfg.CLIP.Backend
	}
	address, ok := doctor.ChipPresent(root)
	if !ok {
		return "cpu", "there is no Hailo-10H"
	}
	if _, err := npu.FindWorker(cfg.NPU.Worker); err != nil {
		return "cpu", fmt.Sprintf("a Hailo-10H is there (%s), but its worker program is not: %v", address, err)
	}
	if !model.HasNPU() {
		return "cpu", fmt.Sprintf("a Hailo-10H is there (%s), but model %s has no NPU files installed", address, model.Name)
	}
	return "npu", fmt.Sprintf("a Hailo-10H (%s), its worker and the model's NPU files are there", address)
}

// encoders is what encodes on this machine.
type encoders struct {
	images hailo.Backend   // also the owner of the frames, and who answers for the service's health
	texts  []hailo.Backend // for texts, in the order in which to try them
	device *npu.Backend    // the NPU or the simulated chip, for its counters; nil without one
	why    string          // why this kind

	standIn hailo.Backend   // for images while the device is lost; nil: there is none
	opened  []hailo.Backend // what close closes, in that order
}

// close releases all devices.
func (e *encoders) close() error {
	var errs []error
	for _, b := range e.opened {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// opener is what opening an encoder needs.
type opener struct {
	cfg       configs.Config
	model     *hailo.Model
	modelWhy  string // why this model
	tokenizer *hailo.Tokenizer
	state     string // folder
	log       *slog.Logger
}

// prepare finds the model and loads its tokenizer. Its errors stop a start.
func prepare(cfg configs.Config, state string, log *slog.Logger) (o opener, err error) {
	o = opener{cfg: cfg, state: state, log: log}
	if o.model, o.modelWhy, err = resolveModel(cfg, state); err != nil {
		return o, err
	}
	if err = fits(cfg, o.model.Manifest); err != nil {
		return o, err
	}
	o.tokenizer, err = o.model.LoadTokenizer()
	return o, err
}

// open opens what the configuration names, and proves that it encodes. The caller closes it.
func (o opener) open(ctx context.Context) (*encoders, error) {
	e := &encoders{}
	if err := o.fill(ctx, e); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (o opener) fill(ctx context.Context, e *encoders) error {
	p, err := o.plan()
	if err != nil {
		return err
	}
	e.why = p.why
	if p.device != nil {
		err = o.openDevice(ctx, e, p)
	} else {
		var cpu hailo.Backend
		if cpu, err = o.openCPU(p); err == nil {
			e.images, e.texts, e.opened = cpu, []hailo.Backend{cpu}, []hailo.Backend{cpu}
		}
	}
	if err != nil {
		return err
	}
	repeat := 1
	if o.cfg.Performance.WarmupEnabled {
		repeat = o.cfg.Performance.WarmupIterations
	}
	first := e.images
	probe, err := hailo.NewProbe(ctx, first, e.texts[0], o.known(), o.cfg.Health.ProbeInterval, repeat, o.log)
	if err != nil {
		return err
	}
	e.images = probe
	if e.texts[0] == first {
		e.texts[0] = probe
	}
	if e.standIn != nil {
		e.images = hailo.NewFailover(probe, e.standIn)
	}
	e.opened = append([]hailo.Backend{probe}, e.opened...)
	return nil
}

// openCPU opens the model's encoders for the CPU, if their files are there.
func (o opener) openCPU(p plan) (hailo.Backend, error) {
	var b *onnx.Backend
	var err error
	if p.cpuThere {
		b, err = onnx.Open(o.cfg.CPU, o.model, cpuFrames, libraryDirs(o.state)...)
	} else {
		err = fmt.Errorf("%w: %s has no files for the CPU; install them with: hailo-clip models pull %s --part cpu",
			hailo.ErrNotInstalled, o.model.Name, o.model.Name)
	}
	switch {
	case err == nil:
		return b, nil
	case p.device != nil && p.cpuNeeded:
		err = fmt.Errorf("texts are encoded on the CPU: %w", err)
	case p.device == nil && o.cfg.CLIP.Backend == "auto": // who has only files for the NPU asks why it is not taken
		err = fmt.Errorf("the CPU is to encode, because %s: %w", p.why, err)
	}
	return nil, err // not a nil *Backend in an interface
}

// cpuFrames bounds the pictures between resize and answer: enough for full batches on every core.
const cpuFrames = 32

// openDevice opens the NPU or the simulated chip, and the CPU where it is to stand in: for texts
// that the device does not encode, or while the device is lost.
func (o opener) openDevice(ctx context.Context, e *encoders, p plan) error {
	device, err := npu.New(*p.device)
	if err != nil {
		return err
	}
	e.device, e.images, e.opened = device, device, []hailo.Backend{device}
	encodesTexts, standIn := !p.cpuNeeded, p.standIn
	if encodesTexts {
		e.texts = []hailo.Backend{device}
	}
	var cpu hailo.Backend
	if p.cpu {
		opened, err := o.openCPU(p)
		switch {
		case err == nil:
			cpu = opened
			e.texts, e.opened = append(e.texts, cpu), append(e.opened, cpu)
			if standIn {
				e.standIn = cpu
			}
		case p.cpuNeeded:
			return err
		default:
			o.log.Warn("no CPU encoder to stand in while the device is lost: requests will get 503", "error", err)
			standIn = false
		}
	}
	wait, cancel := context.WithTimeout(ctx, deviceWait)
	defer cancel()
	if err := device.Await(wait); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, context.DeadlineExceeded) { // no start has failed yet
			o.log.Warn("the device is still being opened", "cpu_stands_in", standIn)
			return nil
		}
		o.log.Error("the device is not ready yet, it is tried until it is", "error", err, "cpu_stands_in", standIn)
		return nil
	}
	if encodesTexts && !p.device.Simulated && cpu != nil && o.model.HasCPUText() {
		o.compareTexts(ctx, e, cpu)
	}
	return nil
}

// known are the tokens of the text that encoders are tried with.
func (o opener) known() []int32 {
	tokens, _ := o.tokenizer.EncodeCut("a photo of a cat", o.model.ContextLength)
	return tokens
}

// sameText is how alike, as a cosine, the vectors of a text are at least on two encoders of the same
// model. It is a judgement: nobody has measured it on a device. A projection the wrong way round, which
// has the right shape too, leaves about 0; an encoder that lost a tenth to quantisation no longer keeps
// prompts apart that differ by hundredths. The model zoo's figures (Retrieval@10 of 89.5 on the chip,
// 90.6 before) speak for much more on a sound one.
const sameText = 0.9

// textsDiffer says what the reasons for less than sameText look like, and what to do.
const textsDiffer = "a cosine near 0: the text projection lies the wrong way round, see projection_transposed in the model's manifest; " +
	"a larger one: the text HEF lost so much to quantisation, take another HEF or set clip.text_encoder to cpu"

// compareTexts encodes a text on the device and on the CPU, and gives up the device's text encoder
// when it is not to be trusted.
func (o opener) compareTexts(ctx context.Context, e *encoders, cpu hailo.Backend) {
	cosine, err := textCosine(ctx, e.device, cpu, o.known())
	if err != nil {
		o.log.Warn("the text encoders of NPU and CPU could not be compared", "error", err)
	} else if !o.trustTexts(cosine) {
		e.texts = []hailo.Backend{cpu}
	}
}

// trustTexts judges how alike the device's text vector is to the CPU's. One that differs is used only
// where the configuration demands it.
func (o opener) trustTexts(cosine float64) bool {
	if cosine >= sameText {
		return true
	}
	demanded := o.cfg.CLIP.TextEncoder != "auto"
	what := "texts are encoded on the CPU"
	if demanded {
		what = "scores will be wrong"
	}
	o.log.Error("the NPU's text encoder does not agree with the CPU's: "+what, "cosine", cosine, "want", sameText, "why", textsDiffer)
	return demanded
}

// textCosine is the cosine of the vectors, of unit length, that two encoders make of a text.
func textCosine(ctx context.Context, a, b hailo.Backend, tokens []int32) (float64, error) {
	of := [][]int32{tokens}
	va, err := a.EncodeTexts(ctx, of)
	if err != nil {
		return 0, err
	}
	vb, err := b.EncodeTexts(ctx, of)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for i, x := range va[0] {
		sum += float64(x) * float64(vb[0][i])
	}
	return sum, nil
}

// deviceWait is how long a start waits for the device. A device that needs longer, because the
// machine has just been switched on, is reported by /health until it is there.
const deviceWait = 5 * time.Second
