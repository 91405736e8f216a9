package clip

import (
	"context"
	"errors"
	"fmt"

	"hailoclip/cache"
	"hailoclip/hailo"
)

// SharedTexts has vectors of texts that other services have encoded by the same encoders. It is asked for what neither memory nor disk
// knows. Safe for concurrent use.
type SharedTexts interface {
	// Get returns what the encoder of that digest makes of texts, each given as its tokens; nil where that is not known. The
	// caller owns the vectors. It takes no longer than it takes to encode them: while another service does, it may wait for that.
	Get(ctx context.Context, digest string, texts [][]int32) [][]float32
	// Put is told what was encoded. It does not block, and keeps nothing that it was given.
	Put(digest string, texts [][]int32, vectors [][]float32)
}

// ShareTexts has the engine ask s for vectors of texts before it encodes them. It is called before the engine is used.
func (e *Engine) ShareTexts(s SharedTexts) { e.shared.Store(&s) }

// encodeTexts returns the vectors of texts that the service does not know. They are those of the encoder to the bit, whoever has
// encoded them.
func (e *Engine) encodeTexts(ctx context.Context, backend hailo.Backend, texts []string) ([]cache.Vector, error) {
	vectors, tokens := make([]cache.Vector, len(texts)), make([][]int32, len(texts))
	for i, text := range texts {
		tokens[i], vectors[i].Truncated = e.parts.Tokenize(text)
		vectors[i].Tokens = len(tokens[i])
	}
	missing, of := tokens, []int(nil) // all
	shared, digest := e.shared.Load(), backend.Info().TextDigest
	if shared != nil {
		missing, of = nil, []int{}
		found := (*shared).Get(ctx, digest, tokens)
		for i := range texts {
			if i < len(found) && len(found[i]) == e.Dimension() && isUnit(found[i]) {
				vectors[i].Embedding = found[i]
			} else {
				missing, of = append(missing, tokens[i]), append(of, i)
			}
		}
		if len(missing) == 0 {
			return vectors, nil
		}
	}
	embeddings, err := backend.EncodeTexts(ctx, missing)
	if err == nil && len(embeddings) != len(missing) {
		err = fmt.Errorf("%w: %d vectors of %d texts", hailo.ErrEncode, len(embeddings), len(missing))
	}
	if errors.Is(err, hailo.ErrEncode) {
		err = fmt.Errorf("%w: %w", ErrEncodeText, err)
	}
	if err != nil {
		return nil, err
	}
	if shared == nil {
		for i := range vectors {
			vectors[i].Embedding = embeddings[i]
		}
		return vectors, nil
	}
	for i, v := range embeddings {
		vectors[of[i]].Embedding = v
		if len(v) != e.Dimension() || !isUnit(v) {
			return vectors, nil // who has asked says what is wrong
		}
	}
	(*shared).Put(digest, missing, embeddings)
	return vectors, nil
}
