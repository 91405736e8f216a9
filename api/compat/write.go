package compat

import (
	"strconv"

	"hailoclip/api/rawjson"
	"hailoclip/stages"
)

// appendVector appends an embedding as the request wants it.
func (a *Ask) appendVector(b []byte, embedding []float32) []byte {
	if a.Base64 {
		return rawjson.AppendBase64(b, embedding)
	}
	return rawjson.AppendNumbers(b, embedding)
}

// appendVectors appends an array of the embeddings of all items.
func (a *Ask) appendVectors(b []byte, r *Result) []byte {
	b = append(b, '[')
	for i := range r.Vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = a.appendVector(b, r.Vectors[i].Embedding)
	}
	return append(b, ']')
}

// appendEmbeddings appends the beginning of an answer as OpenAI has it: a list of the embeddings of all items, and the model.
func (a *Ask) appendEmbeddings(b []byte, r *Result) []byte {
	b = append(b, `{"object":"list","data":[`...)
	for i := range r.Vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"object":"embedding","index":`...), int64(i), 10)
		b = append(a.appendVector(append(b, `,"embedding":`...), r.Vectors[i].Embedding), '}')
	}
	return rawjson.AppendString(append(b, `],"model":`...), a.Service.Model)
}

// rank compares the first vector with the others, of which there is one at least: their cosines, and the softmax of these with the
// model's factor, the best first.
func (s *Service) rank(vectors []Vector) []stages.Match {
	first, others := vectors[0].Embedding, vectors[1:]
	rows := make([]float32, 0, len(others)*len(first))
	for i := range others {
		rows = append(rows, others[i].Embedding...)
	}
	labels := stages.Labels{N: len(others), Rows: rows}
	matches, _ := stages.Rank(first, &labels, stages.Scoring{LogitScale: s.LogitScale, TopK: len(others)}, nil)
	return matches
}

// failError is the error of those that have {"error":"..."}.
func failError(b []byte, f *Failure) []byte {
	return append(rawjson.AppendString(append(b, `{"error":`...), f.Text), '}')
}

// failMessage is the error of those that have {"message":"..."}.
func failMessage(b []byte, f *Failure) []byte {
	return append(rawjson.AppendString(append(b, `{"message":`...), f.Text), '}')
}
