package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// States of a prompt set.
const (
	SetReady    = "ready"    // this version answers
	SetEncoding = "encoding" // it is being encoded; the former version answers, where there is one
	SetFailed   = "failed"   // it cannot be encoded; the former version answers
)

// PromptSet is a set as the service has it.
type PromptSet struct {
	Name string `json:"name"`
	Definition
	State       string   `json:"state"`
	Reason      string   `json:"reason,omitempty"` // why it has failed, or is not encoded now
	Encoded     int      `json:"encoded"`          // texts, of Total
	Total       int      `json:"total"`
	ETag        string   `json:"etag"` // of the definition and the model, without quotes
	Model       string   `json:"model"`
	ScoreSource string   `json:"score_source,omitempty"` // text, prototype or gda
	Alpha       float64  `json:"alpha,omitempty"`        // that was chosen, with gda
	ReadOnly    bool     `json:"read_only,omitempty"`    // it is in the service's configuration
	Warnings    []string `json:"warnings,omitempty"`
}

// PromptSetSummary is a set in a list.
type PromptSetSummary struct {
	Name     string `json:"name"`
	Labels   int    `json:"labels"`
	State    string `json:"state"`
	ETag     string `json:"etag"`
	Model    string `json:"model"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Condition is what a change of a set depends on. Where it does not hold nothing changes, and the error has the code
// "precondition_failed". The zero value is none.
type Condition struct {
	IfMatch     string // the ETag that the set must have, or "*": there must be such a set
	IfNoneMatch bool   // there must be no such set
}

// change is the request that changes a set.
func (o Condition) change(method, path string, v any) call {
	r := call{method: method, path: path, header: map[string]string{}}
	if v != nil {
		r = postJSON(path, v)
		r.method = method
	}
	switch {
	case o.IfMatch == "*":
		r.header["If-Match"] = "*"
	case o.IfMatch != "":
		r.header["If-Match"] = `"` + o.IfMatch + `"`
	}
	if o.IfNoneMatch {
		r.header["If-None-Match"] = "*"
	}
	r.once = o != Condition{}
	return r
}

func pathOf(name string) string { return "/v1/prompt-sets/" + url.PathEscape(name) }

// PromptSets lists all sets, by name.
func (c *Client) PromptSets(ctx context.Context) ([]PromptSetSummary, error) {
	var answer struct {
		Sets []PromptSetSummary `json:"prompt_sets"`
	}
	err := c.getJSON(ctx, call{method: http.MethodGet, path: "/v1/prompt-sets"}, &answer)
	return answer.Sets, err
}

// PromptSet returns a set; full: with vectors and thumbnails of its examples, else with their ids alone.
func (c *Client) PromptSet(ctx context.Context, name string, full bool) (set PromptSet, err error) {
	r := call{method: http.MethodGet, path: pathOf(name)}
	if full {
		r.query = url.Values{"examples": {"full"}}
	}
	err = c.getJSON(ctx, r, &set)
	return set, err
}

// PutPromptSet makes or replaces a set, which is durable then. It may still be encoding: see WaitPromptSet.
func (c *Client) PutPromptSet(
	ctx context.Context, name string, d Definition, o Condition,
) (set PromptSet, created bool, err error) {
	a, err := c.do(ctx, o.change(http.MethodPut, pathOf(name), d))
	if err == nil {
		err = a.read(&set)
	}
	return set, err == nil && a.status == http.StatusCreated, err
}

// waitPromptSet is the time between two looks at a set.
const waitPromptSet = 250 * time.Millisecond

// WaitPromptSet returns a set when it is ready, or has failed. progress may be nil.
func (c *Client) WaitPromptSet(ctx context.Context, name string, progress func(PromptSet)) (PromptSet, error) {
	for {
		set, err := c.PromptSet(ctx, name, false)
		if err != nil || set.State != SetEncoding {
			return set, err
		}
		if progress != nil {
			progress(set)
		}
		if err := sleep(ctx, waitPromptSet); err != nil {
			return set, err
		}
	}
}

// DeletePromptSet removes a set. One that is not there is an error with the code "prompt_set_not_found".
func (c *Client) DeletePromptSet(ctx context.Context, name string, o Condition) error {
	r := o.change(http.MethodDelete, pathOf(name), nil)
	r.once = true // a second one would not find it
	_, err := c.do(ctx, r)
	return err
}

// BackgroundLabel is the label of an example of what is seen where none of the labels is, and of an image to evaluate that
// shows none of them, unless a label of the set has that name.
const BackgroundLabel = "background"

// AddExample adds an example, a compressed image or else a vector of the model's dimension, to a label of a set or to the
// BackgroundLabel. One that is there already changes nothing.
func (c *Client) AddExample(
	ctx context.Context, name, label string, image []byte, vector []float32, o Condition,
) (set PromptSet, err error) {
	if (image == nil) == (vector == nil) {
		return set, errors.New("an example is an image or a vector")
	}
	r := o.change(http.MethodPost, pathOf(name)+"/examples", map[string]any{"label": label, "vector": vector})
	if image != nil {
		i := Image{Data: image}
		r.query, r.body, r.header["Content-Type"] = url.Values{"label": {label}}, image, i.media()
	}
	err = c.getJSON(ctx, r, &set)
	return set, err
}

// LabeledImage is a compressed image and the label that it shows, or BackgroundLabel.
type LabeledImage struct {
	Label string
	Image []byte
}

// MaxEvaluated is how many images the service evaluates in one request.
const MaxEvaluated = 1000

// EvaluateOptions say what is wanted of an evaluation.
type EvaluateOptions struct {
	Precision float64 // that the thresholds are to have, above 0 and at most 1; 0: the service's choice
	Apply     bool    // store thresholds and temperature in the set
}

// Evaluation says how well a set answers.
type Evaluation struct {
	PromptSet   string                     `json:"prompt_set"`
	ETag        string                     `json:"etag"`     // of the version that was evaluated
	Images      int                        `json:"images"`   // that count: without those in Errors
	Accuracy    float64                    `json:"accuracy"` // the share of images that were answered as they should be
	Labels      []string                   `json:"labels"`
	Confusion   [][]int                    `json:"confusion"`   // [shown][answered]; the last row is none shown, the last column none fits
	Thresholds  map[string]*LabelThreshold `json:"thresholds"`  // by label; nil: no score has the precision
	ECE         CalibrationError           `json:"ece"`         // expected calibration error
	Temperature *float64                   `json:"temperature"` // that fits the images best; nil: see Reason
	Reason      string                     `json:"reason"`      // why there is no Temperature
	Applied     bool                       `json:"applied"`
	AppliedETag string                     `json:"applied_etag"` // of the set with thresholds and temperature
	Errors      []ImageError               `json:"errors"`
	Model       string                     `json:"model"`
	RequestID   string                     `json:"request_id"`
}

// ImageError is why an image was left out.
type ImageError struct {
	Image int    `json:"image"` // its number, from 0
	Label string `json:"label"`
	Error string `json:"error"`
	Code  string `json:"code"`
}

// LabelThreshold is the lowest score from which on a label is right often enough.
type LabelThreshold struct {
	Score     float64 `json:"score"`
	Precision float64 `json:"precision"` // of the images at or above Score
	Recall    float64 `json:"recall"`    // share of the label's images that are at or above Score
}

// CalibrationError is the expected calibration error with the set's temperature and with the fitted one.
type CalibrationError struct {
	Before float64  `json:"before"`
	After  *float64 `json:"after"`
}

// Evaluate has the set classify labelled images.
func (c *Client) Evaluate(ctx context.Context, name string, images []LabeledImage, o EvaluateOptions) (e Evaluation, err error) {
	f := newForm()
	for _, i := range images {
		f.image(i.Label, Image{Data: i.Image})
	}
	r := f.post(pathOf(name) + "/evaluate")
	r.query, r.once = url.Values{}, o.Apply
	if o.Precision != 0 {
		r.query.Set("precision", strconv.FormatFloat(o.Precision, 'g', -1, 64))
	}
	if o.Apply {
		r.query.Set("apply", "true")
	}
	err = c.getJSON(ctx, r, &e)
	return e, err
}
