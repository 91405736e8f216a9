package compat

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"hailoclip/api/rawjson"
)

// qdrant is the inference service that a Qdrant server asks (inference.address in its configuration). Its makers describe it nowhere:
// it is experimental.
var qdrant = Dialect{
	Name:   "qdrant",
	Routes: []Route{{Method: "POST", Path: "/qdrant/infer", JSON: qdrantInputs, Write: writeQdrant}},
	Fail:   failQdrant,
}

// qdrantNames are what the inputs call the model.
type qdrantNames []string

// qdrantInputs reads inputs, each with its own model and a text, an image in base64 or by its address, or an object with one of them.
func qdrantInputs(a *Ask, b *Body) error {
	if rawjson.Elements(b.Inputs) == 0 {
		return fault("inputs", "'inputs' must be an array of at least one object")
	}
	names := qdrantNames{}
	a.Extra = &names
	return a.array("inputs", b.Inputs, func(item Item, raw rawjson.Raw) error {
		var o struct {
			Data, Model rawjson.Raw
			Type        rawjson.Raw `json:"data_type"`
		}
		if !rawjson.Fields(raw, &o) || !rawjson.Given(o.Data) {
			return fault(item.Name(), "'%s' must be an object with 'data'", item.Name())
		}
		if err := a.qdrantModel(o.Model); err != nil {
			return err
		}
		name, _ := text(o.Model)
		names = append(names, cmp.Or(name, a.Service.Model))
		err := item.qdrant(o.Type, o.Data)
		a.Items = append(a.Items, item)
		return err
	})
}

// qdrantModel checks that an input is for the model that runs. fastembed has two names for the halves of one model.
func (a *Ask) qdrantModel(raw rawjson.Raw) error {
	name, _ := text(raw)
	half := strings.TrimPrefix(name, "Qdrant/clip-")
	if half = strings.TrimSuffix(strings.TrimSuffix(half, "-vision"), "-text"); half != name && a.Service.Named(half+"__openai") {
		return nil
	}
	return a.model(raw)
}

func (i *Item) qdrant(kind, data rawjson.Raw) error {
	var o struct{ Text, Image rawjson.Raw }
	switch name, _ := text(kind); name {
	case "text":
		return i.text(data)
	case "image":
		return i.image(data)
	case "object":
		if rawjson.Fields(data, &o) && rawjson.Given(o.Text) != rawjson.Given(o.Image) {
			if rawjson.Given(o.Text) {
				return i.text(o.Text)
			}
			return i.image(o.Image)
		}
		return fault(i.Name(), "'%s' must have either 'text' or 'image' in its object: the model makes a vector of one of them", i.Name())
	}
	return fault(i.Name(), `'%s' must have the data_type "text", "image" or "object"`, i.Name())
}

func writeQdrant(b []byte, a *Ask, r *Result) []byte {
	b = a.appendVectors(append(b, `{"embeddings":`...), r)
	names, tokens := *a.Extra.(*qdrantNames), map[string]int{}
	for i, v := range r.Vectors {
		tokens[names[i]] += v.Tokens
	}
	b = append(b, `,"usage":{"models":`...)
	next := byte('{')
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		b = rawjson.AppendString(append(b, next), name)
		b = append(strconv.AppendInt(append(b, `:{"tokens":`...), int64(tokens[name]), 10), '}')
		next = ','
	}
	return append(b, "}}}"...)
}

// failQdrant answers what is wrong with a request by 400, whose text Qdrant shows its client; of others it shows none.
func failQdrant(b []byte, f *Failure) []byte {
	switch f.Status {
	case 404, 413, 415:
		f.Status = 400
	}
	return failError(b, f)
}
