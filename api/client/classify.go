package client

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// Question is an image, and what to compare it with: Prompts or a PromptSet, not both.
type Question struct {
	Image     Image
	Prompts   []string
	PromptSet string
	TopK      int      // at most this many matches; 0: 3
	Threshold *float64 // leave out matches whose score is below; nil: none
}

// Match is a prompt, or a label of a prompt set, that fits an image.
type Match struct {
	Text           string  `json:"text"`
	Score          float64 `json:"score"`                     // by which the matches are ordered
	Rank           int     `json:"rank"`                      // from 1
	Cosine         float64 `json:"cosine"`                    // -1..1
	Probability    float64 `json:"probability"`               // 0..1
	Truncated      bool    `json:"truncated,omitempty"`       // the model has seen the beginning of the text only
	AboveThreshold *bool   `json:"above_threshold,omitempty"` // nil: the label has no threshold
}

// Classification is the answer to a Question. The fields from PromptSet to Temperature are those of a prompt set.
type Classification struct {
	Matches     []Match `json:"classifications"`
	PromptSet   string  `json:"prompt_set,omitempty"`
	ETag        string  `json:"etag,omitempty"`         // of the version that has answered
	Matched     bool    `json:"matched"`                // a label fits; true unless the service says that none does
	Reason      string  `json:"reason,omitempty"`       // why none does: negative, min_cosine or min_margin
	ScoreSource string  `json:"score_source,omitempty"` // text, prototype or gda
	Temperature float64 `json:"temperature,omitempty"`
	LogitScale  float64 `json:"logit_scale"`
	Model       string  `json:"model"`
	RequestID   string  `json:"request_id"`
}

// UnmarshalJSON reads an answer of the service.
func (c *Classification) UnmarshalJSON(b []byte) error {
	type plain Classification
	p := plain{Matched: true}
	err := json.Unmarshal(b, &p)
	*c = Classification(p)
	return err
}

// Classify says which prompts, or labels of a prompt set, fit an image best.
func (c *Client) Classify(ctx context.Context, q Question) (Classification, error) {
	var r call
	if len(q.Prompts) == 0 {
		r = call{method: http.MethodPost, path: "/v1/classify", query: url.Values{}, header: q.Image.headers(), body: q.Image.Data}
		q.each(r.query.Set)
	} else {
		r = q.post("/v1/classify", "image", q.Image)
	}
	var answer Classification
	err := c.getJSON(ctx, r, &answer)
	return answer, err
}

// maxParts is how many parts the service reads in a form.
const maxParts = 1000

// post is the request with the images under that name. It is a form, unless there are more prompts than a form may have
// parts.
func (q *Question) post(path, name string, images ...Image) call {
	raw := slices.ContainsFunc(images, func(i Image) bool { return i.Frame != nil })
	if len(q.Prompts)+len(images)+3 > maxParts && !raw {
		return q.postJSON(path, name, images)
	}
	f := newForm(images...)
	q.each(f.text)
	for _, i := range images {
		f.image("image", i)
	}
	return f.post(path)
}

// postJSON is the request in JSON, with the images in base64.
func (q *Question) postJSON(path, name string, images []Image) call {
	body := map[string]any{"prompts": q.Prompts}
	if q.PromptSet != "" {
		body["prompt_set"] = q.PromptSet
	}
	if q.TopK != 0 {
		body["top_k"] = q.TopK
	}
	if q.Threshold != nil {
		body["threshold"] = *q.Threshold
	}
	if name == "image" {
		body[name] = images[0].Data
	} else {
		list := make([][]byte, len(images))
		for i := range images {
			list[i] = images[i].Data
		}
		body[name] = list
	}
	return postJSON(path, body)
}

// each calls set with what is asked beside the image.
func (q *Question) each(set func(name, value string)) {
	for _, prompt := range q.Prompts {
		set("prompts", prompt)
	}
	if q.PromptSet != "" {
		set("prompt_set", q.PromptSet)
	}
	if q.TopK != 0 {
		set("top_k", strconv.Itoa(q.TopK))
	}
	if q.Threshold != nil {
		set("threshold", strconv.FormatFloat(*q.Threshold, 'g', -1, 64))
	}
}

// EmbedImage returns the embedding of an image, of unit length.
func (c *Client) EmbedImage(ctx context.Context, i Image) ([]float32, error) {
	return c.embed(ctx, call{method: "POST", path: "/v1/embed/image", header: i.headers(), body: i.Data})
}

// EmbedText returns the embedding of a text, of unit length. Of a text that is longer than the model reads it is that of
// the beginning: EmbedBatch tells which ones are.
func (c *Client) EmbedText(ctx context.Context, text string) ([]float32, error) {
	return c.embed(ctx, postJSON("/v1/embed/text", map[string]string{"text": text}))
}

func (c *Client) embed(ctx context.Context, r call) ([]float32, error) {
	r.header["Accept"] = mediaBytes
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if media := a.header.Get("Content-Type"); media != mediaBytes {
		return nil, fmt.Errorf("%w: %q where an embedding was expected", ErrAnswer, media)
	}
	return unpack(a.body)
}

// unpack reads float32, little-endian.
func unpack(b []byte) ([]float32, error) {
	if len(b) == 0 || len(b)%4 != 0 {
		return nil, fmt.Errorf("%w: a vector of %d bytes", ErrAnswer, len(b))
	}
	v := make([]float32, len(b)/4)
	_, err := binary.Decode(b, binary.LittleEndian, v)
	return v, err
}

// postJSON is a request with v as its body. Numbers that are none cannot be sent.
func postJSON(path string, v any) call {
	body, err := json.Marshal(v)
	return call{method: http.MethodPost, path: path, header: map[string]string{"Content-Type": mediaJSON}, body: body, err: err}
}
