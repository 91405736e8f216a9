package api

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unsafe"

	"hailoclip/api/rawjson"
	"hailoclip/cache/sets"
)

var errNoURL = fail(errInvalidRequest, "image_url is not supported, send the image")

// noURL refuses an image_url where none is read.
func (in *input) noURL() error {
	if rawjson.Given(in.ImageURL) || in.address != nil {
		return errNoURL
	}
	return nil
}

// imageURL returns a copy of the address of the image, "" where there is none.
func (in *input) imageURL(r *request) (address string, err error) {
	switch {
	case in.noURL() == nil:
		return "", nil
	case r.server.fetcher.allowed.None():
		return "", fmt.Errorf("%w: fetch.allow has no hosts", errNoURL)
	case in.Image != "", in.imageBad, len(in.file) > 0:
		return "", fail(errInvalidRequest, "'image' and 'image_url' exclude each other")
	case in.address != nil:
		return string(in.address), nil
	}
	return addressIn(in.ImageURL)
}

// addressIn returns a copy of the address in a JSON value.
func addressIn(raw []byte) (address string, err error) {
	if raw[0] != '"' || rawjson.Unmarshal(string(raw), &address) != nil || address == "" {
		err = fail(errInvalidRequest, "Invalid 'image_url': it must be the address of an image")
	}
	return address, err
}

// decodeImage returns the bytes of the image, with no capacity behind them, where what is left of the text and of older
// bodies lies. It writes them over the body, which must be the one given to parse, so the input is used up.
func (in *input) decodeImage(body []byte, scratch *[scratchBytes]byte) ([]byte, error) {
	switch {
	case in.imageBad:
		return nil, fail(errInvalidImage, "Invalid 'image': it must be a string with the image in base64")
	case in.Image == "":
		return nil, fail(errInvalidImage, "Missing 'image': send the image in base64")
	}
	text := unsafe.Slice(unsafe.StringData(in.Image), len(in.Image))
	*in = input{}
	image, err := decodeImage(body[:0], text, scratch)
	return slices.Clip(image), err
}

// promptSet is the name of the prompt set to classify by instead of prompts; "" where there is none.
func (in *input) promptSet() (string, error) {
	if !rawjson.Given(in.PromptSet) && len(in.set) == 0 {
		return "", nil
	}
	if in.texts != nil || rawjson.Given(in.Prompts) {
		return "", fail(errInvalidRequest, "'prompts' and 'prompt_set' exclude each other")
	}
	name := string(in.set)
	isText := !rawjson.Given(in.PromptSet) || in.PromptSet[0] == '"' && rawjson.Unmarshal(string(in.PromptSet), &name) == nil
	if !isText || !sets.ValidName(name) {
		return "", fail(errInvalidRequest, "Invalid 'prompt_set': it must be a name of 1 to 64 letters, digits, '.', '_' and '-'")
	}
	return name, nil
}

// prompts returns copies of the prompts, so that nobody who keeps one keeps the body.
func (in *input) prompts(maxPrompts, maxBytes int) (prompts []string, err error) {
	n := max(rawjson.Elements(in.Prompts), len(in.texts))
	if n == 0 {
		return nil, fail(errInvalidPrompts, "Missing or invalid 'prompts' array")
	}
	if n > maxPrompts {
		return nil, fail(errInvalidPrompts, "Too many prompts: %d, at most %d are allowed", n, maxPrompts)
	}
	if prompts = in.texts; prompts == nil {
		if prompts, err = in.promptArray(n); err != nil {
			return nil, err
		}
	}
	for i, p := range prompts {
		switch n := textBytes(p); {
		case n == 0:
			return nil, fail(errInvalidPrompts, "prompts[%d] is empty or not a string", i)
		case n > maxBytes:
			return nil, fail(errInvalidPrompts, "prompts[%d] is too long: %d bytes, at most %d are allowed", i, n, maxBytes)
		}
	}
	return prompts, nil
}

// promptArray reads the n prompts in JSON.
func (in *input) promptArray(n int) ([]string, error) {
	prompts := make([]string, 0, n)
	raw := string(in.Prompts) // the copy
	if rawjson.Unmarshal(raw, &prompts) != nil {
		return nil, in.wrongPrompt()
	}
	if half := rawjson.HalfCharacter(raw); half != "" {
		return nil, fail(errInvalidPrompts, "'prompts' has %s, which is half of a character", half)
	}
	return prompts, nil
}

// textBytes is the length of a text as the limits count it: tokenizers do not see white space around it.
func textBytes(text string) int { return len(strings.TrimSpace(text)) }

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
	if !rawjson.Given(in.TopK) {
		return min(fallback, n), nil
	}
	k, ok := rawjson.Number(in.TopK)
	if !ok || k != math.Trunc(k) || k < 1 {
		return 0, fail(errInvalidRequest, "Invalid 'top_k': it must be an integer of at least 1")
	}
	return int(min(k, float64(n))), nil
}

// threshold is the smallest score wanted; cut is false where none was given.
func (in *input) threshold() (t float64, cut bool, err error) {
	if !rawjson.Given(in.Threshold) {
		return 0, false, nil
	}
	t, ok := rawjson.Number(in.Threshold)
	if !ok || t < 0 || t > 1 {
		return 0, false, fail(errInvalidRequest, "Invalid 'threshold': it must be a number from 0 to 1")
	}
	return t, true, nil
}

// text returns a copy of the text to embed.
func (in *input) text(maxBytes int) (string, error) {
	var text string
	raw := string(in.Text) // the copy
	if !rawjson.Given(in.Text) || raw[0] != '"' || rawjson.Unmarshal(raw, &text) != nil {
		return checkText("", maxBytes)
	}
	if half := rawjson.HalfCharacter(raw); half != "" {
		return "", fail(errInvalidRequest, "'text' has %s, which is half of a character", half)
	}
	return checkText(text, maxBytes)
}

// checkText refuses a text that is empty or too long to be embedded.
func checkText(text string, maxBytes int) (string, error) {
	switch n := textBytes(text); {
	case n == 0:
		return "", fail(errInvalidRequest, "Missing or invalid 'text': it must be a string that is not empty")
	case n > maxBytes:
		return "", fail(errInvalidRequest, "'text' is too long: %d bytes, at most %d are allowed", n, maxBytes)
	}
	return text, nil
}

// trimmed cuts the white space around texts that are over the limit with it, which the encoder does not see
// and nobody should have to keep. It does not change the slice.
func trimmed(texts []string, limit int) []string {
	cut := texts
	for i, text := range texts {
		if len(text) > limit {
			if &cut[0] == &texts[0] {
				cut = slices.Clone(texts)
			}
			cut[i] = strings.TrimSpace(text)
		}
	}
	return cut
}
