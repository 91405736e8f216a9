package compat

import (
	"strconv"

	"hailoclip/api/rawjson"
)

// voyage is the multimodal interface of Voyage. Its /v1/embeddings is OpenAI's.
var voyage = Dialect{
	Name:   "voyage",
	Routes: []Route{{Method: "POST", Path: "/v1/multimodalembeddings", JSON: inputs, Write: writeVoyage}},
	Fail:   failOpenAI, // with "detail", as Voyage has it
}

func writeVoyage(b []byte, a *Ask, r *Result) []byte {
	b = append(b, `{"object":"list","data":[`...)
	pixels := 0
	for i := range r.Vectors {
		if i > 0 {
			b = append(b, ',')
		}
		v := &r.Vectors[i]
		pixels += v.Width * v.Height
		b = strconv.AppendInt(append(b, `{"object":"embedding","index":`...), int64(i), 10)
		b = append(a.appendVector(append(b, `,"embedding":`...), v.Embedding), '}')
	}
	b = rawjson.AppendString(append(b, `],"model":`...), a.Service.Model)
	b = strconv.AppendInt(append(b, `,"usage":{"text_tokens":`...), int64(r.Tokens()), 10)
	b = strconv.AppendInt(append(b, `,"image_pixels":`...), int64(pixels), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(r.Tokens()), 10)
	return append(b, "}}"...)
}
