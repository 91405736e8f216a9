package npu

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// Text is what encoding texts needs on the host: the device takes the embeddings of the tokens
// and gives the last hidden state; the table before it and the projection after it are ours.
type Text struct {
	HEF           string // path
	ContextLength int    // tokens
	Width         int    // numbers in the embedding of a token, and in a row of the output
	Vocabulary    int    // tokens that Row knows: 0 to Vocabulary-1
	EndToken      int32  // the first one in a text marks the row that the embedding comes from
	PadToken      int32  // fills the text after its end; the encoder is causal, so any will do

	// Row returns the embedding of a token, Width numbers, only read. Safe for concurrent use.
	Row func(token int32) []float32
	// Projection is [Width, dimension], or [dimension, Width] when it is Transposed;
	// nil: the output is the embedding (Width = dimension).
	Projection []float32
	Transposed bool
}

// validate calls check for all that must hold.
func (t *Text) validate(dimension int, check func(ok bool, format string, args ...any)) {
	check(len(t.HEF) < len(wire.Text1024{}), "text: path of the model has %d bytes, at most 1023", len(t.HEF))
	check(t.ContextLength >= 2 && t.ContextLength <= 1024, "text: context length %d is out of bounds: 2 to 1024", t.ContextLength)
	check(t.Width >= 1 && t.Width <= wire.MaxFeatures, "text: width %d is out of bounds: 1 to %d", t.Width, wire.MaxFeatures)
	check(t.Row != nil, "text: no token embeddings")
	check(t.known(t.EndToken) && t.known(t.PadToken), "text: end token %d or pad token %d is not among the %d tokens",
		t.EndToken, t.PadToken, t.Vocabulary)
	if t.Projection == nil {
		check(t.Width == dimension, "text: no projection, but width %d and dimension %d", t.Width, dimension)
	} else {
		check(len(t.Projection) == t.Width*dimension, "text: projection of %d numbers, want %d x %d",
			len(t.Projection), t.Width, dimension)
	}
}

func (t *Text) known(token int32) bool { return token >= 0 && int64(token) < int64(t.Vocabulary) }

// check returns the position of the first end token, or an ErrEncode that says what is wrong.
func (t *Text) check(tokens []int32) (int, error) {
	if len(tokens) > t.ContextLength {
		return 0, fmt.Errorf("%w: %d tokens, at most %d", hailo.ErrEncode, len(tokens), t.ContextLength)
	}
	for _, token := range tokens {
		if !t.known(token) {
			return 0, fmt.Errorf("%w: token %d is not in the vocabulary of %d", hailo.ErrEncode, token, t.Vocabulary)
		}
	}
	if end := slices.Index(tokens, t.EndToken); end >= 0 {
		return end, nil
	}
	if len(tokens) == 0 {
		return 0, fmt.Errorf("%w: no tokens", hailo.ErrEncode)
	}
	return len(tokens) - 1, nil // the last one is the end token, says hailo.Backend
}

// fill writes the embeddings of the tokens into an input slot.
func (t *Text) fill(slot []byte, in *wire.Stream, tokens []int32) {
	n := in.RowBytes()
	for i, token := range tokens {
		in.Encode(slot[i*n:(i+1)*n], t.Row(token))
	}
	if len(tokens) < t.ContextLength {
		pad := slot[len(tokens)*n : (len(tokens)+1)*n]
		in.Encode(pad, t.Row(t.PadToken))
		for i := len(tokens) + 1; i < t.ContextLength; i++ {
			copy(slot[i*n:], pad)
		}
	}
}

// project turns the row of the end token into an embedding of unit length.
func (t *Text) project(row []float32, dimension int) ([]float32, error) {
	v := make([]float32, dimension)
	down, right := dimension, 1 // steps in the projection
	if t.Transposed {
		down, right = 1, t.Width
	}
	for i := range v {
		if t.Projection == nil {
			v[i] = row[i]
			continue
		}
		sum := 0.0
		for j, x := range row {
			sum += float64(x) * float64(t.Projection[j*down+i*right])
		}
		v[i] = float32(sum)
	}
	return v, normalize(v)
}

// EncodeTexts implements hailo.Backend. It splits tokens into batches of the device, but never joins those of several
// calls: gathering texts is for the caller. Concurrent calls take turns, a batch each. When ctx ends it returns at once;
// a batch that the device works on is finished in the background.
func (b *Backend) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	if err := b.calls.Enter(); err != nil {
		return nil, err
	}
	defer b.calls.Leave()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case b.opt.Text == nil:
		return nil, fmt.Errorf("%w: no text encoder on the device", hailo.ErrEncode)
	}
	ends := make([]int, len(tokens))
	for i, t := range tokens {
		var err error
		if ends[i], err = b.opt.Text.check(t); err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
	}
	var vectors [][]float32
	for len(tokens) > 0 {
		n := min(len(tokens), b.opt.Config.TextBatch)
		batch, err := b.encodeBatch(ctx, tokens[:n], ends[:n])
		if err != nil {
			return nil, err
		}
		vectors = append(vectors, batch...)
		tokens, ends = tokens[n:], ends[n:]
	}
	return vectors, nil
}

// encodeBatch takes one batch through the device; text i is in slot i, and only the row of its end token is read.
//
// Texts go before the images that wait on the device (their priority is higher), so batches of
// texts must not come one after the other: after each, the next is held back until the images
// that waited for it are done. So no image in flight waits for more than one batch of texts.
func (b *Backend) encodeBatch(ctx context.Context, tokens [][]int32, ends []int) ([][]float32, error) {
	w, err := b.worker()
	if err != nil {
		return nil, err
	}
	if err := w.await(ctx, b.turn); err != nil {
		return nil, err
	}
	in, out := &w.loaded[TextModel].Input, &w.loaded[TextModel].Output
	g := b.newGroup()
	for i := range tokens {
		b.opt.Text.fill(b.memory.Input(TextModel, i), in, tokens[i])
		n := out.RowBytes()
		g.add(i, b.memory.Output(TextModel, i)[ends[i]*n:(ends[i]+1)*n])
	}
	if err := w.submit(TextModel, g); err != nil {
		<-b.turn
		b.free(g)
		return nil, err
	}
	vectors := make([][]float32, len(tokens))
	done := make(chan error, 1)
	b.ended.Go(func() {
		defer func() { <-b.turn }()
		defer b.free(g)
		<-g.done // all of them, or a slot would be in flight when the turn ends
		var failed error
		for i, end := range g.ends {
			err := end.err
			if err == nil {
				vectors[i], err = b.textVector(out, g.outputs[i])
			}
			failed = cmp.Or(failed, err)
		}
		waited := b.sequence.Load()
		done <- failed
		w.waitImages(waited)
	})
	select {
	case err := <-done:
		return vectors, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// textVector makes the embedding of a text of the row of its end token.
func (b *Backend) textVector(out *wire.Stream, row []byte) ([]float32, error) {
	if err := written(row); err != nil {
		return nil, err
	}
	state := make([]float32, b.opt.Text.Width)
	out.Decode(state, row)
	return b.opt.Text.project(state, b.opt.Dimension)
}

// normalize makes what the device returned unit length, or says that it cannot.
func normalize(v []float32) error {
	if err := hailo.Normalize(v, v); err != nil {
		return fmt.Errorf("%w: the device returned %w", hailo.ErrEncode, err)
	}
	return nil
}
