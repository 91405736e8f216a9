package compat

import (
	"strconv"
)

// voyage is the multimodal interface of Voyage. Its /v1/embeddings is OpenAI's.
var voyage = Dialect{
	Name:   "voyage",
	Routes: []Route{{Method: "POST", Path: "/v1/multimodalembeddings", JSON: inputs, Write: writeVoyage}},
	Fail:   failOpenAI, // with "detail", as Voyage has it
}

func writeVoyage(b []byte, a *Ask, r *Result) []byte {
	pixels := 0
	for i := range r.Vectors {
		pixels += r.Vectors[i].Width * r.Vectors[i].Height
	}
	b = a.appendEmbeddings(b, r)
	b = strconv.AppendInt(append(b, `,"usage":{"text_tokens":`...), int64(r.Tokens()), 10)
	b = strconv.AppendInt(append(b, `,"image_pixels":`...), int64(pixels), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(r.Tokens()), 10)
	return append(b, "}}"...)
}
