package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"unicode/utf8"
	"unsafe"

	"github.com/bytedance/sonic"
	"github.com/segmentio/asm/ascii"
)

// fast validates strings but does not copy them: those without escapes lie in the body.
var fast = sonic.Config{ValidateString: true}.Froze()

// input is what a request says in its body, a JSON object or something else, and in its query. Everything in it but texts
// may lie there. A field that is missing is empty, one that is null is "null".
type input struct {
	Image     string
	imageBad  bool                   // 'image' is there, and not a string
	ImageURL  sonic.NoCopyRawMessage `json:"image_url"`
	Prompts   sonic.NoCopyRawMessage
	Labels    sonic.NoCopyRawMessage // where there are neither prompts nor a set
	PromptSet sonic.NoCopyRawMessage `json:"prompt_set"`
	TopK      sonic.NoCopyRawMessage `json:"top_k"` // as JSON, or as a query has it; likewise Threshold
	Threshold sonic.NoCopyRawMessage
	Text      sonic.NoCopyRawMessage
	Images    sonic.NoCopyRawMessage // of a batch
	Texts     sonic.NoCopyRawMessage
	A, B      sonic.NoCopyRawMessage // sides of a comparison
	Label     sonic.NoCopyRawMessage
	Vector    sonic.NoCopyRawMessage
	Event     sonic.NoCopyRawMessage

	binary  bool     // the body is not JSON: file is instead of Image
	file    []byte   // nil: there is none
	frame   []byte   // its X-Frame-Format; empty: it is a compressed image
	texts   []string // instead of Prompts, in a form or the query
	set     []byte   // likewise, of PromptSet
	label   []byte   // likewise, of Label
	address []byte   // likewise, of ImageURL
	labels  []string // likewise, of Labels
}

// isJSON accepts JSON in any of its names; without a name a body counts as JSON.
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
		if in.texts == nil && !given(in.Prompts) {
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

// parse reads body, which must not change while the input is in use. Unknown fields are
// ignored; of a field that comes twice the last one counts. Names are matched without regard
// to case, as encoding/json does. The body is UTF-8, with or without a byte order mark.
func (in *input) parse(body []byte) error {
	body, err := utf8Text(body)
	if err != nil {
		return err
	}
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	if len(trimmed) == 0 {
		return fail(errInvalidJSON, "The body is empty: send a JSON object")
	}
	*in = input{}
	if trimmed[0] == '{' && fast.UnmarshalFromString(unsafe.String(unsafe.SliceData(body), len(body)), in) == nil {
		return nil
	}
	return in.parseSlowly(body)
}

// utf8Text returns the body without its byte order mark. Anything that is not UTF-8 is refused,
// because decoders of JSON put U+FFFD in its place, and the answer would be for another text.
// The look at every byte takes about 4 us for 100 kB of base64 on amd64.
func utf8Text(body []byte) ([]byte, error) {
	if name := otherUnicode(body); name != "" {
		return nil, fail(errInvalidJSON, "The body is %s: send JSON as UTF-8", name)
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !ascii.Valid(body) && !utf8.Valid(body) {
		at, r, size := 0, rune(0), 0
		for ; r != utf8.RuneError || size != 1; at += size {
			r, size = utf8.DecodeRune(body[at:])
		}
		return nil, fail(errInvalidJSON, "The body is not valid UTF-8, at byte %d", at)
	}
	return body, nil
}

// otherUnicode names the encoding of JSON that is not UTF-8 by its first bytes: a byte order mark, or
// the zeros about its first character, which is one of ASCII.
func otherUnicode(body []byte) string {
	if len(body) < 4 {
		body = append(body[:len(body):len(body)], "    "[len(body):]...)
	}
	a, b, c, d := body[0], body[1], body[2], body[3]
	switch {
	case a == 0 && b == 0, a == 0xff && b == 0xfe && c == 0 && d == 0, a != 0 && b == 0 && c == 0 && d == 0:
		return "UTF-32"
	case a == 0xff && b == 0xfe, a == 0xfe && b == 0xff, a == 0, b == 0:
		return "UTF-16"
	}
	return ""
}

// parseSlowly is for bodies that the fast way refused: it finds out why, with errors that are fit for a client, which
// sonic's are not (they quote the body). It accepts what encoding/json accepts, so nested deeper than sonic goes.
func (in *input) parseSlowly(body []byte) error {
	var raw struct {
		input
		Image json.RawMessage // instead of input's
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fail(errInvalidJSON, "The body is not valid JSON: %s, at byte %d", syntax.Error(), syntax.Offset)
		}
		return fail(errInvalidJSON, "The body must be a JSON object")
	}
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return fail(errInvalidJSON, "The body must be a JSON object")
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
