package clip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/pipeline"
)

const (
	lookForTexts = 10 * time.Millisecond // while clients' texts wait
	longestWay   = time.Second           // that one batch gives way to them: sets are encoded beside a busy service, too

	firstRetry = 100 * time.Millisecond // after the device was lost, then twice as long each time
	lastRetry  = 10 * time.Second
)

// encodeRows encodes the texts of the labels whose rows are not known, with one encoder, and keeps the rows: a label's as
// soon as its last text is encoded, so that it goes on there after a restart. progress is told of each
// batch, and may end it with an error.
func (p *PromptSets) encodeRows(v *version, encoder hailo.Backend, labels []setLabel, progress func(n int) error) error {
	type origin struct{ label, group, left int } // left: texts of the label that come after this one
	var (
		dim     = p.dim
		digest  = encoder.Info().TextDigest
		batch   = encoder.Info().TextBatch
		texts   []string
		origins []origin
		sums    []float64 // of the groups of the label that the next vector belongs to
		cut     int       // texts of that label which were cut
		keep    = p.newKeeper(v)
	)
	defer keep.flush()
	encode := func() error {
		vectors, err := p.encodeBatch(v, encoder, texts)
		if one, ok := errors.AsType[*textError](err); ok {
			return fmt.Errorf("%s: %w", labels[origins[one.text].label].where(), err)
		}
		if err != nil {
			return err
		}
		for i, v := range vectors {
			at := origins[i]
			l := &labels[at.label]
			if sums == nil {
				sums, cut = make([]float64, l.Rows()*dim), 0
			}
			for k, x := range v.Embedding {
				sums[l.row(at.group)*dim+k] += float64(x)
			}
			if v.Truncated {
				cut++
			}
			if at.left > 0 {
				continue
			}
			rows := make([]float32, len(sums))
			for k := 0; k < len(rows); k += dim {
				if !unit(rows[k:k+dim], sums[k:k+dim]) {
					return fmt.Errorf("%s: its prompts cancel each other out", l.where())
				}
			}
			l.rows, l.truncated, sums = rows, cut, nil
			keep.add(l.Key(digest), append([]float32{float32(cut)}, rows...))
		}
		n, ended := len(texts), slices.ContainsFunc(origins, func(o origin) bool { return o.left == 0 })
		texts, origins = texts[:0], origins[:0]
		if err := progress(n); err != nil {
			return err
		}
		if ended && v.turnOver() && keep.flush() { // the texts of the label that has begun are encoded again
			return errTurnOver
		}
		return nil
	}
	for i := range labels {
		if labels[i].rows != nil {
			continue
		}
		left := labels[i].texts()
		for g, group := range labels[i].Groups {
			for _, text := range group {
				left--
				texts, origins = append(texts, text), append(origins, origin{i, g, left})
				if len(texts) < batch {
					continue
				}
				if err := encode(); err != nil {
					return err
				}
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return encode()
}

// unit writes sum, scaled to unit length, to row. It fails on a vector without direction.
func unit(row []float32, sum []float64) bool {
	square := 0.0
	for _, x := range sum {
		square += x * x
	}
	if !(square > 1e-12) || math.IsInf(square, 0) { // NaN, too
		return false
	}
	scale := 1 / math.Sqrt(square)
	for i, x := range sum {
		row[i] = float32(x * scale)
	}
	return true
}

// textError is an error of one text of a batch.
type textError struct {
	text int
	what string
	err  error
}

func (e *textError) Error() string { return fmt.Sprintf("%.100q: %v", e.what, e.err) }
func (e *textError) Unwrap() error { return e.err }

// encodeBatch encodes a batch of texts when it is the turn of whoever asks: all sets take turns, and images wait for no
// more than one batch. Where an encoder fails on the batch each text is tried alone: the error is a textError then.
func (p *PromptSets) encodeBatch(v *version, encoder hailo.Backend, texts []string) ([]cache.Vector, error) {
	ctx := v.ctx
	done, err := p.turn.Take(ctx, v.caller)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := p.giveWay(ctx); err != nil {
		return nil, err
	}
	vectors, err := p.encode(ctx, encoder, texts)
	if !errors.Is(err, hailo.ErrEncode) || ctx.Err() != nil {
		return vectors, err
	}
	vectors = make([]cache.Vector, len(texts))
	for i := range texts {
		one, err := p.encode(ctx, encoder, texts[i:i+1])
		if errors.Is(err, hailo.ErrEncode) {
			err = &textError{i, texts[i], err}
		}
		if err != nil {
			return nil, err
		}
		vectors[i] = one[0]
	}
	return vectors, nil
}

// giveWay waits while texts of clients wait for an encoder.
func (p *PromptSets) giveWay(ctx context.Context) error {
	for start := time.Now(); p.engine.parts.Store.Waiting() > 0 && time.Since(start) < longestWay; {
		if err := sleep(ctx, lookForTexts); err != nil {
			return err
		}
	}
	return nil
}

// encode is encodeTexts with its results checked, and panics as errors.
func (p *PromptSets) encode(ctx context.Context, encoder hailo.Backend, texts []string) (vectors []cache.Vector, err error) {
	defer func() {
		if v := recover(); v != nil {
			panicked := &pipeline.PanicError{Stage: "prompt sets", Value: v, Stack: debug.Stack()}
			p.log.Error("panic in the text encoder", "panic", v, "stack", string(panicked.Stack))
			err = fmt.Errorf("%w: %w", hailo.ErrEncode, panicked)
		}
	}()
	vectors, err = p.engine.encodeTexts(ctx, encoder, texts)
	if err != nil {
		return nil, err
	}
	if len(vectors) != len(texts) {
		return nil, fmt.Errorf("%w: %d vectors of %d texts", hailo.ErrEncode, len(vectors), len(texts))
	}
	for _, v := range vectors {
		if len(v.Embedding) != p.dim || !isUnit(v.Embedding) {
			return nil, fmt.Errorf("%w: a vector of %d numbers and length %v", hailo.ErrEncode,
				len(v.Embedding), math.Sqrt(hailo.Dot(v.Embedding, v.Embedding)))
		}
	}
	p.encoded.Add(uint64(len(texts)))
	return vectors, nil
}

// isUnit has the tolerance that float16 and quantised encoders need which normalise at the end.
func isUnit(v []float32) bool { return math.Abs(hailo.Dot(v, v)-1) <= 1e-2 } // not NaN

// sleep returns the cause of ctx when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
