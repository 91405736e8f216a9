package api

import (
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/stages"
)

// classify serves /v1/classify.
func (s *Server) classify(ctx *fasthttp.RequestCtx, x *exchange, w *work) error {
	if err := w.in.noURL(); err != nil { // first: whoever sends one will send the rest right
		return err
	}
	texts, err := w.in.prompts(s.cfg.MaxPrompts, s.cfg.MaxPromptBytes)
	if err != nil {
		return err
	}
	scoring := stages.Scoring{LogitScale: s.svc.LogitScale, Softmax: s.svc.Softmax}
	if scoring.TopK, err = w.in.topK(len(texts)); err != nil {
		return err
	}
	if scoring.Threshold, scoring.Cut, err = w.in.threshold(); err != nil {
		return err
	}
	if err := w.decodeImage(); err != nil {
		return err
	}
	prompts, err := s.vectors(w, texts)
	if err != nil {
		return err
	}
	w.request.Prompts, w.request.Scoring = prompts.Matrix, scoring
	if err := s.run(w); err != nil {
		return err
	}
	matches := w.result.Matches
	for i := range matches {
		if m := &matches[i]; !finite(m.Score, m.Cosine, m.Probability) {
			return errNotFinite
		}
	}
	answer := classification{
		prompts: texts, vectors: prompts.Rows, matches: matches, logitScale: s.svc.LogitScale,
		inference: time.Since(w.began), model: s.svc.Model, id: x.id,
	}
	answerWork(ctx, w, answer.appendJSON)
	return nil
}

// embedImage serves /v1/embed/image.
func (s *Server) embedImage(ctx *fasthttp.RequestCtx, x *exchange, w *work) error {
	if err := w.in.noURL(); err != nil {
		return err
	}
	if err := w.decodeImage(); err != nil {
		return err
	}
	w.request.Embedding = true
	if err := s.run(w); err != nil {
		return err
	}
	return s.answerEmbedding(ctx, x, w, embedding{vector: w.result.Embedding})
}

// embedText serves /v1/embed/text.
func (s *Server) embedText(ctx *fasthttp.RequestCtx, x *exchange, w *work) error {
	text, err := w.in.text(s.cfg.MaxPromptBytes)
	if err != nil {
		return err
	}
	found, err := s.vectors(w, []string{text})
	if err != nil {
		return err
	}
	row := found.Rows[0]
	return s.answerEmbedding(ctx, x, w, embedding{
		vector: row.Embedding, text: true, tokens: row.Tokens, truncated: row.Truncated,
	})
}

func (s *Server) answerEmbedding(ctx *fasthttp.RequestCtx, x *exchange, w *work, e embedding) error {
	if !finite(e.vector...) {
		return errNotFinite
	}
	e.inference, e.model, e.id = time.Since(w.began), s.svc.Model, x.id
	answerWork(ctx, w, e.appendJSON)
	return nil
}
