package onnx

import (
	"cmp"
	"context"
	"fmt"

	"hailoclip/hailo/model"
)

// tower is an encoder, or both of them in one file: a session and what it takes.
type tower struct {
	*session
	layout
	size, dim int // pixels on a side, numbers in an embedding

	// idle feeds the other half of a model that holds both: one black image, one empty text.
	// ORT computes the whole graph in any case, so that half is kept as small as the model lets.
	idle *workspace
}

// newTower loads src and checks that it gives output.
func newTower(l *Library, src source, output string, m model.Manifest) (*tower, error) {
	s, err := newSession(l, src)
	if err != nil {
		return nil, err
	}
	t := &tower{session: s, size: m.ImageSize, dim: m.EmbeddingDimension}
	if t.layout, err = newLayout(s, m); err == nil {
		err = t.require(output)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	if hasPort(s.inputs, inPixels) && hasPort(s.inputs, inTokens) {
		texts, length := max(t.textBatch, 1), max(t.length, 1)
		t.idle = newWorkspace(max(t.imageBatch, 1)*3*t.size*t.size, texts*length, 0)
		for i := range texts {
			t.idle.setTokens(t.layout, i, length, []int32{m.Tokens.PadID}, m.Tokens.PadID)
		}
	}
	return t, nil
}

// require fails when the model has not all that this output needs.
func (t *tower) require(output string) error {
	if output == outImages && t.layout.image != nil && hasPort(t.inputs, inPixels) ||
		output == outTexts && t.layout.text != nil && hasPort(t.inputs, inTokens) {
		return nil
	}
	input := inPixels
	if output == outTexts {
		input = inTokens
	}
	return fmt.Errorf("gives no %s (from %s); has inputs %v and outputs %v", output, input, t.inputs, t.outputs)
}

// close releases the tower. Twice does no harm.
func (t *tower) close() {
	t.session.close()
	if t.idle != nil {
		t.idle.pin.Unpin()
	}
}

// roundLength is how many tokens a run takes for texts of up to n: the length that the model
// fixes, or else the next multiple of 8, so that ORT sees few different shapes.
func (t *tower) roundLength(n, context int) int {
	return cmp.Or(t.length, min((n+7)/8*8, context))
}

// feed is where the images or texts of a run lie, and how many.
type feed struct {
	memory *workspace
	rows   int
	length int // tokens in a row, of texts
}

// images computes the embeddings of the first n images in s; they lie in s.out afterwards.
func (t *tower) images(ctx context.Context, s *workspace, n int) error {
	return t.run(ctx, s, t.layout.image, feed{memory: s, rows: n}, feed{memory: t.idle, rows: 1, length: 1})
}

// texts computes the embeddings of the first n texts in s, each length tokens long.
func (t *tower) texts(ctx context.Context, s *workspace, n, length int) error {
	return t.run(ctx, s, t.layout.text, feed{memory: t.idle, rows: 1}, feed{memory: s, rows: n, length: length})
}

func (t *tower) run(ctx context.Context, s *workspace, output *port, images, texts feed) error {
	images.rows = cmp.Or(t.imageBatch, images.rows)
	texts.rows = cmp.Or(t.textBatch, texts.rows)
	texts.length = cmp.Or(t.length, texts.length)
	s.inputs = s.inputs[:0]
	for _, p := range t.session.inputs {
		switch p.name {
		case inPixels:
			s.inputs = append(s.inputs, floats(images.memory.pixels, images.rows, 3, t.size, t.size))
		case inTokens:
			s.inputs = append(s.inputs, ints(texts.memory.tokens, p.element, texts.rows, texts.length))
		case inMask:
			s.inputs = append(s.inputs, ints(texts.memory.mask, p.element, texts.rows, texts.length))
		}
	}
	rows := images.rows
	if output == t.layout.text {
		rows = texts.rows
	}
	return t.session.run(ctx, s.args, s.inputs, *output, floats(s.out, rows, t.dim))
}
