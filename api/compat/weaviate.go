package compat

import (
	"strconv"

	"hailoclip/api/rawjson"
)

// weaviate is the interface of the container that Weaviate's module multi2vec-clip asks.
var weaviate = Dialect{
	Name: "weaviate",
	Routes: []Route{
		{Method: "GET", Path: "/.well-known/live", Open: true, Get: weaviateLive},
		{Method: "GET", Path: "/.well-known/ready", Open: true, Get: weaviateReady},
		{Method: "GET", Path: "/meta", Open: true, Get: weaviateMeta},
		{Method: "POST", Path: "/vectorize", JSON: vectorize, Write: writeVectorize},
	},
	Fail: failError,
}

func weaviateLive(*Service, string) (Reply, error) { return Reply{Status: 204}, nil }

func weaviateReady(s *Service, _ string) (Reply, error) {
	if why := s.Unready(); why != "" {
		return Reply{Status: 503, Body: append(rawjson.AppendString([]byte(`{"error":`), why), '}')}, nil
	}
	return Reply{Status: 204}, nil
}

// weaviateMeta says of the model what CLIP's configuration in transformers does.
func weaviateMeta(s *Service, _ string) (Reply, error) {
	b := rawjson.AppendString([]byte(`{"model_type":"clip","_name_or_path":`), s.Model)
	b = strconv.AppendInt(append(b, `,"projection_dim":`...), int64(s.Dimension), 10)
	b = strconv.AppendInt(append(b, `,"text_config":{"max_position_embeddings":`...), int64(s.ContextLength), 10)
	b = strconv.AppendInt(append(b, `},"vision_config":{"image_size":`...), int64(s.ImageSize), 10)
	return Reply{Body: append(b, "}}"...)}, nil
}

// vectorize reads texts and images; both, one or none of the fields may be there. A string in texts is never an image, and may be
// empty: objects have such properties, and the module counts the vectors.
func vectorize(a *Ask, b *Body) error {
	if err := a.options(b); err != nil {
		return err
	}
	if err := a.array("texts", b.Texts, a.adding((*Item).string)); err != nil {
		return err
	}
	return a.array("images", b.Images, a.adding((*Item).image))
}

func writeVectorize(b []byte, a *Ask, r *Result) []byte {
	texts, images := Result{}, Result{}
	for i := range a.Items {
		if a.Items[i].IsText() {
			texts.Vectors = append(texts.Vectors, r.Vectors[i])
		} else {
			images.Vectors = append(images.Vectors, r.Vectors[i])
		}
	}
	b = a.appendVectors(append(b, `{"textVectors":`...), &texts)
	b = a.appendVectors(append(b, `,"imageVectors":`...), &images)
	return append(b, '}')
}
