package onnx

import (
	"fmt"
	"slices"
	"strings"

	"hailoclip/hailo/model"
)

// The names that Hugging Face's exports of CLIP give to inputs and outputs.
const (
	inPixels  = "pixel_values"   // float32 [batch, 3, size, size]
	inTokens  = "input_ids"      // int64 or int32 [batch, length]
	inMask    = "attention_mask" // int64 or int32 [batch, length]
	outImages = "image_embeds"   // float32 [batch, dimension]
	outTexts  = "text_embeds"    // float32 [batch, dimension]
)

// layout is what a session takes and gives, checked against the manifest. A dimension that is 0
// may be chosen for each run.
type layout struct {
	image, text *port // outputs; nil where the model has none
	imageBatch  int   // images in a run
	textBatch   int   // texts in a run
	length      int   // tokens in a text

	tokens, mask uintptr // element types of input_ids and attention_mask; 0 where there is none
}

const maxFixedBatch = 256 // a model with more in a run is no model of ours, and needs huge buffers

// newLayout reads the layout of a session and refuses what we could not fill or understand.
func newLayout(s *session, m model.Manifest) (layout, error) {
	var l layout
	size, dim := int64(m.ImageSize), int64(m.EmbeddingDimension)
	for _, p := range s.inputs {
		var err error
		switch p.name {
		case inPixels:
			err = p.check([]uintptr{typeFloat32}, -1, 3, size, size)
			l.imageBatch = chosen(p.dims, 0)
		case inTokens, inMask:
			err = p.check([]uintptr{typeInt64, typeInt32}, -1, int64(m.ContextLength))
			l.textBatch, l.length = max(l.textBatch, chosen(p.dims, 0)), max(l.length, chosen(p.dims, 1))
			if p.name == inTokens {
				l.tokens = p.element
			} else {
				l.mask = p.element
			}
		default:
			err = fmt.Errorf("input %v is not one that we know (%s, %s, %s)", p, inPixels, inTokens, inMask)
		}
		if err != nil {
			return layout{}, err
		}
	}
	if n := max(l.imageBatch, l.textBatch); n > maxFixedBatch {
		return layout{}, fmt.Errorf("a fixed batch of %d, more than %d", n, maxFixedBatch)
	}
	for i, p := range s.outputs {
		switch p.name {
		case outImages:
			l.image = &s.outputs[i]
		case outTexts:
			l.text = &s.outputs[i]
		default:
			continue
		}
		if err := p.check([]uintptr{typeFloat32}, -1, dim); err != nil {
			return layout{}, err
		}
	}
	return l, nil
}

// check compares a port with what it must be: one of types, and dims where -1 is any. A
// dimension that the model leaves open fits all.
func (p port) check(types []uintptr, dims ...int64) error {
	fits := func(want, got int64) bool { return want == got || want == -1 || got == -1 }
	if slices.Contains(types, p.element) && slices.EqualFunc(dims, p.dims, fits) {
		return nil
	}
	var names []string
	for _, t := range types {
		names = append(names, elementName(t))
	}
	want := strings.ReplaceAll(fmt.Sprint(dims), "-1", "any")
	return fmt.Errorf("%v does not fit the manifest, which needs %s%s", p, strings.Join(names, " or "), want)
}

// chosen is the i-th dimension when the model fixes it, else 0.
func chosen(dims []int64, i int) int {
	if i < len(dims) && dims[i] > 0 {
		return int(dims[i])
	}
	return 0
}

func hasPort(ports []port, name string) bool {
	return slices.ContainsFunc(ports, func(p port) bool { return p.name == name })
}
