package compat

import (
	"strconv"
	"time"

	"hailoclip/api/rawjson"
)

// openAI is the embeddings interface of OpenAI, with what infinity, vLLM, Jina and others have added to it.
var openAI = Dialect{
	Name: "openai",
	Routes: []Route{
		{Method: "POST", Path: "/v1/embeddings", JSON: embeddings, Write: writeOpenAI},
		{Method: "POST", Path: "/embeddings", JSON: embeddings, Takes: hasInput, Write: writeOpenAI},
		{Method: "POST", Path: "/embeddings_image", JSON: imageEmbeddings, Write: writeOpenAI},
		{Method: "GET", Path: "/v1/models", Get: openAIModels},
		{Method: "GET", Path: "/v1/models/{id:*}", Get: openAIModel},
		{Method: "GET", Path: "/models", Get: openAIModels},
	},
	Fail: failOpenAI,
}

// hasInput tells the bodies of /embeddings from those of llama.cpp and TEI.
func hasInput(b *Body) bool { return rawjson.Given(b.Input) || rawjson.Given(b.Messages) }

// imageEmbeddings is embeddings where strings are images.
func imageEmbeddings(a *Ask, b *Body) error {
	if !rawjson.Given(b.Modality) {
		b.Modality = rawjson.Raw(`"image"`)
	}
	return embeddings(a, b)
}

func writeOpenAI(b []byte, a *Ask, r *Result) []byte {
	b = a.appendEmbeddings(b, r)
	b = append(b, `,"usage":{"prompt_tokens":`...)
	b = strconv.AppendInt(b, int64(r.Tokens()), 10)
	b = append(b, `,"total_tokens":`...)
	b = strconv.AppendInt(b, int64(r.Tokens()), 10)
	b = rawjson.AppendString(append(b, `},"id":`...), "embd-"+r.ID)
	return append(strconv.AppendInt(append(b, `,"created":`...), time.Now().Unix(), 10), '}')
}

// openAIModels lists the model under each of its names.
func openAIModels(s *Service, _ string) (Reply, error) {
	b := []byte(`{"object":"list","data":[`)
	for i, name := range s.names() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendOpenAIModel(b, s, name)
	}
	return Reply{Body: append(b, "]}"...)}, nil
}

func openAIModel(s *Service, id string) (Reply, error) {
	if id == "" || !s.Named(id) {
		return Reply{}, s.noModel(id)
	}
	return Reply{Body: appendOpenAIModel(nil, s, id)}, nil
}

// appendOpenAIModel appends an entry of the list, with what llama.cpp has added to it.
func appendOpenAIModel(b []byte, s *Service, name string) []byte {
	b = rawjson.AppendString(append(b, `{"id":`...), name)
	b = append(b, `,"object":"model","created":`...)
	b = strconv.AppendInt(b, s.Started.Unix(), 10)
	b = append(b, `,"owned_by":"hailo-clip","aliases":[`...)
	comma := false
	for _, other := range s.names() {
		if other == name {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		b, comma = rawjson.AppendString(b, other), true
	}
	b = append(b, `],"architecture":{"input_modalities":["text","image"],"output_modalities":["embeddings"]},"meta":{"n_ctx":`...)
	b = strconv.AppendInt(b, int64(s.ContextLength), 10)
	b = strconv.AppendInt(append(b, `,"n_embd":`...), int64(s.Dimension), 10)
	return append(b, "}}"...)
}

// failOpenAI has the text also where clients of Jina look for it.
func failOpenAI(b []byte, f *Failure) []byte {
	kind, code := "invalid_request_error", f.Code
	switch {
	case f.Status == 401:
		kind, code = "authentication_error", "invalid_api_key"
	case f.Status == 403:
		kind = "permission_error"
	case f.Status == 429:
		kind, code = "rate_limit_exceeded", "rate_limit_exceeded"
	case f.Status >= 500:
		kind = "server_error"
	}
	b = rawjson.AppendString(append(b, `{"error":{"message":`...), f.Text)
	b = rawjson.AppendString(append(b, `,"type":`...), kind)
	b = append(b, `,"param":`...)
	if f.Param == "" {
		b = append(b, "null"...)
	} else {
		b = rawjson.AppendString(b, f.Param)
	}
	b = rawjson.AppendString(append(b, `,"code":`...), code)
	return append(rawjson.AppendString(append(b, `},"detail":`...), f.Text), '}')
}
