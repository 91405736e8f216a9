package compat

import (
	"fmt"
	"strconv"

	"hailoclip/api/rawjson"
)

// openAI is the embeddings interface of OpenAI, and what others have added to it.
var openAI = Dialect{
	Name: "openai",
	Routes: []Route{
		{Method: "POST", Path: "/v1/embeddings", JSON: embeddings, Write: writeOpenAI},
		{Method: "GET", Path: "/v1/models", Get: openAIModels},
		{Method: "GET", Path: "/v1/models/{id:*}", Get: openAIModel},
	},
	Fail: failOpenAI,
}

func writeOpenAI(b []byte, a *Ask, r *Result) []byte {
	b = append(b, `{"object":"list","data":[`...)
	for i := range r.Vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"object":"embedding","index":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = a.appendVector(append(b, `,"embedding":`...), r.Vectors[i].Embedding)
		b = append(b, '}')
	}
	b = rawjson.AppendString(append(b, `],"model":`...), a.Service.Model)
	b = append(b, `,"usage":{"prompt_tokens":`...)
	b = strconv.AppendInt(b, int64(r.Tokens()), 10)
	b = append(b, `,"total_tokens":`...)
	return append(strconv.AppendInt(b, int64(r.Tokens()), 10), "}}"...)
}

func openAIModels(s *Service, _ string) (Reply, error) {
	b := []byte(`{"object":"list","data":[`)
	for i, name := range append([]string{s.Model}, s.Aliases...) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendOpenAIModel(b, s, name)
	}
	return Reply{Body: append(b, "]}"...)}, nil
}

func openAIModel(s *Service, id string) (Reply, error) {
	if !s.Named(id) {
		return Reply{}, &Fault{Kind: ErrModel, Param: "model", Text: fmt.Sprintf("The model %.128q does not exist", id)}
	}
	return Reply{Body: appendOpenAIModel(nil, s, id)}, nil
}

func appendOpenAIModel(b []byte, s *Service, name string) []byte {
	b = rawjson.AppendString(append(b, `{"id":`...), name)
	b = append(b, `,"object":"model","created":`...)
	b = strconv.AppendInt(b, s.Started.Unix(), 10)
	return append(b, `,"owned_by":"hailo-clip"}`...)
}

func failOpenAI(b []byte, f *Failure) []byte {
	kind := "invalid_request_error"
	switch {
	case f.Status == 401:
		kind = "authentication_error"
	case f.Status == 429:
		kind = "rate_limit_exceeded"
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
	return append(rawjson.AppendString(append(b, `,"code":`...), f.Code), "}}"...)
}
