package api

import (
	"context"
	"strconv"
	"time"
)

// readTokens reads what /v1/tokens is asked: prompts, as /v1/classify takes them.
func readTokens(r *request, in *input) (err error) {
	r.texts, err = in.prompts(r.rules.MaxPrompts, r.rules.MaxPromptBytes)
	return err
}

// countTokens counts the tokens of each prompt. It stops when nobody waits for them any more.
func (r *request) countTokens() error {
	for i := range r.texts {
		if r.work.Err() != nil {
			return context.Cause(r.work)
		}
		tokens, cut := r.server.svc.Engine.Tokens(r.texts[i])
		r.counts = append(r.counts, tokenCount{tokens, cut})
	}
	return nil
}

// tokenCount is how many tokens of a prompt the model reads, and whether that is not all of it.
type tokenCount struct {
	tokens int
	cut    bool
}

// appendTokens appends the fields of an answer of /v1/tokens.
func appendTokens(b []byte, r *request, _ time.Duration) []byte {
	b = append(b, `"prompts":[`...)
	for i, c := range r.counts {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"tokens":`...), int64(c.tokens), 10)
		b = append(strconv.AppendBool(append(b, `,"truncated":`...), c.cut), '}')
	}
	return strconv.AppendInt(append(b, `],"max_tokens":`...), int64(r.server.svc.Engine.MaxTokens()), 10)
}
