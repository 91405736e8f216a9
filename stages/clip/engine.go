// Package clip turns images and texts into embeddings and matches: the use cases of the program, each written once.
// Every transport reads a [Request], asks an [Engine] and writes the [Result].
package clip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// Config says how images become what the model sees, and cosines become scores. Its keys stand in the section "clip".
type Config struct {
	ApplySoftmax bool          `yaml:"apply_softmax"`                  // score is the probability, not the cosine
	LogitScale   float64       `yaml:"logit_scale" bounds:"0 to 1000"` // factor of the cosines before the softmax; 0: the model's
	Images       stages.Config `yaml:",inline"`
}

// Parts is what an engine works with, opened. All but NPU, CPU, Observe and the reasons is needed.
type Parts struct {
	Model    model.Manifest
	ModelWhy string // why this model, and what it is not good for; for people, may be ""

	// Tokenize returns what the text encoders read: start token, text, end token, cut to the model's context length.
	// Safe for concurrent use.
	Tokenize func(text string) (tokens []int32, truncated bool)

	Images     hailo.Backend       // encodes images; its status is the engine's health
	Texts      []hailo.Backend     // encode texts, in the order in which they are tried
	NPU        *npu.Backend        // whose counters are in Stats; nil: none
	CPU        func() hailo.Counts // what is encoded on the CPU, likewise; nil: nothing
	BackendWhy string              // why these encoders; for people, may be ""
	Encoders   io.Closer           // releases them
	Store      *cache.Store
	Sets       SetParts
	Budget     *decode.Budget

	// Observe is told how long each stage took for an image that went through the line, or was encoded elsewhere, by the goroutine that has asked
	// for it. nil: nobody is told.
	Observe func([4]pipeline.StageTime)
}

// Engine answers requests. Safe for concurrent use.
type Engine struct {
	parts  Parts
	config Config
	texts  []*cache.TextEmbeddings // one for each of Parts.Texts
	line   *stages.Line
	sets   *PromptSets
	rate   rateMeter
	shared atomic.Pointer[SharedTexts] // nil: texts are encoded here alone

	elsewhere atomic.Pointer[Elsewhere] // see Spill

	open   int // images of one batch at a time
	atOnce int // see AtOnce
}

// ErrEncodeText says that it is a text, and not an image, that an encoder has failed with hailo.ErrEncode.
var ErrEncodeText = errors.New("the text could not be encoded")

// textCalls is how many batches of new prompts are encoded at once: while one is on the device
// the next is made ready. More would take the device from the images.
const textCalls = 2

// New makes an engine, to which the store and the encoders belong from then on. On an error they still are the
// caller's.
func New(cfg Config, performance pipeline.Config, p Parts) (*Engine, error) {
	if cfg.LogitScale == 0 {
		cfg.LogitScale = p.Model.LogitScale
	}
	if !(cfg.LogitScale > 0) || math.IsInf(cfg.LogitScale, 0) {
		return nil, fmt.Errorf("clip: logit scale %v is out of bounds: above 0", cfg.LogitScale)
	}
	info := p.Images.Info()
	runs := 2 // of the encoder: at work, and ready
	if !info.Gathers {
		runs = info.ImageCalls + 1
	}
	e := &Engine{
		parts: p, config: cfg, open: 2*performance.WorkerThreads + 2*info.ImageBatch*info.ImageCalls,
		atOnce: 2*performance.WorkerThreads + runs*info.ImageBatch,
	}
	for _, backend := range p.Texts {
		texts, err := p.Store.Embeddings(cache.Encoder{
			Namespace: backend.Info().TextDigest, Dim: p.Model.EmbeddingDimension, Batch: backend.Info().TextBatch, Calls: textCalls,
			Encode: func(ctx context.Context, texts []string) ([]cache.Vector, error) {
				return e.encodeTexts(ctx, backend, texts)
			},
			RetryAlone: func(err error) bool { return !errors.Is(err, hailo.ErrDeviceLost) && !errors.Is(err, hailo.ErrClosed) },
		})
		if err != nil {
			return nil, err
		}
		e.texts = append(e.texts, texts)
	}
	line, err := stages.NewLine(cfg.Images, performance, p.Images, p.Model.ImageSize, p.Budget)
	if err != nil {
		return nil, err
	}
	e.line = line
	e.sets = newPromptSets(e, p.Sets)
	return e, nil
}

// Dimension is how many numbers an embedding has.
func (e *Engine) Dimension() int { return e.parts.Model.EmbeddingDimension }

// Model is the model's name.
func (e *Engine) Model() string { return e.parts.Model.Name }

// Aliases are other names of the model. Not to be changed.
func (e *Engine) Aliases() []string { return e.parts.Model.Aliases }

// ImageSize is how many pixels a side of the square has that the model sees.
func (e *Engine) ImageSize() int { return e.parts.Model.ImageSize }

// Fit is how an image is brought into that square: one of the values of resize.Config.Fit.
func (e *Engine) Fit() string { return e.config.Images.Resize.Fit }

// Preparation names all that makes the pixels which the model sees of an image what they are: engines with the same ImageDigest and
// the same Preparation make equal vectors of equal images.
func (e *Engine) Preparation() string {
	return fmt.Sprintf("%s-%s-%s", e.Fit(), e.config.Images.Decode.JPEGScale, decode.JPEGs())
}

// MaxTokens is how many tokens of a text the model reads, start and end included.
func (e *Engine) MaxTokens() int { return e.parts.Model.ContextLength }

// Tokens counts the tokens of a text that the model reads. cut says that these are not all.
func (e *Engine) Tokens(text string) (n int, cut bool) {
	tokens, cut := e.parts.Tokenize(text)
	return len(tokens), cut
}

// ImageDigest names the image encoder: what embeddings of images are from.
func (e *Engine) ImageDigest() string { return e.sets.imageDigest() }

// TextDigest names the first of the text encoders: what embeddings of texts are from, unless its device is lost.
func (e *Engine) TextDigest() string { return e.parts.Texts[0].Info().TextDigest }

// AtOnce is how many images keep the engine busy: one in each worker of decode and of resize, what the encoder works on, and a batch that
// is ready for it. More inside only wait.
func (e *Engine) AtOnce() int { return e.atOnce }

// LogitScale is the factor of the cosines before the softmax.
func (e *Engine) LogitScale() float64 { return e.config.LogitScale }

// Close ends the encoding of prompt sets, drains the line, flushes the cache and releases the encoders, in that order, and
// gives up when ctx ends. An encoder in which workers are left is not released: it ends with the process.
func (e *Engine) Close(ctx context.Context) error {
	e.sets.End() // first, as it uses the line
	inside := errors.Join(e.line.Close(ctx), e.sets.close(ctx))
	closed := make(chan error, 1)
	go func() {
		err := e.parts.Store.Close()
		if inside == nil {
			err = errors.Join(err, e.parts.Encoders.Close())
		}
		closed <- err
	}()
	select {
	case err := <-closed:
		return errors.Join(inside, err)
	case <-ctx.Done():
		return errors.Join(inside, fmt.Errorf("cache and device are not closed: %w", context.Cause(ctx)))
	}
}
