package npu

import (
	"context"
	"errors"
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

func (t *Text) validate(dimension int) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("npu: text: "+format, args...))
		}
	}
	check(len(t.HEF) < len(wire.Text1024{}), "path of the model has %d bytes, at most 1023", len(t.HEF))
	check(t.ContextLength >= 2 && t.ContextLength <= 1024, "context length %d is out of bounds: 2 to 1024", t.ContextLength)
	check(t.Width >= 1 && t.Width <= wire.MaxFeatures, "width %d is out of bounds: 1 to %d", t.Width, wire.MaxFeatures)
	check(t.Row != nil, "no token embeddings")
	check(t.known(t.EndToken) && t.known(t.PadToken), "end token %d or pad token %d is not among the %d tokens",
		t.EndToken, t.PadToken, t.Vocabulary)
	if t.Projection == nil {
		check(t.Width == dimension, "no projection, but width %d and dimension %d", t.Width, dimension)
	} else {
		check(len(t.Projection) == t.Width*dimension, "projection of %d numbers, want %d x %d",
			len(t.Projection), t.Width, dimension)
	}
	return errors.Join(errs...)
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
	switch {
	case t.Projection == nil:
		copy(v, row)
	case t.Transposed:
		for i := range v {
			sum := 0.0
			for j, p := range t.Projection[i*t.Width : (i+1)*t.Width] {
				sum += float64(row[j]) * float64(p)
			}
			v[i] = float32(sum)
		}
	default:
		sums := make([]float64, dimension)
		for j, x := range row {
			for i, p := range t.Projection[j*dimension : (j+1)*dimension] {
				sums[i] += float64(x) * float64(p)
			}
		}
		for i, sum := range sums {
			v[i] = float32(sum)
		}
	}
	return v, normalize(v)
}

// EncodeTexts implements hailo.Backend. When ctx ends it returns at once; texts that the device
// is working on are finished behind it.
func (b *Backend) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.calls.Done()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case b.opt.Text == nil:
		return nil, fmt.Errorf("%w: no text encoder on the device", hailo.ErrEncode)
	case len(tokens) == 0:
		return nil, nil
	}
	c := &textCall{
		ctx: ctx, tokens: make([][]int32, len(tokens)), open: len(tokens), done: make(chan struct{}),
		ends: make([]int, len(tokens)), vectors: make([][]float32, len(tokens)),
	}
	for i, t := range tokens {
		end, err := b.opt.Text.check(t)
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
		c.ends[i] = end
		c.tokens[i] = slices.Clone(t) // we may return before the last one was read
	}
	if _, err := b.session(); err != nil {
		return nil, err // at once, and not behind those that the device may never finish
	}
	b.texts.put(c)
	select {
	case <-c.done:
		if c.err != nil {
			return nil, c.err
		}
		return c.vectors, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// textLoop encodes the texts of all calls, a small batch at a time.
//
// Texts go before the images that wait on the device (their priority is higher), so batches of
// texts must not come one after the other: after each, the next is held back until the images
// that waited for it are done. So no image in flight waits for more than one batch of texts.
func (b *Backend) textLoop() {
	var before *session
	var waited uint64 // images up to this sequence waited for the last batch
	for b.texts.wait() {
		s, err := b.session()
		if s == before && s != nil {
			s.waitImages(waited)
		}
		items := b.texts.take(b.opt.Config.TextBatch)
		if err != nil {
			for _, item := range items {
				b.texts.finish(item, nil, err)
			}
			continue
		}
		b.encodeTexts(s, items)
		before, waited = s, b.sequence.Load()
	}
}

// encodeTexts takes one batch through the device; item i is in slot i.
func (b *Backend) encodeTexts(s *session, items []textItem) {
	t := b.opt.Text
	in, out := &s.loaded[TextModel].Input, &s.loaded[TextModel].Output
	for i, item := range items {
		t.fill(b.memory.at(b.memory.input[TextModel], i), in, item.call.tokens[item.index])
	}
	// The row of the end token is all that is read.
	outputs := make([][]byte, len(items))
	results := make([]<-chan result, len(items))
	for i, item := range items {
		n, end := out.RowBytes(), item.call.ends[item.index]
		outputs[i] = b.memory.at(b.memory.output[TextModel], i)[end*n : (end+1)*n]
		r, err := s.submit(context.Background(), TextModel, i, outputs[i]) // does not block: there is a slot for each
		if err != nil {
			b.texts.finish(item, nil, err)
			continue
		}
		results[i] = r
	}
	row := make([]float32, t.Width)
	for i, item := range items {
		if results[i] == nil {
			continue
		}
		r := <-results[i]
		err := r.check()
		if err == nil {
			err = written(outputs[i])
		}
		if err != nil {
			b.texts.finish(item, nil, err)
			continue
		}
		out.Decode(row, outputs[i])
		v, err := t.project(row, b.opt.Dimension)
		b.texts.finish(item, v, err)
	}
}

// normalize makes what the device returned unit length, or says that it cannot.
func normalize(v []float32) error {
	if err := hailo.Normalize(v, v); err != nil {
		return fmt.Errorf("%w: the device returned %w", hailo.ErrEncode, err)
	}
	return nil
}
