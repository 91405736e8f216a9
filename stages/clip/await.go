package clip

import (
	"context"
	"errors"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/pipeline/fair"
)

// Dimension is how many numbers an embedding has.
func (e *Engine) Dimension() int { return e.parts.Model.EmbeddingDimension }

// awaitTexts is EmbedTexts for a batch: it is never refused, see cache.TextEmbeddings.Await.
func (e *Engine) awaitTexts(ctx context.Context, caller fair.Caller, texts []string) (found *cache.Prompts, err error) {
	for _, encoder := range e.texts {
		if found, err = encoder.Await(ctx, caller, texts); !errors.Is(err, hailo.ErrDeviceLost) {
			break
		}
	}
	return found, late(ctx, err)
}

// EmbedTextBatch returns the vector or the error of each text, in their order. The texts wait for the encoder however many
// others do, in turn with those of other callers. It blocks until all are there or ctx ends. The next text encoder is
// asked as by EmbedTexts, whose errors these are but for cache.ErrBusy.
func (e *Engine) EmbedTextBatch(ctx context.Context, caller fair.Caller, texts []string) (vectors []cache.Vector, errs []error) {
	for _, encoder := range e.texts {
		vectors, errs = encoder.AwaitEach(ctx, caller, texts)
		if !errors.Is(errors.Join(errs...), hailo.ErrDeviceLost) {
			break
		}
	}
	for i := range errs {
		errs[i] = late(ctx, errs[i])
	}
	return vectors, errs
}
