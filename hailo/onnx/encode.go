package onnx

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"

	"golang.org/x/sync/errgroup"

	"hailoclip/hailo"
)

// EncodeImages implements hailo.Backend. Workspaces that are free at the moment share the work.
func (b *Backend) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	if len(frames) > b.info.ImageBatch {
		return fmt.Errorf("%w: %d images at once, at most %d", hailo.ErrEncode, len(frames), b.info.ImageBatch)
	}
	size := 3 * b.model.ImageSize * b.model.ImageSize
	for i, f := range frames {
		if len(f.Pixels) != size || len(f.Embedding) != b.model.EmbeddingDimension {
			return fmt.Errorf("%w: image %d has %d bytes of pixels and room for %d numbers, must be %d and %d",
				hailo.ErrEncode, i, len(f.Pixels), len(f.Embedding), size, b.model.EmbeddingDimension)
		}
	}
	return b.share(ctx, len(frames), b.info.ImageBatch, func(ctx context.Context, s *workspace, from, to int) (err error) {
		defer func() { b.counts.ran(ctx, to-from, true, err) }()
		for i, f := range frames[from:to] {
			b.colour.planes(s.pixels[i*size:(i+1)*size], f.Pixels)
		}
		if err = b.image.images(ctx, s, to-from); err != nil {
			return fmt.Errorf("image encoder: %w", err)
		}
		for i, f := range frames[from:to] {
			if err := hailo.Normalize(f.Embedding, s.embedding(i, len(f.Embedding))); err != nil {
				return fmt.Errorf("image %d: %w", from+i, err)
			}
		}
		return nil
	})
}

// EncodeTexts implements hailo.Backend. Where the model leaves the length of a text open, short
// texts are not padded to the full context: what follows the end token cannot change the result
// (see setTokens), and costs as much as the text itself.
func (b *Backend) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	for i, ids := range tokens {
		if len(ids) == 0 || len(ids) > b.model.ContextLength {
			return nil, fmt.Errorf("%w: text %d has %d tokens, must be 1 to %d", hailo.ErrEncode, i, len(ids), b.model.ContextLength)
		}
	}
	order := make([]int, len(tokens)) // by length, so that a run holds texts of about one length
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(len(tokens[i]), len(tokens[j])) })
	out := make([][]float32, len(tokens))
	err := b.share(ctx, len(tokens), b.info.TextBatch, func(ctx context.Context, s *workspace, from, to int) (err error) {
		defer func() { b.counts.ran(ctx, to-from, false, err) }()
		length := b.text.roundLength(len(tokens[order[to-1]]), b.model.ContextLength)
		for row, i := range order[from:to] {
			s.setTokens(b.text.layout, row, length, tokens[i], b.model.Tokens.PadID)
		}
		if err = b.text.texts(ctx, s, to-from, length); err != nil {
			return fmt.Errorf("text encoder: %w", err)
		}
		for row, i := range order[from:to] {
			out[i] = make([]float32, b.model.EmbeddingDimension)
			if err := hailo.Normalize(out[i], s.embedding(row, len(out[i]))); err != nil {
				return fmt.Errorf("text %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// share cuts n items into parts of at most most items, spread evenly over the workspaces that are free now, and runs
// encode for each part in a goroutine with a workspace. It returns when all have ended; the first error cancels the
// others.
func (b *Backend) share(ctx context.Context, n, most int, encode func(ctx context.Context, s *workspace, from, to int) error) error {
	if err := b.calls.Enter(); err != nil {
		return err
	}
	defer b.calls.Leave()
	if n == 0 {
		return nil
	}
	part := func(ctx context.Context, from, to int) (err error) {
		// It runs in a goroutine of errgroup, where the recover of the pipeline does not reach.
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		select {
		case s := <-b.free:
			defer func() { b.free <- s }()
			return encode(ctx, s, from, to)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	parts := max(1, min(len(b.free), n), (n+most-1)/most)
	var err error
	if parts == 1 {
		err = part(ctx, 0, n)
	} else {
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(cap(b.free))
		for i := range parts {
			group.Go(func() error { return part(groupCtx, i*n/parts, (i+1)*n/parts) })
		}
		err = group.Wait()
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", hailo.ErrEncode, err)
	}
	return nil
}
