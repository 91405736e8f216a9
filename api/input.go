package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/bytedance/sonic"
	"github.com/segmentio/asm/ascii"
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
		at := 0
		for at < len(body) {
			r, size := utf8.DecodeRune(body[at:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return nil, fail(errInvalidJSON, "The body is not valid UTF-8, at byte %d", at+1)
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
	raw := string(in.Prompts) // the copy
	if fast.UnmarshalFromString(raw, &prompts) != nil {
		return nil, in.wrongPrompt()
	}
	if half := halfCharacter(raw); half != "" {
		return nil, fail(errInvalidPrompts, "'prompts' has %s, which is half of a character", half)
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

// textBytes is the length of a text as the limits count it: tokenizers do not see white space around it.
func textBytes(text string) int { return len(strings.TrimSpace(text)) }

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

// threshold is the smallest score wanted; cut is false where none was given.
func (in *input) threshold() (t float64, cut bool, err error) {
	if !given(in.Threshold) {
		return 0, false, nil
	}
	t, ok := number(in.Threshold)
	if !ok || t < 0 || t > 1 {
		return 0, false, fail(errInvalidRequest, "Invalid 'threshold': it must be a number from 0 to 1")
	}
	return t, true, nil
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
	raw := string(in.Text) // the copy
	if !given(in.Text) || raw[0] != '"' || fast.UnmarshalFromString(raw, &text) != nil ||
		strings.TrimSpace(text) == "" {
		return "", fail(errInvalidRequest, "Missing or invalid 'text': it must be a string that is not empty")
	}
	if half := halfCharacter(raw); half != "" {
		return "", fail(errInvalidRequest, "'text' has %s, which is half of a character", half)
	}
	if n := textBytes(text); n > maxBytes {
		return "", fail(errInvalidRequest, "'text' is too long: %d bytes, at most %d are allowed", n, maxBytes)
	}
	return text, nil
}

// halfCharacter finds an escape in JSON, which must be valid, that is one half of a surrogate pair without the
// other. Decoders put U+FFFD in its place, and the answer would be for another text.
func halfCharacter(raw string) string {
	unit := func(raw string) rune {
		if !strings.HasPrefix(raw, `\u`) || len(raw) < 6 {
			return 0
		}
		n, _ := strconv.ParseUint(raw[2:6], 16, 16)
		return rune(n)
	}
	for i := strings.IndexByte(raw, '\\'); i >= 0; i = strings.IndexByte(raw, '\\') {
		raw = raw[i:]
		first, end := unit(raw), min(2, len(raw))
		if utf16.IsSurrogate(first) {
			if utf16.DecodeRune(first, unit(raw[6:])) == utf8.RuneError {
				return raw[:6]
			}
			end = 12
		}
		raw = raw[end:]
	}
	return ""
}
