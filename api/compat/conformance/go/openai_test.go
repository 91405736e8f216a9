package conformance

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	sashabaranov "github.com/sashabaranov/go-openai"
)

// attempts counts the requests that a client sends for one call, and keeps the last answer's header.
type attempts struct {
	n    int
	last http.Header
}

func (a *attempts) count(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	a.n++
	resp, err := next(r)
	if err == nil {
		a.last = resp.Header
	}
	return resp, err
}

func openAI(s *service, options ...option.RequestOption) openai.Client {
	return openai.NewClient(append([]option.RequestOption{option.WithBaseURL(s.url + "/v1"), option.WithAPIKey("none")}, options...)...)
}

func inputs(texts ...string) openai.EmbeddingNewParamsInputUnion {
	return openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: texts}
}

func TestOpenAIGo(t *testing.T) {
	s := serve(t)
	client := openAI(s)
	ask := func(p openai.EmbeddingNewParams) (*openai.CreateEmbeddingResponse, error) {
		return client.Embeddings.New(t.Context(), p)
	}
	const red, blue = "a red circle", "two blue squares, ünïcode 猫 🐈"

	for _, encoding := range []openai.EmbeddingNewParamsEncodingFormat{"", "float", "base64"} {
		t.Run("texts/"+string(encoding), func(t *testing.T) {
			r, err := ask(openai.EmbeddingNewParams{Model: alias, Input: inputs(red, blue, red), EncodingFormat: encoding})
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range []string{red, blue, red} {
				if len(r.Data) != 3 || r.Data[i].Index != int64(i) || r.Data[i].Object != "embedding" {
					t.Fatalf("%.300s", r.RawJSON())
				}
				same(t, text, r.Data[i].Embedding, s.text(t, text))
				if isText := r.Data[i].JSON.Embedding.Raw()[0] == '"'; isText != (encoding == "base64") {
					t.Errorf("encoding %q: %.40s", encoding, r.Data[i].JSON.Embedding.Raw())
				}
			}
			if r.Object != "list" || r.Model == "" || r.Usage.PromptTokens < 3*5 || r.Usage.TotalTokens != r.Usage.PromptTokens {
				t.Errorf("%s %s %+v", r.Object, r.Model, r.Usage)
			}
		})
	}
	t.Run("one text", func(t *testing.T) {
		r, err := ask(openai.EmbeddingNewParams{Model: alias, Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String(red)}, User: openai.String("me")})
		if err != nil || len(r.Data) != 1 {
			t.Fatal(r, err)
		}
		same(t, red, r.Data[0].Embedding, s.text(t, red))
	})
	t.Run("long text", func(t *testing.T) {
		long := strings.Repeat("word ", manyWords)
		r, err := ask(openai.EmbeddingNewParams{Model: alias, Input: inputs(long)})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "long", r.Data[0].Embedding, s.text(t, long))
	})
	t.Run("images", func(t *testing.T) {
		r, err := ask(openai.EmbeddingNewParams{Model: alias,
			Input: inputs(dataURI("image/jpeg", cat), red, dataURI("image/png", png), dataURI("image/webp", webp))})
		if err != nil || len(r.Data) != 4 {
			t.Fatal(err)
		}
		same(t, "cat", r.Data[0].Embedding, s.image(t, cat))
		same(t, red, r.Data[1].Embedding, s.text(t, red))
		same(t, "PNG", r.Data[2].Embedding, s.image(t, png))
		same(t, "WebP", r.Data[3].Embedding, s.image(t, webp))
	})
	t.Run("dimensions", func(t *testing.T) {
		own := int64(len(s.text(t, red)))
		if _, err := ask(openai.EmbeddingNewParams{Model: alias, Input: inputs(red), Dimensions: openai.Int(own)}); err != nil {
			t.Error(err)
		}
		_, err := ask(openai.EmbeddingNewParams{Model: alias, Input: inputs(red), Dimensions: openai.Int(own - 1)})
		refused(t, err, 400, "invalid_request_error", "dimensions")
	})
	t.Run("tokens", func(t *testing.T) {
		_, err := ask(openai.EmbeddingNewParams{Model: alias, Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfTokens: []int64{1, 2, 3}}})
		refused(t, err, 400, "invalid_request_error", "input")
		_, err = ask(openai.EmbeddingNewParams{Model: alias, Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfTokenArrays: [][]int64{{1, 2}, {3}}}})
		refused(t, err, 400, "invalid_request_error", "input")
	})
	t.Run("bad image", func(t *testing.T) {
		_, err := ask(openai.EmbeddingNewParams{Model: alias, Input: inputs(red, dataURI("image/jpeg", []byte("no image")))})
		refused(t, err, 400, "invalid_request_error", "input[1]")
	})
	t.Run("unknown model", func(t *testing.T) {
		var e *openai.Error
		_, err := ask(openai.EmbeddingNewParams{Model: openai.EmbeddingModelTextEmbedding3Small, Input: inputs(red)})
		if refused(t, err, 404, "invalid_request_error", "model"); errors.As(err, &e) && e.Code != "model_not_found" {
			t.Errorf("code %q", e.Code)
		}
	})
	t.Run("models", func(t *testing.T) {
		var names []string
		for pages := client.Models.ListAutoPaging(t.Context()); pages.Next(); {
			m := pages.Current()
			if names = append(names, m.ID); m.Object != "model" || m.OwnedBy == "" {
				t.Errorf("%s", m.RawJSON())
			}
		}
		if len(names) == 0 || names[0] != "demo" {
			t.Errorf("%q", names)
		}
		for _, name := range []string{"demo", alias} {
			if _, err := client.Models.Get(t.Context(), name); err != nil {
				t.Error(name, err)
			}
		}
		_, err := client.Models.Get(t.Context(), "gpt-5")
		refused(t, err, 404, "invalid_request_error", "model")
	})
	t.Run("request id", func(t *testing.T) {
		var a attempts
		client := openAI(s, option.WithMiddleware(a.count))
		if _, err := client.Models.List(t.Context()); err != nil || a.last.Get("X-Request-Id") == "" {
			t.Error(a.last, err)
		}
	})
}

// refused fails the test unless the error is openai-go's for that status, with all of what a program may look at.
func refused(t *testing.T, err error, status int, class, param string) {
	t.Helper()
	var e *openai.Error
	if !errors.As(err, &e) {
		t.Errorf("%v is none of the service's errors", err)
		return
	}
	if e.StatusCode != status || e.Type != class || !strings.HasPrefix(e.Param, param) || e.Message == "" || !e.JSON.Code.Valid() && e.JSON.Code.Raw() != "null" {
		t.Errorf("%d %s, want %d, type %q, param %q", e.StatusCode, e.RawJSON(), status, class, param)
	}
}

// TestOpenAIGoRetries: what is wrong is asked once; a chip that fails or dies is opened again, and asked again.
func TestOpenAIGoRetries(t *testing.T) {
	control := filepath.Join(folder, "chip") // a socket's name is short
	s := serve(t, "--backend", "sim", "--set", "sim.arguments=--control "+control)
	fault := func(what string) {
		t.Helper()
		c, err := net.Dial("unix", control)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, what+"\n"); err != nil {
			t.Fatal(err)
		}
		if said, err := bufio.NewReader(c).ReadString('\n'); err != nil || said != "ok\n" {
			t.Fatal(said, err)
		}
	}
	ask := func(input string) (a attempts, err error) {
		client := openAI(s, option.WithMiddleware(a.count), option.WithMaxRetries(20))
		_, err = client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: alias, Input: inputs(input)})
		return a, err
	}
	a, err := ask(dataURI("image/jpeg", []byte("no image")))
	if refused(t, err, 400, "invalid_request_error", "input"); a.n != 1 {
		t.Errorf("%d attempts at what is no image", a.n)
	}
	for _, f := range []string{"error=7@1", "crash=1"} { // the next image
		fault(f)
		if a, err := ask(dataURI("image/jpeg", cat)); err != nil || a.n < 2 {
			t.Errorf("%s: %d attempts, %v", f, a.n, err)
		}
		fault("ok")
	}
}

func TestOpenAIGoKeys(t *testing.T) {
	s, key := serveWithKey(t)
	client := openAI(s, option.WithAPIKey(key))
	if _, err := client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: alias, Input: inputs("x")}); err != nil {
		t.Error(err)
	}
	client = openAI(s)
	_, err := client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: alias, Input: inputs("x")})
	var e *openai.Error
	if refused(t, err, 401, "authentication_error", ""); errors.As(err, &e) && e.Code != "invalid_api_key" {
		t.Errorf("code %q", e.Code)
	}
}

func TestGoOpenAI(t *testing.T) {
	s := serve(t)
	cfg := sashabaranov.DefaultConfig("none")
	cfg.BaseURL = s.url + "/v1"
	client := sashabaranov.NewClientWithConfig(cfg)
	for _, encoding := range []sashabaranov.EmbeddingEncodingFormat{"", sashabaranov.EmbeddingEncodingFormatFloat, sashabaranov.EmbeddingEncodingFormatBase64} {
		r, err := client.CreateEmbeddings(t.Context(), sashabaranov.EmbeddingRequest{
			Model: alias, Input: []string{"a red circle", dataURI("image/webp", webp)}, EncodingFormat: encoding})
		if err != nil || len(r.Data) != 2 || r.Usage.PromptTokens == 0 {
			t.Fatal(r, err)
		}
		same(t, "text", r.Data[0].Embedding, s.text(t, "a red circle"))
		same(t, "image", r.Data[1].Embedding, s.image(t, webp))
	}
	for status, r := range map[int]sashabaranov.EmbeddingRequest{
		404: {Model: sashabaranov.AdaEmbeddingV2, Input: "x"},
		400: {Model: alias, Input: [][]int{{1, 2}}},
	} {
		_, err := client.CreateEmbeddings(t.Context(), r)
		var e *sashabaranov.APIError
		if !errors.As(err, &e) || e.HTTPStatusCode != status || e.Message == "" || e.Type != "invalid_request_error" {
			t.Errorf("%v, want %d", err, status)
		}
	}
	models, err := client.ListModels(t.Context())
	if err != nil || len(models.Models) == 0 || models.Models[0].ID != "demo" {
		t.Error(models, err)
	}
}
