package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/bytedance/sonic"
)

// fast validates strings but does not copy them: those without escapes lie in the body.
var fast = sonic.Config{ValidateString: true}.Froze()

// input is the JSON object of a request. Everything in it may lie in the body it was read from.
// A field that is missing is empty, one that is null is "null".
type input struct {
	Image     string
	imageBad  bool                   // 'image' is there, and not a string
	ImageURL  sonic.NoCopyRawMessage `json:"image_url"`
	Prompts   sonic.NoCopyRawMessage
	TopK      sonic.NoCopyRawMessage `json:"top_k"`
	Threshold sonic.NoCopyRawMessage
	Text      sonic.NoCopyRawMessage
}

// parse reads body, which must not change while the input is in use. Unknown fields are
// ignored; of a field that comes twice the last one counts. Names are matched without regard
// to case, as encoding/json does.
func (in *input) parse(body []byte) error {
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

// parseSlowly is for bodies that the fast way refused: it finds out why, with errors that are
// fit for a client, which sonic's are not (they quote the body). It accepts what encoding/json
// accepts, so nested deeper than sonic goes.
func (in *input) parseSlowly(body []byte) error {
	var raw struct {
		Image     json.RawMessage
		ImageURL  json.RawMessage `json:"image_url"`
		Prompts   json.RawMessage
		TopK      json.RawMessage `json:"top_k"`
		Threshold json.RawMessage
		Text      json.RawMessage
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return fail(errInvalidJSON, "The body is not valid JSON: %s, at byte %d", syntax.Error(), syntax.Offset)
		}
		return fail(errInvalidJSON, "The body must be a JSON object")
	}
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return fail(errInvalidJSON, "The body must be a JSON object")
	}
	*in = input{
		ImageURL: sonic.NoCopyRawMessage(raw.ImageURL), Prompts: sonic.NoCopyRawMessage(raw.Prompts),
		TopK: sonic.NoCopyRawMessage(raw.TopK), Threshold: sonic.NoCopyRawMessage(raw.Threshold),
		Text: sonic.NoCopyRawMessage(raw.Text),
	}
	in.imageBad = raw.Image != nil && json.Unmarshal(raw.Image, &in.Image) != nil
	return nil
}

// noURL refuses the image_url of other services' interfaces.
func (in *input) noURL() error {
	if given(in.ImageURL) {
		return fail(errInvalidRequest, "image_url is not supported, send the image")
	}
	return nil
}

// decodeImage returns the bytes of the image. It writes them over the body, which must be the
// one given to parse, so the input is used up.
func (in *input) decodeImage(body []byte, scratch *[scratchBytes]byte) ([]byte, error) {
	switch {
	case in.imageBad:
		return nil, fail(errInvalidImage, "Invalid 'image': it must be a string with the image in base64")
	case in.Image == "":
		return nil, fail(errInvalidImage, "Missing 'image': send the image in base64")
	}
	text := unsafe.Slice(unsafe.StringData(in.Image), len(in.Image))
	*in = input{}
	return decodeImage(body[:0], text, scratch)
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

// given says that a field is there and not null.
func given(raw []byte) bool { return len(raw) > 0 && string(raw) != "null" }

// prompts returns copies of the prompts, so that nobody who keeps one keeps the body.
func (in *input) prompts(maxPrompts, maxBytes int) ([]string, error) {
	n := elements(in.Prompts)
	if n == 0 {
		return nil, fail(errInvalidPrompts, "Missing or invalid 'prompts' array")
	}
	if n > maxPrompts {
		return nil, fail(errInvalidPrompts, "Too many prompts: %d, at most %d are allowed", n, maxPrompts)
	}
	prompts := make([]string, 0, n)
	if fast.UnmarshalFromString(string(in.Prompts), &prompts) != nil { // string() is the copy
		return nil, in.wrongPrompt()
	}
	for i, p := range prompts {
		switch n := len(strings.TrimSpace(p)); { // spaces around it mean nothing to a tokenizer
		case n == 0:
			return nil, fail(errInvalidPrompts, "prompts[%d] is empty or not a string", i)
		case n > maxBytes:
			return nil, fail(errInvalidPrompts, "prompts[%d] is too long: %d bytes, at most %d are allowed", i, n, maxBytes)
		}
	}
	return prompts, nil
}

// elements counts the elements of a JSON array; 0 when raw, which must be valid JSON, is none.
func elements(raw []byte) int {
	if len(raw) < 2 || raw[0] != '[' {
		return 0
	}
	n, depth := 0, 0
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; c {
		case '"':
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 1 {
				n++
			}
		}
	}
	if n == 0 && len(bytes.TrimSpace(raw[1:len(raw)-1])) == 0 {
		return 0
	}
	return n + 1
}

// wrongPrompt finds the prompt that is not a string.
func (in *input) wrongPrompt() error {
	var raw []json.RawMessage
	if json.Unmarshal(in.Prompts, &raw) == nil {
		i := slices.IndexFunc(raw, func(r json.RawMessage) bool { return len(r) == 0 || r[0] != '"' })
		if i >= 0 {
			return fail(errInvalidPrompts, "prompts[%d] is empty or not a string", i)
		}
	}
	return fail(errInvalidPrompts, "Missing or invalid 'prompts' array")
}

// topK is how many matches are wanted: an integer from 1, 3 unless given, never above n.
func (in *input) topK(n int) (int, error) {
	const fallback = 3
	if !given(in.TopK) {
		return min(fallback, n), nil
	}
	k, ok := number(in.TopK)
	if !ok || k != math.Trunc(k) || k < 1 {
		return 0, fail(errInvalidRequest, "Invalid 'top_k': it must be an integer of at least 1")
	}
	return int(min(k, float64(n))), nil
}

// threshold is the smallest score wanted, 0 unless given.
func (in *input) threshold() (float64, error) {
	if !given(in.Threshold) {
		return 0, nil
	}
	t, ok := number(in.Threshold)
	if !ok || t < 0 || t > 1 {
		return 0, fail(errInvalidRequest, "Invalid 'threshold': it must be a number from 0 to 1")
	}
	return t, nil
}

// number reads a JSON number.
func number(raw []byte) (float64, bool) {
	if c := raw[0]; c != '-' && (c < '0' || c > '9') {
		return 0, false // a string, true, or what only strconv takes for a number
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	return f, err == nil
}

// text returns a copy of the text to embed.
func (in *input) text(maxBytes int) (string, error) {
	var text string
	if !given(in.Text) || in.Text[0] != '"' || fast.UnmarshalFromString(string(in.Text), &text) != nil ||
		strings.TrimSpace(text) == "" {
		return "", fail(errInvalidRequest, "Missing or invalid 'text': it must be a string that is not empty")
	}
	if n := len(strings.TrimSpace(text)); n > maxBytes {
		return "", fail(errInvalidRequest, "'text' is too long: %d bytes, at most %d are allowed", n, maxBytes)
	}
	return text, nil
}
