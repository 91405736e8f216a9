package compat

import (
	"strconv"

	"hailoclip/api/rawjson"
	"hailoclip/stages"
)

// tei is the interface of Hugging Face's text-embeddings-inference. Its /embeddings and /v1/embeddings are OpenAI's.
var tei = Dialect{
	Name: "tei",
	Routes: []Route{
		{Method: "POST", Path: "/embed", JSON: inputs, Write: writeVectors},
		{Method: "POST", Path: "/similarity", JSON: similarity, Write: writeSimilarity},
		{Method: "GET", Path: "/info", Open: true, Get: teiInfo},
	},
	Fail: failTEI,
}

// similarity reads a sentence and those that it is compared with.
func similarity(a *Ask, b *Body) error {
	var sent struct {
		Source    rawjson.Raw `json:"source_sentence"`
		SourceJS  rawjson.Raw `json:"sourceSentence"` // as the client in JavaScript has it
		Sentences rawjson.Raw
	}
	var parameters Body
	if !rawjson.Fields(b.Inputs, &sent) {
		return fault("inputs", "'inputs' must be an object with 'source_sentence' and 'sentences'")
	}
	if rawjson.Given(b.Parameters) && !rawjson.Fields(b.Parameters, &parameters) {
		return fault("parameters", "'parameters' must be an object")
	}
	for _, options := range [...]*Body{b, &parameters} {
		if err := a.options(options); err != nil {
			return err
		}
	}
	source := firstGiven(sent.Source, sent.SourceJS)
	if len(source) == 0 || source[0] == '[' {
		return fault("inputs.source_sentence", "'inputs.source_sentence' must be a string")
	}
	if err := a.item(Item{field: "inputs.source_sentence", at: -1}, source, false); err != nil {
		return err
	}
	if len(sent.Sentences) == 0 || sent.Sentences[0] != '[' {
		return fault("inputs.sentences", "'inputs.sentences' must be an array of strings")
	}
	return a.list("inputs.sentences", sent.Sentences, false)
}

func writeVectors(b []byte, a *Ask, r *Result) []byte { return a.appendVectors(b, r) }

// writeSimilarity writes the cosines of the first item and the others.
func writeSimilarity(b []byte, _ *Ask, r *Result) []byte {
	b = append(b, '[')
	for i := range r.Vectors[1:] {
		if i > 0 {
			b = append(b, ',')
		}
		b = rawjson.AppendFloat(b, stages.Cosine(r.Vectors[0].Embedding, r.Vectors[1+i].Embedding))
	}
	return append(b, ']')
}

func teiInfo(s *Service, _ string) (Reply, error) {
	b := rawjson.AppendString([]byte(`{"model_id":`), s.Model)
	b = append(b, `,"model_sha":null,"model_dtype":"float32","model_type":{"embedding":{"pooling":"last-token"}},"auto_truncate":true`...)
	b = strconv.AppendInt(append(b, `,"max_input_length":`...), int64(s.ContextLength), 10)
	b = strconv.AppendInt(append(b, `,"max_batch_tokens":`...), int64(MaxItems*s.ContextLength), 10)
	b = strconv.AppendInt(append(b, `,"max_client_batch_size":`...), MaxItems, 10)
	b = rawjson.AppendString(append(b, `,"version":`...), s.Version)
	return Reply{Body: append(b, `,"sha":null,"docker_label":null}`...)}, nil
}

// failTEI has the types of errors of TEI, and its statuses for them as far as they are not the same in HTTP.
func failTEI(b []byte, f *Failure) []byte {
	kind := "Validation"
	switch {
	case f.Status == 400:
		f.Status = 422
	case f.Status == 429:
		kind = "Overloaded"
	case f.Status == 503:
		kind = "Unhealthy"
	case f.Status >= 500:
		kind, f.Status = "Backend", 424
	}
	b = rawjson.AppendString(append(b, `{"error":`...), f.Text)
	return append(rawjson.AppendString(append(b, `,"error_type":`...), kind), '}')
}
