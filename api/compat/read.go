package compat

import (
	"strings"

	"hailoclip/api/rawjson"
)

// MaxItems is how many texts and images a request may have. OpenAI's limit.
const MaxItems = 2048

// Body is the fields of a JSON body, of all dialects. They lie in the body.
type Body struct {
	Model                                                                rawjson.Raw
	Input, Inputs, Content, Messages, Texts, Images, Prompt, Text, Image rawjson.Raw
	Modality                                                             rawjson.Raw

	Dimensions      rawjson.Raw
	OutputDimension rawjson.Raw `json:"output_dimension"`
	EncodingFormat  rawjson.Raw `json:"encoding_format"`
	OutputEncoding  rawjson.Raw `json:"output_encoding"`
	EncodingType    rawjson.Raw `json:"encoding_type"`
	EmbeddingType   rawjson.Raw `json:"embedding_type"`
	EmbeddingTypes  rawjson.Raw `json:"embedding_types"`

	Truncate, Truncation, Parameters, Options, Data rawjson.Raw

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

// options reads what does not depend on the form of the items.
func (a *Ask) options(b *Body) error {
	if err := a.model(b.Model); err != nil {
		return err
	}
	if err := a.dimensions("dimensions", b.Dimensions); err != nil {
		return err
	}
	if err := a.dimensions("output_dimension", b.OutputDimension); err != nil {
		return err
	}
	for _, f := range [...]struct {
		name string
		raw  rawjson.Raw
	}{
		{"encoding_format", b.EncodingFormat}, {"output_encoding", b.OutputEncoding}, {"encoding_type", b.EncodingType},
		{"embedding_type", b.EmbeddingType},
	} {
		if err := a.encoding(f.name, f.raw); err != nil {
			return err
		}
	}
	return a.truncation(b)
}

// dimensions refuses any size of vectors but the model's; 0 and null stand for that.
func (a *Ask) dimensions(name string, raw rawjson.Raw) error {
	if !rawjson.Given(raw) {
		return nil
	}
	if n, ok := rawjson.Number(raw); !ok || n != 0 && n != float64(a.Service.Dimension) {
		return fault(name, "'%s' must be %d, which the vectors of %s have", name, a.Service.Dimension, a.Service.Model)
	}
	return nil
}

// encoding reads how vectors are to be written.
func (a *Ask) encoding(name string, raw rawjson.Raw) error {
	if !rawjson.Given(raw) {
		return nil
	}
	switch encoding, _ := text(raw); encoding {
	case "float":
	case "base64":
		a.Base64 = true
	default:
		return fault(name, `'%s' must be "float" or "base64"`, name)
	}
	return nil
}

// truncation reads whether texts may be cut: unless it is said they may.
func (a *Ask) truncation(b *Body) error {
	for _, f := range [...]struct {
		name string
		raw  rawjson.Raw
	}{{"truncate", b.Truncate}, {"truncation", b.Truncation}} {
		name, raw := f.name, f.raw
		if !rawjson.Given(raw) {
			continue
		}
		value, isText := text(raw)
		switch {
		case string(raw) == "true", isText && (value == "END" || value == "START"):
		case string(raw) == "false", isText && value == "NONE":
			a.Whole = true
		default:
			return fault(name, `'%s' must be true, false, "NONE" or "END"`, name)
		}
	}
	return nil
}

// items reads the texts and images of a body: dropin.md has the rules.
func (a *Ask) items(b *Body) error {
	images := false
	if rawjson.Given(b.Modality) {
		switch modality, _ := text(b.Modality); modality {
		case "text":
		case "image":
			images = true
		default:
			return fault("modality", `'modality' must be "text" or "image"`)
		}
	}
	switch {
	case rawjson.Given(b.Input):
		return a.list("input", b.Input, images)
	}
	return fault("input", "Missing 'input': send a string, or an array of strings")
}

// list reads an item, or an array of items. images says that strings are images.
func (a *Ask) list(field string, raw rawjson.Raw, images bool) (err error) {
	if raw[0] != '[' {
		return a.item(field, -1, raw, images)
	}
	n := rawjson.Elements(raw)
	if n == 0 {
		return fault(field, "'%s' is empty", field)
	}
	if n += len(a.Items); n > MaxItems {
		return fault(field, "Too many items in '%s': %d, at most %d are allowed", field, n, MaxItems)
	}
	a.Items = append(make([]Item, 0, n), a.Items...)
	at := 0
	rawjson.EachElement(raw, func(element []byte) {
		if err == nil {
			err = a.item(field, at, element, images)
		}
		at++
	})
	return err
}

// item reads one item.
func (a *Ask) item(field string, at int, raw rawjson.Raw, images bool) error {
	item := Item{field: field, at: at}
	switch {
	case raw[0] == '"' && (images || isDataURI(raw)):
		item.image(raw)
	case raw[0] == '"':
		if err := item.text(raw); err != nil {
			return err
		}
	default:
		return fault(item.Name(), "'%s' must be a string", item.Name())
	}
	a.Items = append(a.Items, item)
	return nil
}

// text takes a JSON string for the item's text.
func (i *Item) text(raw rawjson.Raw) error {
	var ok bool
	if i.Text, ok = text(raw); !ok || strings.TrimSpace(i.Text) == "" {
		return fault(i.Name(), "'%s' must be a string that is not empty", i.Name())
	}
	if half := rawjson.HalfCharacter(string(raw)); half != "" {
		return fault(i.Name(), "'%s' has %s, which is half of a character", i.Name(), half)
	}
	return nil
}

// image takes a JSON string for the item's image: its address, or its bytes in base64.
func (i *Item) image(raw rawjson.Raw) {
	if isURL(raw) {
		i.URL = raw
	} else {
		i.Image = raw
	}
}

// text returns a copy of a JSON string; ok is false where raw is none.
func text(raw rawjson.Raw) (s string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	return s, rawjson.Unmarshal(string(raw), &s) == nil
}

// isDataURI says whether a JSON string is the data URI of an image, and isURL whether it is an address.
func isDataURI(raw rawjson.Raw) bool { return hasPrefix(raw, "data:image/") }
func isURL(raw rawjson.Raw) bool     { return hasPrefix(raw, "http://") || hasPrefix(raw, "https://") }

// hasPrefix compares the start of a JSON string, without regard to case.
func hasPrefix(raw rawjson.Raw, prefix string) bool {
	return len(raw) > len(prefix)+1 && strings.EqualFold(string(raw[1:len(prefix)+1]), prefix)
}
