package compat

import (
	"slices"
	"strconv"

	"hailoclip/api/rawjson"
)

// cohere is the embed interface of Cohere, versions 1 and 2, which vLLM has, too.
var cohere = Dialect{
	Name: "cohere",
	Routes: []Route{
		{Method: "POST", Path: "/v1/embed", JSON: cohereItems, Write: writeCohereV1},
		{Method: "POST", Path: "/v2/embed", JSON: cohereItems, Write: writeCohereV2},
	},
	Fail: failMessage,
}

// cohereTypes is the embedding_types of a request.
type cohereTypes []string

func cohereItems(a *Ask, b *Body) error {
	var types cohereTypes
	if rawjson.Given(b.EmbeddingTypes) && b.EmbeddingTypes[0] == '"' { // of one, as some write it
		b.EmbeddingTypes = slices.Concat([]byte{'['}, b.EmbeddingTypes, []byte{']'})
	}
	err := a.array("embedding_types", b.EmbeddingTypes, func(_ Item, raw rawjson.Raw) error {
		kind, _ := text(raw)
		if kind != "float" && kind != "base64" {
			return fault("embedding_types", `'embedding_types' may have "float" and "base64": others are not made here`)
		}
		if !slices.Contains(types, kind) {
			types = append(types, kind)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.Extra = types
	switch lists := rawjson.Given(b.Texts) || rawjson.Given(b.Images); {
	case !lists && !rawjson.Given(b.Inputs):
		return fault("texts", "Missing 'texts', 'images' or 'inputs': send an array of one of them")
	case lists && rawjson.Given(b.Inputs):
		return fault("inputs", "'inputs' may not be there with 'texts' or 'images'")
	case !lists:
		return inputs(a, b)
	}
	if err := a.options(b); err != nil {
		return err
	}
	return a.textsAndImages(b)
}

// writeCohereV1 answers as writeCohereV2 does only where types were named.
func writeCohereV1(b []byte, a *Ask, r *Result) []byte {
	if types := a.Extra.(cohereTypes); len(types) > 0 {
		return writeCohere(b, a, r, types, "1")
	}
	b = a.appendVectors(append(b, `{"response_type":"embeddings_floats","embeddings":`...), r)
	return appendCohere(b, a, r, "1")
}

func writeCohereV2(b []byte, a *Ask, r *Result) []byte {
	types := a.Extra.(cohereTypes)
	if len(types) == 0 {
		types = cohereTypes{"float"}
	}
	return writeCohere(b, a, r, types, "2")
}

func writeCohere(b []byte, a *Ask, r *Result, types cohereTypes, version string) []byte {
	b = append(b, `{"response_type":"embeddings_by_type","embeddings":{`...)
	for i, kind := range types {
		if i > 0 {
			b = append(b, ',')
		}
		as := Ask{Base64: kind == "base64"}
		b = as.appendVectors(append(rawjson.AppendString(b, kind), ':'), r)
	}
	return appendCohere(append(b, '}'), a, r, version)
}

// appendCohere appends what the answers have in common, with the end.
func appendCohere(b []byte, a *Ask, r *Result, version string) []byte {
	b = rawjson.AppendString(append(b, `,"id":`...), r.ID)
	b = append(b, `,"texts":[`...)
	images := 0
	for i := range a.Items {
		if !a.Items[i].IsText() {
			images++
			continue
		}
		if b[len(b)-1] != '[' {
			b = append(b, ',')
		}
		b = rawjson.AppendString(b, a.Items[i].Text)
	}
	b = append(b, ']')
	if images > 0 {
		b = append(b, `,"images":[`...)
		for i := range a.Items {
			if v := &r.Vectors[i]; !a.Items[i].IsText() {
				b = strconv.AppendInt(append(b, `{"width":`...), int64(v.Width), 10)
				b = strconv.AppendInt(append(b, `,"height":`...), int64(v.Height), 10)
				b = rawjson.AppendString(append(b, `,"format":`...), v.Format)
				b = append(b, `,"bit_depth":24},`...) // as the model sees it
			}
		}
		b[len(b)-1] = ']'
	}
	b = append(append(append(b, `,"meta":{"api_version":{"version":"`...), version...), `"},"billed_units":{"input_tokens":`...)
	b = strconv.AppendInt(b, int64(r.Tokens()), 10)
	b = strconv.AppendInt(append(b, `,"images":`...), int64(images), 10)
	return append(b, "}}}"...)
}
