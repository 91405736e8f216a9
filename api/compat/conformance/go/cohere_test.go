package conformance

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	cohere "github.com/cohere-ai/cohere-go/v2"
	"github.com/cohere-ai/cohere-go/v2/client"
	"github.com/cohere-ai/cohere-go/v2/option"
)

func TestCohere(t *testing.T) {
	s := serve(t)
	co := client.NewClient(option.WithBaseURL(s.url), option.WithToken("none"), option.WithMaxAttempts(1))
	const red, blue = "a red circle", "deux carrés bleus"
	texts := []string{red, blue}
	name := cohere.String(alias)
	query, photo := cohere.EmbedInputTypeSearchQuery, cohere.EmbedInputTypeImage
	v1 := func(r cohere.EmbedRequest) (*cohere.EmbedResponse, error) { return co.Embed(t.Context(), &r) }
	v2 := func(r cohere.V2EmbedRequest) (*cohere.EmbedByTypeResponse, error) {
		return co.V2.Embed(t.Context(), &r)
	}

	t.Run("v1", func(t *testing.T) {
		r, err := v1(cohere.EmbedRequest{Texts: texts, Model: name, InputType: &query})
		if err != nil || r.EmbeddingsFloats == nil || len(r.EmbeddingsFloats.Embeddings) != 2 || r.EmbeddingsFloats.Id == "" {
			t.Fatal(r, err)
		}
		for i, text := range texts {
			same(t, text, r.EmbeddingsFloats.Embeddings[i], s.text(t, text))
			if r.EmbeddingsFloats.Texts[i] != text {
				t.Errorf("%q", r.EmbeddingsFloats.Texts)
			}
		}
		r, err = v1(cohere.EmbedRequest{Texts: texts, Model: name, InputType: &query, EmbeddingTypes: []cohere.EmbeddingType{cohere.EmbeddingTypeFloat}})
		if err != nil || r.EmbeddingsByType == nil || len(r.EmbeddingsByType.Embeddings.Float) != 2 {
			t.Fatal(r, err)
		}
		same(t, blue, r.EmbeddingsByType.Embeddings.Float[1], s.text(t, blue))
		r, err = v1(cohere.EmbedRequest{Images: []string{dataURI("image/jpeg", cat)}, Model: name, InputType: &photo})
		if err != nil || r.EmbeddingsFloats == nil || len(r.EmbeddingsFloats.Embeddings) != 1 {
			t.Fatal(r, err)
		}
		same(t, "cat", r.EmbeddingsFloats.Embeddings[0], s.image(t, cat))
	})
	t.Run("v2 texts", func(t *testing.T) {
		r, err := v2(cohere.V2EmbedRequest{Texts: texts, Model: alias, InputType: query, EmbeddingTypes: []cohere.EmbeddingType{cohere.EmbeddingTypeFloat}})
		if err != nil || len(r.Embeddings.Float) != 2 || len(r.Texts) != 2 || r.Id == "" || r.Meta.GetApiVersion().GetVersion() != "2" {
			t.Fatal(r, err)
		}
		for i, text := range texts {
			same(t, text, r.Embeddings.Float[i], s.text(t, text))
		}
	})
	t.Run("v2 images", func(t *testing.T) {
		r, err := v2(cohere.V2EmbedRequest{Images: []string{dataURI("image/png", png)}, Model: alias, InputType: photo})
		if err != nil || len(r.Embeddings.Float) != 1 || len(r.Images) != 1 {
			t.Fatal(r, err)
		}
		same(t, "PNG", r.Embeddings.Float[0], s.image(t, png))
		if i := r.Images[0]; i.Width != 224 || i.Height != 224 || i.Format != "png" || i.BitDepth != 24 {
			t.Errorf("%+v", i)
		}
	})
	t.Run("v2 inputs", func(t *testing.T) {
		input := func(c cohere.EmbedContent) *cohere.EmbedInput {
			return &cohere.EmbedInput{Content: []*cohere.EmbedContent{&c}}
		}
		r, err := v2(cohere.V2EmbedRequest{Model: alias, InputType: cohere.EmbedInputTypeSearchDocument, Inputs: []*cohere.EmbedInput{
			input(cohere.EmbedContent{ImageUrl: &cohere.EmbedImage{ImageUrl: &cohere.EmbedImageUrl{Url: dataURI("image/webp", webp)}}}),
			input(cohere.EmbedContent{Text: &cohere.EmbedText{Text: cohere.String(red)}}),
			input(cohere.EmbedContent{ImageUrl: &cohere.EmbedImage{ImageUrl: &cohere.EmbedImageUrl{Url: dataURI("image/jpeg", dog)}}}),
		}})
		if err != nil || len(r.Embeddings.Float) != 3 {
			t.Fatal(r, err)
		}
		same(t, "WebP", r.Embeddings.Float[0], s.image(t, webp))
		same(t, red, r.Embeddings.Float[1], s.text(t, red))
		same(t, "dog", r.Embeddings.Float[2], s.image(t, dog))
	})
	t.Run("long text", func(t *testing.T) {
		long, none, end := strings.Repeat("word ", manyWords), cohere.V2EmbedRequestTruncateNone, cohere.V2EmbedRequestTruncateEnd
		r, err := v2(cohere.V2EmbedRequest{Texts: []string{long}, Model: alias, InputType: query, Truncate: &end})
		if err != nil || len(r.Embeddings.Float) != 1 {
			t.Fatal(r, err)
		}
		same(t, "long", r.Embeddings.Float[0], s.text(t, long))
		_, err = v2(cohere.V2EmbedRequest{Texts: []string{long}, Model: alias, InputType: query, Truncate: &none})
		class[*cohere.BadRequestError](t, err)
	})
	t.Run("errors", func(t *testing.T) {
		_, err := v2(cohere.V2EmbedRequest{Texts: texts, Model: "embed-v4.0", InputType: query})
		class[*cohere.NotFoundError](t, err)
		_, err = v1(cohere.EmbedRequest{Texts: texts, Model: cohere.String("embed-v4.0"), InputType: &query})
		class[*cohere.NotFoundError](t, err)
		_, err = v2(cohere.V2EmbedRequest{Texts: texts, Model: alias, InputType: query, OutputDimension: cohere.Int(7)})
		class[*cohere.BadRequestError](t, err)
		_, err = v2(cohere.V2EmbedRequest{Images: []string{"https://example.org/cat.jpg"}, Model: alias, InputType: photo})
		class[*cohere.BadRequestError](t, err)
		_, err = v2(cohere.V2EmbedRequest{Images: []string{dataURI("image/png", []byte("no image"))}, Model: alias, InputType: photo})
		class[*cohere.BadRequestError](t, err)
		_, err = v2(cohere.V2EmbedRequest{Model: alias, InputType: query})
		class[*cohere.BadRequestError](t, err)
	})
	t.Run("keys", func(t *testing.T) {
		s, key := serveWithKey(t)
		for token, good := range map[string]bool{key: true, "none": false} {
			_, err := client.NewClient(option.WithBaseURL(s.url), option.WithToken(token), option.WithHTTPClient(http.DefaultClient)).V2.Embed(t.Context(),
				&cohere.V2EmbedRequest{Texts: texts, Model: alias, InputType: query})
			if !good {
				class[*cohere.UnauthorizedError](t, err)
			} else if err != nil {
				t.Error(err)
			}
		}
	})
}

// class fails the test unless the client makes that class of the error, whose body has a message as Cohere's have.
func class[E error](t *testing.T, err error) {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Errorf("%v is no %T", err, e)
	}
	says(t, err, `{"message":"`)
}
