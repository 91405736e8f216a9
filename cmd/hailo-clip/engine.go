package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"hailoclip/api/admin"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/configs"
	"hailoclip/hailo"
	"hailoclip/hailo/open"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// engine is the engine and what it was opened by.
type engine struct {
	*clip.Engine
	place   // max_body_memory_bytes lowered to what there is
	log     *slog.Logger
	warning string // what every answer is to warn of; "" for nothing

	recorder *admin.Recorder // nil: nothing is recorded
}

// withEngine opens the engine for a command that works by itself, which logs warnings only, and closes it afterwards.
func withEngine(ctx context.Context, g *globals, work func(*engine) error) error {
	p, err := g.place()
	if err != nil {
		return err
	}
	p.quiet()
	e, err := newEngine(ctx, p, false, stderr.logger(p.cfg.Logging))
	if err != nil {
		return err
	}
	return errors.Join(work(e), e.Close(context.WithoutCancel(ctx)))
}

// quiet has the log of a command that is no service tell warnings only.
func (p *place) quiet() {
	if p.cfg.Logging.Level == "info" {
		p.cfg.Logging.Level, p.cfg.Logging.Format = "warning", "text"
	}
}

// newEngine opens model, encoders, cache and, withSets, for a service, prompt sets, and makes the engine of them. It blocks until the
// encoders can encode. The caller closes it.
func newEngine(ctx context.Context, p place, withSets bool, log *slog.Logger) (*engine, error) {
	if _, err := decode.FindLibrary(); err != nil {
		log.Warn("JPEGs are decoded about four times slower, and not quite as PIL does", "error", err)
	}
	o, err := p.opener(ctx, log)
	if err != nil {
		return nil, err
	}
	encoders, err := o.Open(ctx)
	if err != nil {
		return nil, err
	}
	e := &engine{place: p, log: log}
	cfg := &e.cfg
	store := cache.OpenStore(cfg.TextEmbedding, p.state, log)
	limit, _ := cfg.ResourceLimits.MemoryBytes() // checked when it was loaded
	var kept clip.SetParts
	if withSets {
		kept = p.promptSets(limit, log)
	}
	memory := clip.DivideMemory(clip.MemoryLimits{
		Max: limit, Bodies: cfg.Server.MaxBodyMemoryBytes, Body: cfg.Server.MaxBodyBytes,
		Lists: cfg.TextEmbedding.CacheListBytes + kept.Bytes, Workers: cfg.Performance.WorkerThreads,
	}, log)
	cfg.Server.MaxBodyMemoryBytes = memory.Bodies
	why := o.ModelWhy
	if o.Model.Embedded() {
		why = "this is the small demo model, which knows drawings and not photographs: " + why
	}
	var observe func([4]pipeline.StageTime)
	if withSets && cfg.Admin.Listen != "" {
		e.recorder = admin.NewRecorder()
		observe = e.recorder.Line
	}
	var counts func() hailo.Counts
	if encoders.CPU != nil {
		counts = encoders.CPU.Counts
	}
	e.Engine, err = clip.New(cfg.CLIP.Engine, cfg.Performance, clip.Parts{
		Model: o.Model.Manifest, ModelWhy: why,
		Tokenize: func(text string) ([]int32, bool) { return o.Tokenizer.EncodeCut(text, o.Model.ContextLength) },
		Images:   encoders.Images, Texts: encoders.Texts, NPU: encoders.Device, CPU: counts, BackendWhy: encoders.Why, Encoders: encoders,
		Store: store, Sets: kept, Observe: observe,
		Budget: decode.NewBudget(memory.Images, memory.Runtime, cfg.Performance.WorkerThreads, cfg.Performance.MaxQueueSize),
	})
	if err != nil {
		return nil, errors.Join(err, kept.Close(ctx), store.Close(), encoders.Close())
	}
	if p.encoders().MadeUpVectors() {
		e.warning = "simulated-vectors"
		log.Warn(open.MadeUpVectorsWarning)
	}
	info := encoders.Images.Info()
	log.Info("ready to encode", "model", o.Model.Name, "model_why", o.ModelWhy, "backend", info.Backend,
		"backend_why", encoders.Why, "device", info.Device)
	if o.Model.Embedded() {
		log.Warn("this is the small demo model: it knows drawings, not photographs; install a real one with: hailo-clip models pull clip-vit-b-32",
			"why", o.ModelWhy)
	}
	return e, nil
}

// promptSets opens the file of the prompt sets, which only one process may have. Without it the service starts all the same;
// its health says why.
func (p *place) promptSets(limit int64, log *slog.Logger) clip.SetParts {
	parts := clip.SetParts{
		Configured: p.cfg.PromptSets, Limits: sets.Limits{PromptBytes: p.cfg.Server.MaxPromptBytes},
		MaxBytes: min(clip.MaxSetBytes, limit/8), Log: log,
	}
	path := filepath.Join(p.state, sets.FileName)
	if parts.File, parts.Lost = sets.Open(path); parts.Lost != nil {
		log.Error("the prompt sets cannot be used; their file stays as it is", "error", parts.Lost)
	}
	if stat, err := os.Stat(path); err == nil {
		parts.Bytes = min(stat.Size(), parts.MaxBytes) // what images are compared with is part of it
	}
	return parts
}

// precompute encodes the prompts of text_embedding.prompt_file, in mode precomputed, beside the
// requests. It blocks until that is done or ctx ends.
func (e *engine) precompute(ctx context.Context, c configs.Config) {
	prompts, err := clip.ReadPrompts(c.TextEmbedding, c.Server.MaxPromptBytes)
	if err != nil {
		e.log.Warn("no prompts are encoded at the start", "error", err)
		return
	}
	switch n, err := e.Precompute(ctx, prompts); {
	case ctx.Err() != nil:
	case err != nil:
		e.log.Warn("not all prompts of the prompt file are encoded", "done", n, "error", err)
	case n > 0:
		e.log.Info("prompts of the prompt file are encoded", "prompts", n)
	}
}
