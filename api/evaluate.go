package api

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/evaluate"
)

// trial is a request to evaluate a prompt set with labelled images.
type trial struct {
	labels    []string // of each image
	images    [][]byte // in the body
	errs      []error  // why an image cannot be used; nil where it may be
	precision float64
	apply     bool // store the result
}

// trialsAtOnce is how many prompt sets are evaluated at once. More wait, as fair.Turns has them.
const trialsAtOnce = 2

// maxTrial is how many images one request may have: what a form may have.
const maxTrial = maxParts

// isNDJSON accepts lines of JSON.
func isNDJSON(media []byte) bool {
	return slices.Contains([]string{"application/x-ndjson", "application/ndjson", "application/jsonl"}, string(media))
}

// readTrial reads what a request to evaluate has beside its images.
func (r *request) readTrial() (*trial, error) {
	ask, err := r.readSet()
	if err != nil {
		return nil, err
	}
	r.set = ask
	t := &ask.trial
	args := r.ctx.QueryArgs()
	if t.precision = 0.95; args.Has("precision") {
		t.precision, err = strconv.ParseFloat(string(args.Peek("precision")), 64)
		if err != nil || !(t.precision > 0 && t.precision <= 1) {
			return nil, fail(errInvalidRequest, "'precision' in the query must be a number above 0 and at most 1")
		}
	}
	switch apply := string(args.Peek("apply")); apply {
	case "true", "false", "":
		t.apply = apply == "true"
	default:
		return nil, fail(errInvalidRequest, "'apply' in the query must be true or false")
	}
	return t, nil
}

// add takes an image, or why it cannot be used.
func (t *trial) add(label string, image []byte, err error) {
	t.labels, t.images, t.errs = append(t.labels, label), append(t.images, image), append(t.errs, err)
}

// readTrialForm reads a form, in which the name of each part is a label.
func readTrialForm(r *request) error {
	t, err := r.readTrial()
	if err != nil {
		return err
	}
	return eachPart(r.ctx.Request.Header.ContentType(), r.body, func(p part) error {
		var err error
		if len(p.frame) > 0 {
			err = fail(errInvalidRequest, "An image must be a file, not a raw frame")
		}
		t.add(string(p.name), p.data, err)
		return nil
	})
}

// readTrialLines reads lines of {"label", "image"}, and writes each image over its line.
func readTrialLines(r *request) error {
	t, err := r.readTrial()
	if err != nil {
		return err
	}
	for n, rest := 1, r.body; len(rest) > 0; n++ {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(t.labels) == maxTrial {
			return fail(errInvalidRequest, "Too many images: at most %d are allowed", maxTrial)
		}
		in := &r.input
		err := in.parse(line)
		if err == nil {
			err = in.noURL()
		}
		label := ""
		if err == nil {
			label, err = in.labelOf()
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		image, err := in.decodeImage(line, r.scratch)
		t.add(label, image, err)
	}
	return nil
}

func (r *request) evaluatePromptSet() error {
	e, t := r.server.svc.Engine, &r.set.trial
	if len(t.labels) == 0 {
		return fail(errInvalidRequest, "There are no images: send each as a part that has the name of its label, or as a line of JSON")
	}
	if t.apply { // before anything is encoded for nothing
		if info, err := r.promptSets().Info(r.work, r.set.name, false); err != nil {
			return err
		} else if info.ReadOnly {
			return fmt.Errorf("%w: %q", clip.ErrManaged, r.set.name)
		}
	}
	done, err := r.server.trials.Take(r.work, r.caller)
	if err != nil {
		return pipeline.Late(r.work)
	}
	defer done()
	v, err := e.Evaluate(r.work, clip.Request{
		PromptSet: r.set.name, Lane: pipeline.Lane{Caller: r.caller}, Release: r.release,
	}, clip.Trial{Labels: t.labels, Precision: t.precision, Open: func(i int) ([]byte, error) {
		if t.errs[i] != nil {
			return nil, t.errs[i]
		}
		r.holders.Add(1)
		return t.images[i], nil
	}})
	if err != nil {
		return err
	}
	for _, f := range v.Failed {
		if o := outcomeOf(f.Err); o.status != 400 && o.status != 413 && o.status != 415 { // it is not the image's fault
			return f.Err
		}
	}
	c := r.set.condition
	if c.IfMatch != "" && c.IfMatch != anyETag && c.IfMatch != v.Set.ETag || c.IfNoneMatch {
		return fmt.Errorf("%w: its ETag is %q", clip.ErrPrecondition, v.Set.ETag)
	}
	r.set.evaluation = v
	if !t.apply {
		return nil
	}
	c.IfMatch = v.Set.ETag // nobody else's version gets what was found out about this one
	thresholds, temperature := v.Calibration()
	r.set.info, err = r.promptSets().Calibrate(r.work, r.set.name, thresholds, temperature, c)
	return err
}

// evaluationAnswer is the answer of an evaluation.
type evaluationAnswer struct {
	PromptSet   string                         `json:"prompt_set"`
	ETag        string                         `json:"etag"` // of the version that was evaluated
	Images      int                            `json:"images"`
	Accuracy    float64                        `json:"accuracy"`
	Labels      []string                       `json:"labels"`
	Confusion   [][]int                        `json:"confusion"`
	Recall      map[string]*float64            `json:"recall"`
	Precision   map[string]*float64            `json:"precision"`
	Thresholds  map[string]*evaluate.Threshold `json:"thresholds"`
	ECE         calibrationError               `json:"ece"`
	Temperature *float64                       `json:"temperature"`
	Reason      string                         `json:"reason,omitempty"` // why there is no Temperature
	Applied     bool                           `json:"applied"`
	AppliedETag string                         `json:"applied_etag,omitempty"` // of the set with thresholds and temperature
	Errors      []imageError                   `json:"errors"`
	Model       string                         `json:"model"`
	RequestID   string                         `json:"request_id"`
}

type calibrationError struct {
	Before float64  `json:"before"`
	After  *float64 `json:"after"`
}

// imageError is why one image of many was left out.
type imageError struct {
	Image int    `json:"image"` // its number, from 0
	Label string `json:"label"`
	Error string `json:"error"`
	Code  string `json:"code"`
}

func (r *request) answerEvaluation() error {
	v, t := r.set.evaluation, &r.set.trial
	a := evaluationAnswer{
		PromptSet: r.set.name, ETag: v.Set.ETag, Images: v.Images, Accuracy: v.Accuracy, Labels: v.Labels, Confusion: v.Confusion,
		Recall: map[string]*float64{}, Precision: map[string]*float64{}, Thresholds: map[string]*evaluate.Threshold{},
		ECE: calibrationError{v.Before, v.After}, Temperature: v.Temperature, Reason: v.Reason, Errors: []imageError{},
		Model: r.server.svc.Engine.Model(), RequestID: r.id,
	}
	for i, label := range v.Labels {
		a.Recall[label], a.Precision[label], a.Thresholds[label] = v.Recall[i], v.Precision[i], v.Thresholds[i]
	}
	for _, f := range v.Failed {
		o := outcomeOf(f.Err)
		a.Errors = append(a.Errors, imageError{f.Image, t.labels[f.Image], o.text, o.code})
	}
	if t.apply {
		a.Applied, a.AppliedETag = true, r.set.info.ETag
		r.setETag(a.AppliedETag)
	}
	return r.answerJSON(&a)
}
