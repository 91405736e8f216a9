package compat

import (
	"strconv"

	"hailoclip/api/rawjson"
	"hailoclip/stages"
)

// roboflow is what Roboflow's inference server has for CLIP. Its limit of 8 images a request is not ours.
var roboflow = Dialect{
	Name: "roboflow",
	Routes: []Route{
		{Method: "POST", Path: "/clip/embed_image", JSON: roboflowImages, Write: writeRoboflow},
		{Method: "POST", Path: "/clip/embed_text", JSON: roboflowTexts, Write: writeRoboflow},
		{Method: "POST", Path: "/clip/compare", JSON: roboflowCompare, Write: writeRoboflowCompare},
	},
	Fail: failMessage,
}

// roboflowNames are the names of the prompts of a comparison, in the order of the items after the subject; nil: they have none.
type roboflowNames []string

func roboflowImages(a *Ask, b *Body) error {
	return a.roboflow(b, "image", b.Image, (*Item).roboflowImage)
}
func roboflowTexts(a *Ask, b *Body) error { return a.roboflow(b, "text", b.Text, (*Item).text) }

// roboflowCompare reads the subject, which becomes the first item, and the prompts: one, an array, or an object with a name for each.
func roboflowCompare(a *Ask, b *Body) error {
	subject, err := roboflowKind("subject_type", b.SubjectType, (*Item).roboflowImage)
	if err != nil {
		return err
	}
	prompt, err := roboflowKind("prompt_type", b.PromptType, (*Item).text)
	if err != nil {
		return err
	}
	if err := a.roboflow(b, "subject", b.Subject, subject); err != nil {
		return err
	}
	if len(a.Items) != 1 {
		return fault("subject", "'subject' must be one")
	}
	var one struct{ Type, Value rawjson.Raw }
	if !rawjson.Fields(b.Prompt, &one) || len(one.Type) > 0 && len(one.Value) > 0 {
		return a.roboflow(b, "prompt", b.Prompt, prompt)
	}
	names := roboflowNames{}
	rawjson.EachField(b.Prompt, func(name, value []byte) {
		item := Item{field: "prompt", at: len(names)}
		if err == nil && len(a.Items) == MaxItems {
			err = fault("prompt", "Too many items in 'prompt': with 'subject', at most %d are allowed", MaxItems)
		}
		if err == nil {
			err = prompt(&item, value)
			key, _ := text(name)
			names, a.Items = append(names, key), append(a.Items, item)
		}
	})
	if err == nil && len(names) == 0 {
		err = fault("prompt", "'prompt' is empty")
	}
	a.Extra = names
	return err
}

// roboflow checks that the request is for the model that runs, of which the versions are OpenAI's names, such as "ViT-B-32", and adds
// the item that a field has, or those of an array.
func (a *Ask) roboflow(b *Body, field string, raw rawjson.Raw, read func(*Item, rawjson.Raw) error) error {
	switch name, ok := text(b.VersionID); {
	case !ok && rawjson.Given(b.VersionID):
		return fault("clip_version_id", "'clip_version_id' must be a string")
	case ok && !a.Service.Named(name+"__openai") && !a.Service.Named(name):
		return a.named(name)
	}
	if !rawjson.Given(raw) {
		return fault(field, "Missing '%s'", field)
	}
	return a.oneOrMore(field, raw, a.adding(read))
}

// roboflowKind says how items are read of which a field has the type; unless is for who does not say.
func roboflowKind(field string, raw rawjson.Raw, unless func(*Item, rawjson.Raw) error) (func(*Item, rawjson.Raw) error, error) {
	if !rawjson.Given(raw) {
		return unless, nil
	}
	kind, err := choice(field, raw, "image", "text")
	if kind == "image" {
		return (*Item).roboflowImage, err
	}
	return (*Item).text, err
}

// roboflowImage takes an object with type and value, or a string, for the item's image.
func (i *Item) roboflowImage(raw rawjson.Raw) error {
	var o struct{ Type, Value rawjson.Raw }
	if raw[0] == '"' {
		return i.image(raw)
	} else if !rawjson.Fields(raw, &o) {
		return fault(i.Name(), "'%s' must be an object with 'type' and 'value'", i.Name())
	}
	switch kind, _ := text(o.Type); {
	case kind == "numpy":
		return fault(i.Name(), "'%s' is of the type numpy, a pickle, which is a program and is not run: send base64", i.Name())
	case !rawjson.Given(o.Value), kind != "base64" && kind != "url", isURL(o.Value) != (kind == "url"):
		return fault(i.Name(), `'%s' must have the type "base64" or "url", and its value as a string`, i.Name())
	}
	return i.image(o.Value)
}

func writeRoboflow(b []byte, a *Ask, r *Result) []byte {
	return appendRoboflow(a.appendVectors(append(b, `{"embeddings":`...), r), r)
}

func writeRoboflowCompare(b []byte, a *Ask, r *Result) []byte {
	names, _ := a.Extra.(roboflowNames)
	first, last := byte('['), byte(']')
	if names != nil {
		first, last = '{', '}'
	}
	b = append(b, `{"similarity":`...)
	for i, v := range r.Vectors[1:] {
		if b = append(b, first); names != nil {
			b = append(rawjson.AppendString(b, names[i]), ':')
		}
		b, first = rawjson.AppendFloat(b, stages.Cosine(r.Vectors[0].Embedding, v.Embedding)), ','
	}
	return appendRoboflow(append(append(b, last), `,"parent_id":null`...), r)
}

// appendRoboflow appends what every answer ends with.
func appendRoboflow(b []byte, r *Result) []byte {
	b = rawjson.AppendString(append(b, `,"inference_id":`...), r.ID)
	b = strconv.AppendFloat(append(b, `,"time":`...), r.Took.Seconds(), 'f', 6, 64)
	return append(b, '}')
}
