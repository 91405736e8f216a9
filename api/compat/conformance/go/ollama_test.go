package conformance

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"
)

func TestOllama(t *testing.T) {
	s := serve(t)
	client := api.NewClient(must(url.Parse(s.url)), http.DefaultClient)
	const red = "a red circle"
	embed := func(r api.EmbedRequest) (*api.EmbedResponse, error) {
		if r.Model == "" {
			r.Model = alias
		}
		return client.Embed(t.Context(), &r)
	}
	t.Run("texts", func(t *testing.T) {
		for _, texts := range [][]string{{red}, {red, "zwei blaue Quadrate", red}} {
			var input any = texts
			if len(texts) == 1 {
				input = texts[0]
			}
			r, err := embed(api.EmbedRequest{Input: input, KeepAlive: &api.Duration{Duration: 5 * time.Minute}, Options: map[string]any{"num_ctx": 77}})
			if err != nil || len(r.Embeddings) != len(texts) || r.PromptEvalCount < 5*len(texts) || r.TotalDuration <= 0 || r.Model != alias {
				t.Fatal(r, err)
			}
			for i, text := range texts {
				same(t, text, r.Embeddings[i], s.text(t, text))
			}
		}
	})
	t.Run("nothing", func(t *testing.T) {
		for _, input := range []any{nil, "", []string{}} {
			if r, err := embed(api.EmbedRequest{Input: input}); err != nil || r.Embeddings == nil || len(r.Embeddings) != 0 {
				t.Errorf("%#v: %+v %v", input, r, err)
			}
		}
	})
	t.Run("long text", func(t *testing.T) {
		long, yes, no := strings.Repeat("word ", manyWords), true, false
		for _, truncate := range []*bool{nil, &yes} {
			r, err := embed(api.EmbedRequest{Input: long, Truncate: truncate})
			if err != nil || len(r.Embeddings) != 1 {
				t.Fatal(r, err)
			}
			same(t, "long", r.Embeddings[0], s.text(t, long))
		}
		_, err := embed(api.EmbedRequest{Input: long, Truncate: &no})
		failed(t, err, 400, "context length")
	})
	t.Run("one text, the old way", func(t *testing.T) {
		r, err := client.Embeddings(t.Context(), &api.EmbeddingRequest{Model: alias, Prompt: red})
		if err != nil {
			t.Fatal(err)
		}
		same(t, red, r.Embedding, s.text(t, red))
		r, err = client.Embeddings(t.Context(), &api.EmbeddingRequest{Model: alias})
		if err != nil || len(r.Embedding) != 0 {
			t.Error(r, err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		_, err := embed(api.EmbedRequest{Model: "llama3", Input: red})
		failed(t, err, 404, "model 'llama3' not found")
		_, err = client.Embeddings(t.Context(), &api.EmbeddingRequest{Model: "llama3", Prompt: red})
		failed(t, err, 404, "model 'llama3' not found")
		for _, input := range []any{1, map[string]int{"a": 1}, []any{red, 1}} {
			_, err = embed(api.EmbedRequest{Input: input})
			failed(t, err, 400, "invalid input type")
		}
		_, err = embed(api.EmbedRequest{Input: red, Dimensions: 3})
		failed(t, err, 400, "dimensions")
	})
	t.Run("what programs ask first", func(t *testing.T) {
		version, err := client.Version(t.Context())
		if err != nil || version == "" {
			t.Error(version, err)
		}
		if err := client.Heartbeat(t.Context()); err != nil {
			t.Error(err)
		}
		list, err := client.List(t.Context())
		if err != nil || len(list.Models) == 0 {
			t.Fatal(list, err)
		}
		for _, m := range list.Models {
			shown, err := client.Show(t.Context(), &api.ShowRequest{Model: m.Model})
			if err != nil || len(shown.Capabilities) != 1 || shown.Capabilities[0] != "embedding" {
				t.Error(m, shown, err)
			}
			if _, err := embed(api.EmbedRequest{Model: m.Model, Input: red}); err != nil {
				t.Error(m, err)
			}
		}
		_, err = client.Show(t.Context(), &api.ShowRequest{Model: "llama3"})
		failed(t, err, 404, "model 'llama3' not found")
	})
	t.Run("keys", func(t *testing.T) {
		s, _ := serveWithKey(t)
		_, err := api.NewClient(must(url.Parse(s.url)), http.DefaultClient).Embed(t.Context(), &api.EmbedRequest{Model: alias, Input: red})
		var e api.AuthorizationError
		if !errors.As(err, &e) || e.StatusCode != 401 {
			t.Error(err)
		}
	})
}

func failed(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	var e api.StatusError
	if !errors.As(err, &e) || e.StatusCode != status {
		t.Errorf("%v, want status %d", err, status)
	}
	says(t, err, words...)
}
