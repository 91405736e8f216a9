package api

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"time"
	"unsafe"

	"hailoclip/api/rawjson"
	"hailoclip/cache/sets"
	"hailoclip/pipeline"
	"hailoclip/stages"
)

// maxSide is how many items one side of a comparison may have. Of all items maxBatchImages may be images, and maxBatchTexts texts.
const maxSide = 1024

// operand is one item of a comparison.
type operand struct {
	kind   operandKind
	n      int       // the number of the image or text in batchItems
	vector []float32 // of unit length, where it was sent
}

type operandKind uint8

const (
	aVector operandKind = iota
	aText
	anImage
)

// readComparison reads what /v1/compare is asked. What is wrong with an item without a look at its image is wrong with the request.
func readComparison(r *request, in *input) error {
	defer func() { *in = input{} }()
	for s, raw := range [2][]byte{in.A, in.B} {
		name := "ab"[s : s+1]
		n := rawjson.Elements(raw)
		switch {
		case n == 0:
			return fail(errInvalidRequest, "Missing or invalid '%s' array", name)
		case n > maxSide:
			return fail(errInvalidRequest, "Too many items in '%s': %d, at most %d are allowed", name, n, maxSide)
		}
		var err error
		items := make([]operand, 0, n)
		rawjson.EachElement(raw, func(raw []byte) {
			if err != nil {
				return
			}
			var item operand
			if item, err = r.readOperand(raw); err != nil {
				err = fmt.Errorf("%s[%d]: %w", name, len(items), err)
			}
			items = append(items, item)
		})
		if err != nil {
			return err
		}
		r.itemsOf().sides[s] = items
	}
	return nil
}

// readOperand reads one item.
func (r *request) readOperand(raw []byte) (operand, error) {
	var one struct {
		Text, Image, Vector rawjson.Raw
		ImageURL            rawjson.Raw `json:"image_url"`
	}
	if rawjson.Unmarshal(unsafe.String(unsafe.SliceData(raw), len(raw)), &one) != nil {
		return operand{}, errOperand
	}
	m, n := r.itemsOf(), 0
	for _, value := range [...][]byte{one.Text, one.Image, one.ImageURL, one.Vector} {
		if rawjson.Given(value) {
			n++
		}
	}
	switch {
	case n != 1:
	case rawjson.Given(one.Text):
		in := input{Text: one.Text}
		text, err := in.text(r.rules.MaxPromptBytes)
		if err == nil && len(m.texts) == maxBatchTexts {
			err = tooMany("texts", maxBatchTexts+1, maxBatchTexts)
		}
		m.addText(text, nil)
		return operand{kind: aText, n: len(m.texts) - 1}, err
	case rawjson.Given(one.Vector):
		vector, err := readVector(one.Vector, r.server.svc.Engine.Dimension())
		return operand{kind: aVector, vector: vector}, err
	default:
		image := sentImage{data: one.Image, json: true}
		if rawjson.Given(one.ImageURL) {
			image = r.imageAt(one.ImageURL)
		}
		if image.err == nil && len(m.images) == maxBatchImages {
			image.err = tooMany("images", maxBatchImages+1, maxBatchImages)
		}
		m.images = append(m.images, image)
		return operand{kind: anImage, n: len(m.images) - 1}, image.err
	}
	return operand{}, errOperand
}

var errOperand = fail(errInvalidRequest, "It must be an object with one of 'text', 'image', 'image_url' and 'vector'")

// readVector reads a vector of so many numbers, an array of them or the base64 of float32, little-endian, and makes its length 1.
func readVector(raw []byte, dimension int) ([]float32, error) {
	var v []float32
	if raw[0] == '"' {
		b, err := base64.StdEncoding.DecodeString(string(raw[1 : len(raw)-1]))
		if err != nil || len(b) != 4*dimension {
			return nil, fail(errInvalidRequest, "'vector' must have %d numbers: base64 of %d bytes", dimension, 4*dimension)
		}
		v = sets.ParseVector(b)
	} else {
		if n := rawjson.Elements(raw); n != dimension {
			return nil, fail(errInvalidRequest, "'vector' has %d numbers, those of the model have %d", n, dimension)
		}
		var ok bool
		if v, ok = rawjson.Floats(raw); !ok {
			return nil, fail(errInvalidRequest, "'vector' has elements that are not numbers")
		}
	}
	square := 0.0
	for _, f := range v {
		square += float64(f) * float64(f)
	}
	if !(square > 0 && square <= math.MaxFloat64) { // NaN, too
		return nil, fail(errInvalidRequest, "'vector' is zero, or has numbers that are not finite")
	}
	for i, f := range v {
		v[i] = float32(float64(f) / math.Sqrt(square))
	}
	return v, nil
}

// compare has the engine embed the texts and images of both sides.
func (r *request) compare() error {
	if err := r.embedBatch(); err != nil {
		return err
	}
	for s, side := range r.items.sides {
		for i := range side {
			if err := r.items.resolve(&side[i]); err != nil {
				return fmt.Errorf("%c[%d]: %w", "ab"[s], i, err)
			}
		}
	}
	return nil
}

// resolve finds the vector of an item.
func (m *batchItems) resolve(o *operand) (err error) {
	switch o.kind {
	case aText:
		o.vector, err = m.rows[o.n].Embedding, m.errs[o.n]
	case anImage:
		o.vector, err = m.results[o.n].Embedding, m.results[o.n].err
	}
	return err
}

// answerComparison writes the answer of /v1/compare: the cosine of each item of a with each of b.
func (r *request) answerComparison() error {
	a, b := r.items.sides[0], r.items.sides[1]
	answer, err := r.newAnswer(12*len(a)*len(b) + 512)
	if err != nil {
		return err
	}
	defer answer.unlessSent()
	for i, left := range a {
		if r.work.Err() != nil {
			return pipeline.Late(r.work)
		}
		answer.add(func(out []byte) []byte {
			if i == 0 {
				out = append(out, `{"cosine":[`...)
			} else {
				out = append(out, ',')
			}
			out = append(out, '[')
			for j, right := range b {
				if j > 0 {
					out = append(out, ',')
				}
				out = strconv.AppendFloat(out, stages.Cosine(left.vector, right.vector), 'g', -1, 32)
			}
			return append(out, ']')
		})
	}
	return answer.end(func(b []byte, r *request, took time.Duration) []byte { return appendDimension(append(b, ']'), r, took) })
}
