package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"hailoclip/api"
	"hailoclip/cache"
	"hailoclip/configs"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/open"
	"hailoclip/hailo/token"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// engine is everything between a request and the device, wired once.
type engine struct {
	cfg       configs.Config
	log       *slog.Logger
	model     *model.Model
	modelWhy  string // why this model
	tokenizer *token.Tokenizer
	encoders  *open.Encoders
	store     *cache.Store
	texts     []*cache.TextEmbeddings // one for each text encoder, in the order in which to try them
	line      *stages.Line
	pipe      *pipeline.Pipeline
	memory    memoryPlan

	simulatedVectors bool // vectors say nothing of images and texts: see open.MadeUpVectorsWarning
}

// openEngine loads the configuration and opens the engine for a command that works by itself:
// it logs warnings only. The caller closes it.
func openEngine(ctx context.Context, g *globals) (*engine, error) {
	p, err := g.place()
	if err != nil {
		return nil, err
	}
	cfg, state := p.cfg, p.state
	if cfg.Logging.Level == "info" {
		cfg.Logging.Level, cfg.Logging.Format = "warning", "text"
	}
	return newEngine(ctx, cfg, state, newLogger(cfg.Logging))
}

// withEngine opens the engine for the work of a command, and closes it afterwards.
func withEngine(ctx context.Context, g *globals, work func(*engine) error) error {
	e, err := openEngine(ctx, g)
	if err != nil {
		return err
	}
	return errors.Join(work(e), e.close(context.WithoutCancel(ctx)))
}

// newEngine opens model, backend, cache and pipeline. It blocks until the backend can encode.
// The caller closes it.
func newEngine(ctx context.Context, cfg configs.Config, state string, log *slog.Logger) (*engine, error) {
	e := &engine{cfg: cfg, log: log}
	if err := e.open(ctx, state); err != nil {
		return nil, errors.Join(err, e.close(context.WithoutCancel(ctx)))
	}
	return e, nil
}

func (e *engine) open(ctx context.Context, state string) (err error) {
	cfg, log := e.cfg, e.log
	if _, err := decode.FindLibrary(); err != nil {
		log.Warn("JPEGs are decoded about four times slower, and not quite as PIL does", "error", err)
	}
	o, err := newOpener(ctx, cfg, state, log)
	if err != nil {
		return err
	}
	e.model, e.modelWhy, e.tokenizer = o.Model, o.ModelWhy, o.Tokenizer
	if e.encoders, err = o.Open(ctx); err != nil {
		return err
	}
	if e.store, err = cache.OpenStore(cfg.TextEmbedding, state, log); err != nil {
		return err
	}
	for _, backend := range e.encoders.Texts {
		info := backend.Info()
		texts, err := e.store.Embeddings(cache.Encoder{
			Namespace: info.TextDigest, Dim: e.model.EmbeddingDimension, Batch: info.TextBatch, Calls: textCalls,
			Encode: e.encodeTexts(backend),
		})
		if err != nil {
			return err
		}
		e.texts = append(e.texts, texts)
	}
	e.memory = e.divideMemory()
	workers := cfg.Performance.WorkerThreads
	budget := decode.NewBudget(e.memory.images, e.memory.runtime, workers, cfg.Performance.MaxQueueSize)
	e.line = stages.NewLine(cfg.CLIP.Images, e.encoders.Images, e.model.ImageSize, workers, budget)
	if e.pipe, err = pipeline.New(e.line.Stages(cfg.Performance)...); err != nil {
		return err
	}
	if e.simulatedVectors = openConfig(cfg, state).MadeUpVectors(); e.simulatedVectors {
		log.Warn(open.MadeUpVectorsWarning)
	}
	info := e.encoders.Images.Info()
	log.Info("ready to encode", "model", e.model.Name, "model_why", e.modelWhy, "backend", info.Backend,
		"backend_why", e.encoders.Why, "device", info.Device)
	if e.model.Embedded() {
		log.Warn("this is the small demo model: it knows drawings, not photographs; install a real one with: hailo-clip models pull clip-vit-b-32",
			"why", e.modelWhy)
	}
	return nil
}

// textCalls is how many batches of new prompts are encoded at once: while one is on the device
// the next is made ready. More would take the device from the images.
const textCalls = 2

// encodeTexts is what the cache asks for prompts that it does not know.
func (e *engine) encodeTexts(backend hailo.Backend) cache.EncodeFunc {
	return func(ctx context.Context, texts []string) ([]cache.Vector, error) {
		vectors := make([]cache.Vector, len(texts))
		tokens := make([][]int32, len(texts))
		for i, text := range texts {
			tokens[i], vectors[i].Truncated = e.tokenizer.EncodeCut(text, e.model.ContextLength)
			vectors[i].Tokens = len(tokens[i])
		}
		embeddings, err := backend.EncodeTexts(ctx, tokens)
		if err != nil {
			return nil, err
		}
		for i := range vectors {
			vectors[i].Embedding = embeddings[i]
		}
		return vectors, nil
	}
}

// prompts returns the vectors of texts for a caller of the REST interface, with the pipeline's errors. The
// next text encoder is asked only while the one before has lost its device: what that has in
// the cache is still good.
func (e *engine) prompts(ctx context.Context, caller fair.Caller, texts []string) (found *cache.Prompts, err error) {
	for _, encoder := range e.texts {
		if found, err = encoder.Get(ctx, caller, texts); !errors.Is(err, hailo.ErrDeviceLost) {
			break
		}
	}
	return found, promptError(err)
}

// precompute encodes the prompts of text_embedding.prompt_file, in mode precomputed, beside the
// requests. It blocks until that is done or ctx ends.
func (e *engine) precompute(ctx context.Context) {
	if err := cache.CheckPrompts(e.cfg.TextEmbedding, e.cfg.Server.MaxPromptBytes); err != nil {
		e.log.Warn("no prompts are encoded at the start", "error", err)
		return
	}
	switch n, err := e.texts[0].Precompute(ctx, e.cfg.Server.MaxPromptBytes); {
	case ctx.Err() != nil:
	case err != nil:
		e.log.Warn("not all prompts of the prompt file are encoded", "done", n, "error", err)
	case n > 0:
		e.log.Info("prompts of the prompt file are encoded", "prompts", n)
	}
}

// promptError says which of the pipeline's errors an error of the backend is, which the REST
// interface does not know.
func promptError(err error) error {
	for _, m := range []struct{ from, to error }{
		{hailo.ErrDeviceLost, pipeline.ErrUnavailable},
		{hailo.ErrClosed, pipeline.ErrClosed},
		{hailo.ErrEncode, pipeline.ErrEncode},
	} {
		if errors.Is(err, m.from) {
			return fmt.Errorf("%w: %w", m.to, err)
		}
	}
	return err
}

// logitScale is the configured one, or the model's.
func (e *engine) logitScale() float64 {
	if e.cfg.CLIP.LogitScale != 0 {
		return e.cfg.CLIP.LogitScale
	}
	return e.model.LogitScale
}

// health is what GET /health says; it does not block.
func (e *engine) health() api.Health {
	status, info := e.encoders.Images.Status(), e.encoders.Images.Info()
	h := api.Health{Status: api.Healthy, Reason: status.Reason, ModelLoaded: status.Ready, Backend: info.Backend, RuntimeMode: "real", Why: e.encoders.Why, ModelWhy: e.modelReason()}
	if info.Simulated {
		h.RuntimeMode = "simulated"
	}
	switch {
	case !status.Ready:
		h.Status = api.Unhealthy
	case status.Degraded:
		h.Status = api.Degraded
	}
	if stuck, ok := e.pipe.Stuck(); ok && h.Status != api.Unhealthy {
		h.Status, h.Reason = api.Degraded, fmt.Sprintf("%d workers of the stage %s are stuck: they work on images whose deadline has passed", stuck.Workers, stuck.Stage)
		if stuck.All {
			h.Status = api.Unhealthy
		}
	}
	return h
}

// modelReason is why it is this model, with a warning where that is the demo model.
func (e *engine) modelReason() string {
	if e.model.Embedded() {
		return "this is the small demo model, which knows drawings and not photographs: " + e.modelWhy
	}
	return e.modelWhy
}

// close drains the pipeline, flushes the cache and releases the device, in that order, and gives up
// when ctx ends. It works on an engine that was opened in part. A device in which workers are left is not
// released: it ends with the process.
func (e *engine) close(ctx context.Context) error {
	var inside error
	if e.pipe != nil {
		inside = e.pipe.Close(ctx)
	}
	closed := make(chan error, 1)
	go func() { closed <- e.release(inside == nil) }()
	select {
	case err := <-closed:
		return errors.Join(inside, err)
	case <-ctx.Done():
		return errors.Join(inside, fmt.Errorf("cache and device are not closed: %w", context.Cause(ctx)))
	}
}

// release closes what is behind the pipeline.
func (e *engine) release(device bool) error {
	var flushed, released error
	if e.store != nil {
		flushed = e.store.Close()
	}
	if device && e.encoders != nil {
		released = e.encoders.Close()
	}
	return errors.Join(flushed, released)
}

// warning is what every answer is to warn of; "" for nothing.
func (e *engine) warning() string {
	if e.simulatedVectors {
		return "simulated-vectors"
	}
	return ""
}
