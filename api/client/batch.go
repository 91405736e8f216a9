package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// BatchQuestion is a Question about several images, 64 as a rule at most.
type BatchQuestion struct {
	Images    []Image
	Prompts   []string
	PromptSet string
	TopK      int
	Threshold *float64
}

// ClassificationResult is what became of one image of a batch.
type ClassificationResult struct {
	Classification
	Err error // an *Error; nil: it is classified
}

// UnmarshalJSON reads an item of the service's answer.
func (r *ClassificationResult) UnmarshalJSON(b []byte) (err error) {
	*r = ClassificationResult{}
	if r.Err, err = itemError(b); err == nil && r.Err == nil {
		err = r.Classification.UnmarshalJSON(b)
	}
	return err
}

// itemError is the error that an item of a batch is, nil if it is none.
func itemError(b []byte) (found, err error) {
	var said struct{ Error, Code string }
	if err := json.Unmarshal(b, &said); err != nil {
		return nil, err
	}
	if said.Error == "" && said.Code == "" {
		return nil, nil
	}
	return &Error{Code: said.Code, Message: said.Error}, nil
}

// ClassifyBatch classifies several images. There is a result for each, in their order; one that cannot be classified
// fails none of the others.
func (c *Client) ClassifyBatch(ctx context.Context, q BatchQuestion) ([]ClassificationResult, error) {
	one := Question{Prompts: q.Prompts, PromptSet: q.PromptSet, TopK: q.TopK, Threshold: q.Threshold}
	a, err := c.do(ctx, one.post("/v1/classify/batch", "images", q.Images...))
	if err != nil {
		return nil, err
	}
	var answer struct{ Results []ClassificationResult }
	var common Classification // what is said of all of them once
	if err := errors.Join(a.read(&answer), a.read(&common)); err != nil {
		return nil, err
	}
	for i := range answer.Results {
		if r := &answer.Results[i]; r.Err == nil {
			own := r.Classification
			r.Classification = common
			r.Matches, r.Matched, r.Reason = own.Matches, own.Matched, own.Reason
		}
	}
	return answer.Results, sameNumber("images", len(q.Images), len(answer.Results))
}

func sameNumber(what string, asked, got int) error {
	if asked != got {
		return fmt.Errorf("%w: %d results for %d %s", ErrAnswer, got, asked, what)
	}
	return nil
}

// EmbeddingResult is what became of one image or text of a batch.
type EmbeddingResult struct {
	Embedding Vector
	Truncated bool  // of a text: the model has seen its beginning only
	Err       error // an *Error; nil: it is embedded
}

// UnmarshalJSON reads an item of the service's answer.
func (r *EmbeddingResult) UnmarshalJSON(b []byte) (err error) {
	type plain EmbeddingResult
	var p plain
	if p.Err, err = itemError(b); err == nil && p.Err == nil {
		err = json.Unmarshal(b, &p)
	}
	*r = EmbeddingResult(p)
	return err
}

// Vector is an embedding. In JSON it is base64 of float32, little-endian, or a list of numbers.
type Vector []float32

// UnmarshalJSON reads both forms.
func (v *Vector) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		return json.Unmarshal(b, (*[]float32)(v))
	}
	var packed []byte
	if err := json.Unmarshal(b, &packed); err != nil {
		return err
	}
	floats, err := unpack(packed)
	*v = floats
	return err
}

// EmbedBatch embeds several images and texts. There is a result for each, in their order; one that cannot be embedded
// fails none of the others.
func (c *Client) EmbedBatch(ctx context.Context, images []Image, texts []string) (ofImages, ofTexts []EmbeddingResult, err error) {
	f := newForm(images...)
	for _, text := range texts {
		f.text("texts", text)
	}
	for _, i := range images {
		f.image("image", i)
	}
	r := f.post("/v1/embed/batch")
	r.query = map[string][]string{"encoding": {"base64"}}
	var answer struct{ Images, Texts []EmbeddingResult }
	if err = c.getJSON(ctx, r, &answer); err == nil {
		err = sameNumber("images", len(images), len(answer.Images))
	}
	if err == nil {
		err = sameNumber("texts", len(texts), len(answer.Texts))
	}
	return answer.Images, answer.Texts, err
}

// Item is one side of a comparison: exactly one of a text, a compressed image and a vector.
type Item struct {
	Text   string    `json:"text,omitempty"`
	Image  []byte    `json:"image,omitempty"`
	Vector []float32 `json:"vector,omitempty"`
}

// Compare returns the cosine of every item of a with every one of b, a row for each item of a.
func (c *Client) Compare(ctx context.Context, a, b []Item) ([][]float64, error) {
	var answer struct{ Cosine [][]float64 }
	if err := c.getJSON(ctx, postJSON("/v1/compare", map[string][]Item{"a": a, "b": b}), &answer); err != nil {
		return nil, err
	}
	if len(answer.Cosine) != len(a) {
		return nil, sameNumber("items", len(a), len(answer.Cosine))
	}
	for _, row := range answer.Cosine {
		if len(row) != len(b) {
			return nil, sameNumber("items", len(b), len(row))
		}
	}
	return answer.Cosine, nil
}
