package compat

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hailoclip/api/rawjson"
)

// ollama is what the interface of Ollama has for embeddings, and what its clients ask first.
var ollama = Dialect{
	Name: "ollama",
	Routes: []Route{
		{Method: "POST", Path: "/api/embed", JSON: ollamaEmbed, Write: writeOllamaEmbed},
		{Method: "POST", Path: "/api/embeddings", JSON: ollamaEmbeddings, Write: writeOllamaEmbeddings},
		{Method: "POST", Path: "/api/show", JSON: ollamaModel, Write: writeOllamaShow},
		{Method: "GET", Path: "/api/tags", Get: ollamaTags},
		{Method: "GET", Path: "/api/version", Get: ollamaVersion},
	},
	Fail: failError,
}

const (
	ollamaSpoken = "0.17.4"  // the version of Ollama whose interface this is: clients compare it
	ollamaTag    = ":latest" // the tag that a name without one stands for
)

// ollamaModel checks that a request is for the model that runs, and keeps its name for the answer.
func ollamaModel(a *Ask, b *Body) error {
	name := a.Service.Model
	for _, raw := range [...]rawjson.Raw{b.Name, b.Model} { // the newer one last
		if !rawjson.Given(raw) {
			continue
		}
		sent, ok := text(raw)
		if !ok {
			return fault("model", "model must be a string")
		}
		name = cmp.Or(sent, name)
	}
	if plain := strings.TrimSuffix(name, ollamaTag); plain == "" || !a.Service.Named(name) && !a.Service.Named(plain) {
		return &Fault{Kind: ErrModel, Param: "model", Text: fmt.Sprintf("model '%.128s' not found", name)}
	}
	a.Extra = name
	return nil
}

func ollamaEmbed(a *Ask, b *Body) error {
	if err := ollamaOptions(a, b); err != nil {
		return err
	}
	if rawjson.Given(b.Input) && b.Input[0] == '[' {
		return a.array("input", b.Input, a.ollamaText)
	}
	return ollamaOne(a, "input", b.Input)
}

func ollamaEmbeddings(a *Ask, b *Body) error {
	if err := ollamaOptions(a, b); err != nil {
		return err
	}
	return ollamaOne(a, "prompt", b.Prompt)
}

func ollamaOptions(a *Ask, b *Body) error {
	if err := ollamaModel(a, b); err != nil {
		return err
	}
	b.Model = nil // it has been looked at
	return a.options(b)
}

// ollamaOne adds the text of a field. None asks for the model to be loaded: it is.
func ollamaOne(a *Ask, field string, raw rawjson.Raw) error {
	if !rawjson.Given(raw) || string(raw) == `""` {
		return nil
	}
	return a.ollamaText(Item{field: field, at: -1}, raw)
}

func (a *Ask) ollamaText(item Item, raw rawjson.Raw) error {
	switch {
	case raw[0] != '"' && item.field == "prompt":
		return fault("prompt", "'prompt' must be a string")
	case raw[0] != '"':
		return fault(item.Name(), "invalid input type")
	case isDataURI(raw):
		return a.item(item, raw, false)
	}
	return a.adding((*Item).string)(item, raw) // it may be empty: that is its start and its end
}

func writeOllamaEmbed(b []byte, a *Ask, r *Result) []byte {
	b = rawjson.AppendString(append(b, `{"model":`...), a.Extra.(string))
	b = a.appendVectors(append(b, `,"embeddings":`...), r)
	b = strconv.AppendInt(append(b, `,"total_duration":`...), r.Took.Nanoseconds(), 10)
	b = strconv.AppendInt(append(b, `,"load_duration":0,"prompt_eval_count":`...), int64(r.Tokens()), 10)
	return append(b, '}')
}

func writeOllamaEmbeddings(b []byte, a *Ask, r *Result) []byte {
	var embedding []float32 // of no prompt
	if len(r.Vectors) > 0 {
		embedding = r.Vectors[0].Embedding
	}
	return append(a.appendVector(append(b, `{"embedding":`...), embedding), '}')
}

func writeOllamaShow(b []byte, a *Ask, _ *Result) []byte {
	s := a.Service
	b = appendOllamaDetails(append(b, '{'), s)
	b = strconv.AppendInt(append(b, `,"model_info":{"general.architecture":"clip","clip.context_length":`...), int64(s.ContextLength), 10)
	b = strconv.AppendInt(append(b, `,"clip.embedding_length":`...), int64(s.Dimension), 10)
	return append(b, `},"capabilities":["embedding"]}`...)
}

func ollamaTags(s *Service, _ string) (Reply, error) {
	digest := sha256.Sum256([]byte(s.Model)) // there is no file of Ollama's; programs show its beginning
	b := []byte(`{"models":[`)
	for i, name := range s.names() {
		if i > 0 {
			b = append(b, ',')
		}
		if !strings.Contains(name, ":") {
			name += ollamaTag
		}
		b = rawjson.AppendString(append(b, `{"name":`...), name)
		b = rawjson.AppendString(append(b, `,"model":`...), name)
		b = append(b, `,"size":0,"digest":"`...)
		b = appendOllamaDetails(append(hex.AppendEncode(b, digest[:]), `",`...), s)
		b = append(b, '}')
	}
	return Reply{Body: append(b, "]}"...)}, nil
}

// appendOllamaDetails appends the fields that the list and the description of a model have in common.
func appendOllamaDetails(b []byte, s *Service) []byte {
	b = s.Started.UTC().AppendFormat(append(b, `"modified_at":"`...), time.RFC3339)
	return append(b, `","details":{"parent_model":"","format":"","family":"clip","families":["clip"],"parameter_size":"","quantization_level":""}`...)
}

func ollamaVersion(*Service, string) (Reply, error) {
	return Reply{Body: []byte(`{"version":"` + ollamaSpoken + `"}`)}, nil
}
