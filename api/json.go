package api

import (
	"bytes"
	"encoding/json"
	"math"

	"hailoclip/api/rawjson"
)

// input is what a request says in its body, a JSON object or something else, and in its query. Everything in it but texts
// may lie there. A field that is missing is empty, one that is null is "null".
type input struct {
	Image     string
	imageBad  bool        // 'image' is there, and not a string
	ImageURL  rawjson.Raw `json:"image_url"`
	Prompts   rawjson.Raw
	Labels    rawjson.Raw // where there are neither prompts nor a set
	PromptSet rawjson.Raw `json:"prompt_set"`
	TopK      rawjson.Raw `json:"top_k"` // as JSON, or as a query has it; likewise Threshold
	Threshold rawjson.Raw
	Text      rawjson.Raw
	Images    rawjson.Raw // of a batch
	Texts     rawjson.Raw
	A, B      rawjson.Raw // sides of a comparison
	Label     rawjson.Raw
	Vector    rawjson.Raw
	Event     rawjson.Raw

	binary  bool     // the body is not JSON: file is instead of Image
	file    []byte   // nil: there is none
	frame   []byte   // its X-Frame-Format; empty: it is a compressed image
	texts   []string // instead of Prompts, in a form or the query
	set     []byte   // likewise, of PromptSet
	label   []byte   // likewise, of Label
	address []byte   // likewise, of ImageURL
	labels  []string // likewise, of Labels
}

// isJSON accepts JSON in any of its names; without a name a body counts as JSON, see unnamedReader.
func isJSON(media []byte) bool {
	return len(media) == 0 || string(media) == "application/json" || bytes.HasSuffix(media, []byte("+json"))
}

// jsonReader reads a JSON object and makes of it what is asked.
func jsonReader(read func(*request, *input) error) func(*request) error {
	return inTurn(func(r *request) error {
		if err := r.input.parse(r.body); err != nil {
			return err
		}
		return r.readInput(read)
	})
}

// readClassify reads what /v1/classify is asked.
func readClassify(r *request, in *input) (err error) {
	if r.flat, err = r.flag("flat"); err != nil {
		return err
	}
	if r.address, err = in.imageURL(r); err != nil { // first: whoever sends one will send the rest right
		return err
	}
	if err = in.question(r); err != nil {
		return err
	}
	return in.image(r)
}

// question reads what images are classified by.
func (in *input) question(r *request) (err error) {
	labels := math.MaxInt32 // the set knows how many there are
	if r.ask.PromptSet, err = in.promptSet(); err != nil {
		return err
	}
	if r.ask.PromptSet == "" {
		if in.texts == nil && !rawjson.Given(in.Prompts) {
			in.texts, in.Prompts = in.labels, in.Labels
		}
		if r.texts, err = in.prompts(r.rules.MaxPrompts, r.rules.MaxPromptBytes); err != nil {
			return err
		}
		labels = len(r.texts)
	}
	r.ask.Prompts = trimmed(r.texts, r.rules.MaxPromptBytes)
	if r.ask.TopK, err = in.topK(labels); err != nil {
		return err
	}
	r.ask.Threshold, r.ask.Cut, err = in.threshold()
	return err
}

// readImage reads what /v1/embed/image is asked.
func readImage(r *request, in *input) (err error) {
	if r.address, err = in.imageURL(r); err != nil {
		return err
	}
	if r.vectors, err = vectorsOf(r.ctx); err != nil {
		return err
	}
	return in.image(r)
}

// readText reads what /v1/embed/text is asked.
func readText(r *request, in *input) (err error) {
	if r.vectors, err = vectorsOf(r.ctx); err != nil {
		return err
	}
	text, err := in.text(r.rules.MaxPromptBytes)
	if err == nil {
		r.ask.Prompts = trimmed([]string{text}, r.rules.MaxPromptBytes)
	}
	return err
}

// parse reads body as rawjson.Object does. body must not change while the input is in use.
func (in *input) parse(body []byte) error {
	*in = input{}
	return rawjson.Read(body, in, in.parseSlowly)
}

// parseSlowly is for bodies that the fast way refused, see rawjson.Slowly.
func (in *input) parseSlowly(body []byte) error {
	var raw struct {
		input
		Image json.RawMessage // instead of input's
	}
	if err := rawjson.Slowly(body, &raw); err != nil {
		return err
	}
	*in = raw.input
	in.imageBad = raw.Image != nil && json.Unmarshal(raw.Image, &in.Image) != nil
	return nil
}

// warmUp compiles the decoders, which takes milliseconds that the first request need not wait.
func warmUp() error {
	var in input
	if err := in.parse([]byte(`{"image":"","prompts":["a"],"text":"a"}`)); err != nil {
		return err
	}
	if _, err := in.prompts(1, 1); err != nil {
		return err
	}
	_, err := in.text(1)
	return err
}
