package api

import (
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
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
	r := &w.request
	r.Prompts = trimmed(texts, s.cfg.MaxPromptBytes)
	if r.TopK, err = w.in.topK(len(texts)); err != nil {
		return err
	}
	if r.Threshold, r.Cut, err = w.in.threshold(); err != nil {
		return err
	}
	if err := w.decodeImage(); err != nil {
		return err
	}
	if err := w.ask(s.svc.Engine.Classify); err != nil {
		return err
	}
	s.answer(ctx, x, w, func(b []byte, took time.Duration) []byte {
		return appendClassification(b, texts, &w.result, s.svc.Engine.LogitScale(), took)
	})
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
	if err := w.ask(s.svc.Engine.EmbedImage); err != nil {
		return err
	}
	s.answer(ctx, x, w, func(b []byte, took time.Duration) []byte { return appendEmbedding(b, w.result.Embedding, nil, took) })
	return nil
}

// embedText serves /v1/embed/text.
func (s *Server) embedText(ctx *fasthttp.RequestCtx, x *exchange, w *work) error {
	text, err := w.in.text(s.cfg.MaxPromptBytes)
	if err != nil {
		return err
	}
	start := time.Now()
	v, err := s.svc.Engine.EmbedText(w.ctx, w.caller, trimmed([]string{text}, s.cfg.MaxPromptBytes)[0])
	if err != nil {
		return err
	}
	w.result.TextTime = time.Since(start)
	s.answer(ctx, x, w, func(b []byte, took time.Duration) []byte { return appendEmbedding(b, v.Embedding, &v, took) })
	return nil
}

// trimmed cuts the white space around texts that are over the limit with it, which the encoder does not see
// and nobody should have to keep. It does not change the slice.
func trimmed(texts []string, limit int) []string {
	cut := texts
	for i, text := range texts {
		if len(text) <= limit {
			continue
		}
		if &cut[0] == &texts[0] {
			cut = slices.Clone(texts)
		}
		cut[i] = strings.TrimSpace(text)
	}
	return cut
}
