package onnx

import (
	"cmp"
	"context"

	"hailoclip/hailo/model"
)

// tower is one encoder: a session and what it takes. Two towers may share a session.
type tower struct {
	*session
	layout
	size, dim int // pixels on a side, numbers in an embedding

	// idle feeds the other half of a model that holds both: one black picture, one empty text.
	// ORT computes the whole graph in any case, so that half is kept as small as the model lets.
	idle *slot
}

// newTower loads src, unless its session is there already, and checks that it gives output.
func newTower(l *Library, shared *session, src source, output string, m model.Manifest) (*tower, error) {
	s := shared
	if s == nil {
		var err error
		if s, err = newSession(l, src); err != nil {
			return nil, err
		}
	}
	t := &tower{session: s, size: m.ImageSize, dim: m.EmbeddingDimension}
	var err error
	if t.layout, err = newLayout(s, m); err == nil {
		err = t.require(s, output)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	if hasPort(s.inputs, inPixels) && hasPort(s.inputs, inTokens) {
		texts, length := max(t.textBatch, 1), max(t.length, 1)
		t.idle = newSlot(max(t.imageBatch, 1)*3*t.size*t.size, texts*length, 0)
		for i := range texts {
			t.idle.setTokens(t.layout, i, length, []int32{m.Tokens.PadID}, m.Tokens.PadID)
		}
	}
	return t, nil
}

// close releases the tower. Twice does no harm, so that towers may share a session.
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

// feed is where the pictures or texts of a run lie, and how many.
type feed struct {
	slot   *slot
	rows   int
	length int // tokens in a row, of texts
}

// images computes the embeddings of the first n pictures in s; they lie in s.out afterwards.
func (t *tower) images(ctx context.Context, s *slot, n int) error {
	return t.run(ctx, s, t.layout.image, feed{slot: s, rows: n}, feed{slot: t.idle, rows: 1, length: 1})
}

// texts computes the embeddings of the first n texts in s, each length tokens long.
func (t *tower) texts(ctx context.Context, s *slot, n, length int) error {
	return t.run(ctx, s, t.layout.text, feed{slot: t.idle, rows: 1}, feed{slot: s, rows: n, length: length})
}

func (t *tower) run(ctx context.Context, s *slot, output *port, images, texts feed) error {
	images.rows = cmp.Or(t.imageBatch, images.rows)
	texts.rows = cmp.Or(t.textBatch, texts.rows)
	texts.length = cmp.Or(t.length, texts.length)
	s.inputs = s.inputs[:0]
	for _, p := range t.session.inputs {
		switch p.name {
		case inPixels:
			s.inputs = append(s.inputs, floats(images.slot.pixels, images.rows, 3, t.size, t.size))
		case inTokens:
			s.inputs = append(s.inputs, ints(texts.slot.tokens, p.element, texts.rows, texts.length))
		case inMask:
			s.inputs = append(s.inputs, ints(texts.slot.mask, p.element, texts.rows, texts.length))
		}
	}
	rows := images.rows
	if output == t.layout.text {
		rows = texts.rows
	}
	return t.session.run(ctx, s.args, s.inputs, *output, floats(s.out, rows, t.dim))
}
