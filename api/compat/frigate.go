package compat

import (
	"strconv"
	"strings"

	"hailoclip/api/rawjson"
)

// frigate is what Frigate's provider "llamacpp" asks of llama.cpp's server. Frigate reads all of an error's body for its log.
var frigate = Dialect{
	Name: "frigate",
	Routes: []Route{
		{Method: "POST", Path: "/embeddings", JSON: embeddings, Takes: hasContent, Write: writeLlamaCPP},
		{Method: "POST", Path: "/embedding", JSON: embeddings, Write: writeLlamaCPP},
		{Method: "GET", Path: "/v1/models", Get: openAIModels},
		{Method: "GET", Path: "/props", Open: true, Get: llamaCPPProps},
		{Method: "GET", Path: "/upstream/{id:*}", Open: true, Get: llamaSwapProps},
	},
	Fail: failLlamaCPP,
}

// hasContent tells the bodies of /embeddings from those of OpenAI and TEI.
func hasContent(b *Body) bool { return rawjson.Given(b.Content) && !hasInput(b) }

// writeLlamaCPP writes a list in which each item has a list of vectors, of which there is one.
func writeLlamaCPP(b []byte, _ *Ask, r *Result) []byte {
	b = append(b, '[')
	for i := range r.Vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
		b = rawjson.AppendNumbers(append(b, `,"embedding":[`...), r.Vectors[i].Embedding)
		b = append(b, "]}"...)
	}
	return append(b, ']')
}

// llamaCPPProps says what the model reads.
func llamaCPPProps(s *Service, _ string) (Reply, error) {
	b := strconv.AppendInt([]byte(`{"default_generation_settings":{"n_ctx":`), int64(s.ContextLength), 10)
	b = rawjson.AppendString(append(b, `},"model_alias":`...), s.Model)
	b = rawjson.AppendString(append(b, `,"media_marker":`...), Marker)
	b = append(b, `,"modalities":{"vision":true,"audio":false},"chat_template":"","build_info":`...)
	return Reply{Body: append(rawjson.AppendString(b, "hailo-clip "+s.Version), '}')}, nil
}

// llamaSwapProps is llamaCPPProps at the path /upstream/MODEL/props, where llama-swap has it.
func llamaSwapProps(s *Service, argument string) (Reply, error) {
	name, isProps := strings.CutSuffix(argument, "/props")
	if !isProps || name == "" || !s.Named(name) {
		return Reply{}, &Fault{Kind: ErrModel, Param: "model", Text: "There is no such model with /props"}
	}
	return llamaCPPProps(s, "")
}

func failLlamaCPP(b []byte, f *Failure) []byte {
	kind := "invalid_request_error"
	switch {
	case f.Status == 401:
		kind = "authentication_error"
	case f.Status == 403:
		kind = "permission_error"
	case f.Status == 404:
		kind = "not_found_error"
	case f.Status == 429, f.Status == 503:
		kind = "unavailable_error"
	case f.Status >= 500:
		kind = "server_error"
	}
	b = strconv.AppendInt(append(b, `{"error":{"code":`...), int64(f.Status), 10)
	b = rawjson.AppendString(append(b, `,"message":`...), f.Text)
	return append(rawjson.AppendString(append(b, `,"type":`...), kind), "}}"...)
}
