package compat

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"hailoclip/api/rawjson"
)

// Limits of one request.
const (
	MaxItems = 2048     // texts and images. OpenAI's limit
	maxText  = 64 << 10 // bytes of a text, of which models read less; the rest is cut
)

// Marker is where the image goes in a prompt of llama.cpp.
const Marker = "<__media__>"

// Body is the fields of a JSON body, of all dialects. They lie in the body.
type Body struct {
	Model, Name                                                          rawjson.Raw
	Input, Inputs, Content, Messages, Texts, Images, Prompt, Text, Image rawjson.Raw
	Modality                                                             rawjson.Raw

	Dimensions      rawjson.Raw
	OutputDimension rawjson.Raw `json:"output_dimension"`
	EncodingFormat  rawjson.Raw `json:"encoding_format"`
	OutputEncoding  rawjson.Raw `json:"output_encoding"`
	EncodingType    rawjson.Raw `json:"encoding_type"`
	EmbeddingType   rawjson.Raw `json:"embedding_type"`
	EmbeddingTypes  rawjson.Raw `json:"embedding_types"`
	OutputDtype     rawjson.Raw `json:"output_dtype"`

	Truncate, Truncation, Parameters, Data rawjson.Raw

	// Of vLLM.
	TruncateTokens rawjson.Raw `json:"truncate_prompt_tokens"`
	EmbedDtype     rawjson.Raw `json:"embed_dtype"`
	Endianness     rawjson.Raw

	// Of Roboflow.
	Subject     rawjson.Raw
	SubjectType rawjson.Raw `json:"subject_type"`
	PromptType  rawjson.Raw `json:"prompt_type"`
	VersionID   rawjson.Raw `json:"clip_version_id"`

	ExecEndpoint rawjson.Raw // of clip-as-service
}

// Parse reads a body. It does not copy: the fields lie in it. The error is a rawjson.ErrInvalid.
func Parse(body []byte) (*Body, error) {
	b := new(Body)
	return b, rawjson.Object(body, b)
}

// embeddings reads the items and the common options, whichever of the known forms they have: the body says which.
func embeddings(a *Ask, b *Body) error {
	if err := a.options(b); err != nil {
		return err
	}
	return a.items(b)
}

// options reads what does not depend on the form of the items: the model, and how vectors are wanted. Options that change nothing
// here, such as "normalize", are ignored: vectors are always of unit length.
func (a *Ask) options(b *Body) error {
	if err := a.model(b.Model); err != nil {
		return err
	}
	for _, f := range [...]struct {
		name string
		raw  rawjson.Raw
		read func(a *Ask, name string, raw rawjson.Raw) error
	}{
		{"dimensions", b.Dimensions, (*Ask).dimensions}, {"output_dimension", b.OutputDimension, (*Ask).dimensions},
		{"encoding_format", b.EncodingFormat, (*Ask).encoding}, {"output_encoding", b.OutputEncoding, (*Ask).encoding},
		{"encoding_type", b.EncodingType, (*Ask).encoding}, {"embedding_type", b.EmbeddingType, (*Ask).encoding},
		{"truncate", b.Truncate, (*Ask).truncation}, {"truncation", b.Truncation, (*Ask).truncation},
		{"truncate_prompt_tokens", b.TruncateTokens, (*Ask).truncateTokens},
		{"embed_dtype", b.EmbedDtype, isFloat32}, {"output_dtype", b.OutputDtype, isFloat}, {"endianness", b.Endianness, isLittleEnd},
	} {
		if rawjson.Given(f.raw) {
			if err := f.read(a, f.name, f.raw); err != nil {
				return err
			}
		}
	}
	return nil
}

// dimensions refuses any size of vectors but the model's; 0 stands for that.
func (a *Ask) dimensions(name string, raw rawjson.Raw) error {
	if n, ok := rawjson.Number(raw); !ok || n != 0 && n != float64(a.Service.Dimension) {
		return fault(name, "'%s' must be %d, which the vectors of %s have", name, a.Service.Dimension, a.Service.Model)
	}
	return nil
}

// truncateTokens refuses to read less of a text than the model does; -1 stands for that.
func (a *Ask) truncateTokens(name string, raw rawjson.Raw) error {
	if n, ok := rawjson.Number(raw); !ok || n != -1 && n < float64(a.Service.ContextLength) {
		return fault(name, "'%s' must be -1, or at least %d, which the model reads", name, a.Service.ContextLength)
	}
	return nil
}

// encoding reads how vectors are to be written: a name, or an array of one.
func (a *Ask) encoding(name string, raw rawjson.Raw) error {
	if rawjson.Elements(raw) == 1 {
		rawjson.EachElement(raw, func(element []byte) { raw = element })
	}
	value, err := choice(name, raw, "float", "base64")
	a.Base64 = a.Base64 || value == "base64"
	return err
}

// truncation reads whether texts may be cut: unless it is said they may.
func (a *Ask) truncation(name string, raw rawjson.Raw) error {
	value, _ := text(raw)
	switch {
	case string(raw) == "true", value == "END", value == "START":
	case string(raw) == "false", value == "NONE":
		a.Whole = true
	default:
		return fault(name, `'%s' must be true, false, "NONE" or "END"`, name)
	}
	return nil
}

// choice reads a string that must be one of the values.
func choice(name string, raw rawjson.Raw, values ...string) (string, error) {
	value, _ := text(raw)
	if !slices.Contains(values, value) {
		return "", fault(name, `'%s' must be "%s"`, name, strings.Join(values, `" or "`))
	}
	return value, nil
}

// Vectors are float32, in base64 little-endian: other kinds of numbers are refused.
var (
	isFloat     = only("float")
	isFloat32   = only("float32")
	isLittleEnd = only("native", "little")
)

// only reads a string that changes nothing: one of the values.
func only(values ...string) func(a *Ask, name string, raw rawjson.Raw) error {
	return func(_ *Ask, name string, raw rawjson.Raw) error {
		_, err := choice(name, raw, values...)
		return err
	}
}

// items reads the texts and images of a body, in whichever field they are: the first one that is there, in the order below. Others
// are not looked at, but for texts and images, which may both be there. The same texts and images are the same items in every form.
func (a *Ask) items(b *Body) (err error) {
	modality := "text"
	if rawjson.Given(b.Modality) {
		if modality, err = choice("modality", b.Modality, "text", "image"); err != nil {
			return err
		}
	}
	switch images := modality == "image"; {
	case rawjson.Given(b.Input): // OpenAI, infinity, Jina, and nearly all
		return a.list("input", b.Input, images)
	case rawjson.Given(b.Messages): // vLLM
		return a.messages(b.Messages)
	case rawjson.Given(b.Content): // llama.cpp
		return a.list("content", b.Content, images)
	case rawjson.Given(b.Texts), rawjson.Given(b.Images): // Cohere, Weaviate
		return a.textsAndImages(b)
	case rawjson.Given(b.Inputs): // TEI, Hugging Face, Cohere, Voyage
		return a.list("inputs", b.Inputs, images)
	case rawjson.Given(b.Prompt): // Ollama
		return a.list("prompt", b.Prompt, images)
	}
	return fault("input", "Missing 'input': send a string, or an array of strings")
}

// textsAndImages reads the texts and then the images. One of the two may be missing or empty.
func (a *Ask) textsAndImages(b *Body) error {
	for _, f := range [...]struct {
		name   string
		raw    rawjson.Raw
		images bool
	}{{"texts", b.Texts, false}, {"images", b.Images, true}} {
		if !rawjson.Given(f.raw) || f.raw[0] == '[' && rawjson.Elements(f.raw) == 0 {
			continue
		}
		if err := a.list(f.name, f.raw, f.images); err != nil {
			return err
		}
	}
	if len(a.Items) == 0 {
		return fault("texts", "'texts' and 'images' are empty")
	}
	return nil
}

// inputs reads items that are in the field of that name.
func inputs(a *Ask, b *Body) error {
	if !rawjson.Given(b.Inputs) {
		return fault("inputs", "Missing 'inputs'")
	}
	if err := a.options(b); err != nil {
		return err
	}
	return a.list("inputs", b.Inputs, false)
}

// array calls do for each element of a field that is an array, which may be empty or missing.
func (a *Ask) array(field string, raw rawjson.Raw, do func(Item, rawjson.Raw) error) error {
	if !rawjson.Given(raw) {
		return nil
	}
	if raw[0] != '[' {
		return fault(field, "'%s' must be an array", field)
	}
	more := rawjson.Elements(raw)
	if n := len(a.Items) + more; n > MaxItems {
		return fault(field, "Too many items in '%s': %d, at most %d are allowed", field, n, MaxItems)
	}
	a.Items = slices.Grow(a.Items, more)
	return each(raw, func(at int, element rawjson.Raw) error { return do(Item{field: field, at: at}, element) })
}

// firstGiven returns the first of two fields that is given, else other: clients send one of them.
func firstGiven(raw, other rawjson.Raw) rawjson.Raw {
	if rawjson.Given(raw) {
		return raw
	}
	return other
}

// each calls do with each element of a JSON array, until there is an error.
func each(raw rawjson.Raw, do func(at int, element rawjson.Raw) error) (err error) {
	at := 0
	rawjson.EachElement(raw, func(element []byte) {
		if err == nil {
			err = do(at, element)
		}
		at++
	})
	return err
}

// text returns a copy of a JSON string, no longer than maxText; ok is false where raw is none.
func text(raw rawjson.Raw) (s string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	s, ok = rawjson.String(raw)
	return strings.Clone(shorten(s)), ok
}

// shorten returns a text of at most about maxText bytes with the same words. White space is one blank to tokenizers.
func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	b := make([]byte, 0, maxText)
	blank := false
	for _, r := range text {
		if unicode.IsSpace(r) {
			blank = len(b) > 0
			continue
		}
		if blank {
			b, blank = append(b, ' '), false
		}
		if len(b)+utf8.RuneLen(r) > maxText {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

// isTokens says whether raw is an array that begins with a number.
func isTokens(raw rawjson.Raw) bool {
	return raw[0] == '[' && isNumber(bytes.TrimLeft(raw[1:], " \t\r\n")[0])
}

func isNumber(first byte) bool { return first == '-' || first >= '0' && first <= '9' }

// isDataURI says whether a JSON string is the data URI of an image, and isURL whether it is an address. Slashes may be escaped.
func isDataURI(raw rawjson.Raw) bool { return hasPrefix(raw, "data:image/", `data:image\/`) }
func isURL(raw rawjson.Raw) bool {
	return hasPrefix(raw, "http://", "https://", `http:\/\/`, `https:\/\/`)
}

// hasPrefix compares the start of a JSON string, without regard to case.
func hasPrefix(raw rawjson.Raw, prefixes ...string) bool {
	return raw[0] == '"' && slices.ContainsFunc(prefixes, func(prefix string) bool {
		return len(raw) > len(prefix)+1 && strings.EqualFold(string(raw[1:len(prefix)+1]), prefix)
	})
}
