package api

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/api/compat"
)

// speaking serves with all dialects; change may be nil.
func speaking(t testing.TB, change func(*compat.Config)) *service {
	t.Helper()
	return serve(t, func(c *Config, svc *Service) {
		svc.Compat.Aliases = []string{"openai/clip-vit-base-patch32", "jina-clip-v1", testModel}
		if change != nil {
			change(&svc.Compat)
		}
	})
}

// embeddingList is the answer of OpenAI's /v1/embeddings; data[].embedding is numbers or base64.
type embeddingList struct {
	Object string `json:"object"`
	Data   []struct {
		Object    string          `json:"object"`
		Index     int             `json:"index"`
		Embedding json.RawMessage `json:"embedding"`
	} `json:"data"`
	Model string `json:"model"`
	Usage struct {
		Prompt int `json:"prompt_tokens"`
		Total  int `json:"total_tokens"`
	} `json:"usage"`
	ID      string `json:"id"`
	Created int64  `json:"created"`
}

// wantVectors checks an answer in which the vectors of the texts and images are, in their order.
func wantVectors(t *testing.T, r reply, inBase64 bool, tokens int, want ...string) {
	t.Helper()
	if r.status != 200 || r.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var list embeddingList
	r.into(t, &list)
	if list.Object != "list" || list.Model != testModel || list.Usage.Prompt != tokens || list.Usage.Total != tokens || len(list.Data) != len(want) ||
		list.ID != "embd-"+r.header.Get(headerRequestID) || time.Since(time.Unix(list.Created, 0)) > time.Hour {
		t.Fatalf("%d items, %.300s", len(list.Data), r.body)
	}
	for i, d := range list.Data {
		var got []float32
		if inBase64 {
			var text string
			noError(t, json.Unmarshal(d.Embedding, &text))
			raw := must(base64.StdEncoding.DecodeString(text))
			got = make([]float32, len(raw)/4)
			must(binary.Decode(raw, binary.LittleEndian, got))
		} else {
			noError(t, json.Unmarshal(d.Embedding, &got))
		}
		if d.Object != "embedding" || d.Index != i || !slices.Equal(got, testVector(want[i])) {
			t.Errorf("item %d: %s %d, not the vector of %q", i, d.Object, d.Index, want[i])
		}
	}
}

func TestOpenAI(t *testing.T) {
	s := speaking(t, nil)
	cat, dog := b64("cat"), b64("dog")
	uri := "data:image/bmp;base64," + cat
	for _, c := range [...]struct {
		name, path, body string
		base64           bool
		tokens           int
		want             []string
	}{
		{"a text", "/v1/embeddings", `{"model":"test-clip","input":"a cat"}`, false, 4, []string{"a cat"}},
		{"texts", "/v1/embeddings", `{"input":["a cat","dog"],"encoding_format":"base64","user":"me","dimensions":512}`, true, 7, []string{"a cat", "dog"}},
		{"another name of the model", "/v1/embeddings", `{"model":"openai/clip-vit-base-patch32","input":["x"],"dimensions":0}`, false, 3, []string{"x"}},
		{"a data URI", "/v1/embeddings", `{"input":"` + uri + `"}`, false, 0, []string{"cat"}},
		{"its slashes are escaped", "/v1/embeddings", `{"input":["` + strings.ReplaceAll(uri, "/", `\/`) + `"]}`, false, 0, []string{"cat"}},
		{"texts and images", "/v1/embeddings", `{"input":["x","` + uri + `","a dog",{"image":"` + dog + `"}]}`, false, 7, []string{"x", "cat", "a dog", "dog"}},
		{"infinity", "/embeddings", `{"model":"test-clip","input":["` + uri + `","` + dog + `"],"modality":"image","encoding_format":"float"}`, false, 0, []string{"cat", "dog"}},
		{"infinity, once", "/embeddings_image", `{"input":"` + cat + `"}`, false, 0, []string{"cat"}},
		{"vLLM", "/v1/embeddings", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + uri + `"}}]}],"truncate_prompt_tokens":-1}`,
			false, 0, []string{"cat"}},
		{"vLLM, a text", "/embeddings", `{"messages":[{"role":"user","content":"a cat"}],"embed_dtype":"float32","endianness":"little"}`, false, 4, []string{"a cat"}},
		{"Jina", "/v1/embeddings", `{"model":"jina-clip-v1","task":"retrieval.query","normalized":true,"embedding_type":"base64","input":[{"text":"x"},{"image":"` +
			dog + `"},{"bytes":"` + cat + `"},{"url":"` + uri + `"}]}`, true, 3, []string{"x", "dog", "cat", "cat"}},
		{"OpenRouter", "/v1/embeddings", `{"input":[{"content":[{"type":"image_url","image_url":{"url":"` + uri + `"}}]},{"content":[{"type":"text","text":"x"}]}]}`,
			false, 3, []string{"cat", "x"}},
		{"llama.cpp", "/v1/embeddings", `{"content":["x",{"prompt_string":"<__media__>","multimodal_data":["` + cat + `"]}]}`, false, 3, []string{"x", "cat"}},
	} {
		t.Run(c.name, func(t *testing.T) { wantVectors(t, s.post(t, c.path, c.body), c.base64, c.tokens, c.want...) })
	}
}

// TestOpenAILongTexts: a long text is cut and not refused, whatever its length, unless the request says so.
func TestOpenAILongTexts(t *testing.T) {
	s := speaking(t, nil)
	for _, words := range []int{76, 10_000, 200_000} {
		r := s.post(t, "/v1/embeddings", fmt.Sprintf(`{"input":["x",%q]}`, strings.Repeat("wörd ", words)))
		var list embeddingList
		r.into(t, &list)
		if r.status != 200 || list.Usage.Prompt != 3+77 || r.header.Get("X-Clip-Truncated") != "1" {
			t.Errorf("%d words: %d, %d tokens, %q cut", words, r.status, list.Usage.Prompt, r.header.Get("X-Clip-Truncated"))
		}
	}
	if r := s.post(t, "/v1/embeddings", fmt.Sprintf(`{"input":%q}`, strings.Repeat("word ", 75))); r.status != 200 || r.header.Get("X-Clip-Truncated") != "" {
		t.Errorf("%d, %q cut", r.status, r.header.Get("X-Clip-Truncated"))
	}
	wantOpenAIError(t, s.post(t, "/v1/embeddings", fmt.Sprintf(`{"input":["x",%q],"truncate":false}`, strings.Repeat("word ", 76))),
		400, "invalid_request_error", "invalid_request", "input[1]", "more than the 77 tokens")
}

// TestOpenAITextsHaveNoLimitOfPrompts: server.max_prompt_bytes refuses prompts, and must not cut texts, of which nobody would know.
func TestOpenAITextsHaveNoLimitOfPrompts(t *testing.T) {
	s := serve(t, func(c *Config, svc *Service) { svc.Compat, c.MaxPromptBytes = allDialects(), 4 })
	for _, truncate := range []string{"true", "false"} {
		r := s.post(t, "/v1/embeddings", `{"input":"a cat beside a dog","truncate":`+truncate+`}`)
		if wantVectors(t, r, false, 7, "a cat beside a dog"); r.header.Get("X-Clip-Truncated") != "" {
			t.Errorf("%q cut", r.header.Get("X-Clip-Truncated"))
		}
	}
}

// TestOpenAIManyItems is the most that a request may have, in an answer that is sent as a stream.
func TestOpenAIManyItems(t *testing.T) {
	s := speaking(t, nil)
	texts := slices.Repeat([]string{"x", "y"}, compat.MaxItems/2)
	wantVectors(t, s.post(t, "/v1/embeddings", string(must(json.Marshal(map[string]any{"input": texts, "encoding_format": "base64"})))), true, 3*len(texts), texts...)
	body := string(must(json.Marshal(map[string]any{"input": append(texts, "z")})))
	wantOpenAIError(t, s.post(t, "/v1/embeddings", body), 400, "invalid_request_error", "invalid_request", "input", "2049, at most 2048")
}

// wantOpenAIError checks an answer for OpenAI's clients, who read exactly this of it.
func wantOpenAIError(t testing.TB, r reply, status int, kind, code, param, message string) {
	t.Helper()
	var body struct {
		Error struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    string  `json:"code"`
		} `json:"error"`
		Detail string `json:"detail"`
	}
	r.into(t, &body)
	got := ""
	if body.Error.Param != nil {
		got = *body.Error.Param
	}
	if e := body.Error; r.status != status || e.Type != kind || e.Code != code || got != param || !strings.Contains(e.Message, message) || body.Detail != e.Message {
		t.Errorf("%d %s, want %d %s %s %q %q", r.status, r.body, status, kind, code, param, message)
	}
	if retry := r.header.Get("Retry-After"); (retry != "") != (status == 429 || status == 503) {
		t.Errorf("%d, Retry-After %q", status, retry)
	}
	if again := r.header.Get("X-Should-Retry"); (again == "false") != (code == "internal_error") || r.header.Get(headerRequestID) == "" {
		t.Errorf("%d %s, X-Should-Retry %q", status, code, again)
	}
}

func TestOpenAIErrors(t *testing.T) {
	s := speaking(t, nil)
	image := func(text string) string { return `{"input":["x",{"image":"` + b64(text) + `"}]}` }
	const invalid, server = "invalid_request_error", "server_error"
	for _, c := range [...]struct {
		name, body        string
		status            int
		kind, code, param string
		message           string
		headers           []string
	}{
		{"no JSON", `{"input":`, 400, invalid, "invalid_json", "", "not valid JSON", nil},
		{"an array", `["x"]`, 400, invalid, "invalid_json", "", "must be a JSON object", nil},
		{"nothing", ``, 400, invalid, "invalid_json", "", "empty", nil},
		{"no input", `{"model":"test-clip"}`, 400, invalid, "invalid_request", "input", "Missing 'input'", nil},
		{"no text", `{"input":["x",""]}`, 400, invalid, "invalid_request", "input[1]", "not empty", nil},
		{"tokens", `{"model":"test-clip","input":[[320,2368],[5]]}`, 400, invalid, "invalid_request", "input", "check_embedding_ctx_length=False", nil},
		{"another model", `{"model":"text-embedding-3-small","input":"x"}`, 404, invalid, "model_not_found", "model", "test-clip", nil},
		{"dimensions", `{"input":"x","dimensions":1024}`, 400, invalid, "invalid_request", "dimensions", "512", nil},
		{"encoding", `{"input":"x","encoding_format":"bytes"}`, 400, invalid, "invalid_request", "encoding_format", "base64", nil},
		{"no image", image(notAnImage), 400, invalid, "invalid_image", "input[1]", "input[1]", nil},
		{"no base64", `{"input":[{"image":"$"}]}`, 400, invalid, "invalid_image", "input[0]", "base64", nil},
		{"an address", `{"input":[{"image":"http://127.0.0.1/x.jpg"}]}`, 400, invalid, "invalid_request", "input[0]", "fetch.allow", nil},
		{"format", image(avifImage), 415, invalid, "unsupported_image", "input[1]", "", nil},
		{"size", image(hugeImage), 413, invalid, "image_too_large", "input[1]", "", nil},
		{"media type", `{"input":"x"}`, 415, invalid, "unsupported_media_type", "", "application/json", []string{"Content-Type", "text/xml"}},
		{"timeout header", `{"input":"x"}`, 400, invalid, "invalid_request", "", headerTimeout, []string{headerTimeout, "x"}},
		{"deadline of an image", image(waitingImage), 504, server, "deadline_exceeded", "", "deadline", []string{headerTimeout, "50"}},
		{"deadline", `{"input":"` + waitingText + `"}`, 504, server, "deadline_exceeded", "", "deadline", []string{headerTimeout, "1"}},
		{"a text that panics", `{"input":"` + panickingText + `"}`, 500, server, "encode_failed", "input", "", nil},
		{"an image that panics", image(panickingImage), 500, server, "internal_error", "input[1]", "request_id", nil},
		{"the encoder fails", image(failingImage), 500, server, "encode_failed", "input[1]", "", nil},
		{"the device is lost", image(lostDevice), 503, server, "unavailable", "input[1]", "not available", nil},
		{"the device is lost for texts", `{"input":"` + unavailableText + `"}`, 503, server, "unavailable", "input", "not available", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantOpenAIError(t, s.post(t, "/v1/embeddings", c.body, c.headers...), c.status, c.kind, c.code, c.param, c.message)
		})
	}
	if r := s.post(t, "/v1/classify", classifyBody(panickingImage, "", "x")); r.status != 500 || r.header.Get("X-Should-Retry") != "" {
		t.Errorf("the service's own: %d %v", r.status, r.header)
	}
	s.lose("it was pulled out")
	wantOpenAIError(t, s.post(t, "/v1/embeddings", `{"input":"x"}`), 503, server, "not_ready", "", "pulled out")
}

// TestOneBadItemEndsTheRequest, which would take until its deadline otherwise.
func TestOneBadItemEndsTheRequest(t *testing.T) {
	s := speaking(t, nil)
	wait := `{"image":"` + b64(waitingImage) + `"}`
	wantOpenAIError(t, s.post(t, "/v1/embeddings", `{"input":["x",`+wait+`,{"image":"`+b64(notAnImage)+`"}]}`),
		400, "invalid_request_error", "invalid_image", "input[2]", "")
	for len(s.entered) > 0 {
		<-s.entered
	}
	wantOpenAIError(t, s.post(t, "/v1/embeddings", `{"input":[`+wait+`,"x","`+unencodableText+`"]}`),
		500, "server_error", "encode_failed", "input[2]", "")
	if len(s.entered) > 0 {
		t.Error("the image was encoded after a text had failed")
	}
	s.release()
	wantVectors(t, s.post(t, "/v1/embeddings", `{"input":[`+wait+`,"x"]}`), false, 3, waitingImage, "x")
	wantOpenAIError(t, s.post(t, "/v1/embeddings", `{"input":["x",{"image":"`+b64(failingImage)+`"},{"image":"`+b64(goodImage)+`"}]}`),
		500, "server_error", "encode_failed", "input[1]", "")
}

func TestOpenAIKeys(t *testing.T) {
	s := keyed(t)
	s.Apply(s.rules.Load().Config, allDialects(), time.Minute, time.Minute)
	wantOpenAIError(t, s.post(t, "/v1/embeddings", `{"input":"x"}`), 401, "authentication_error", "invalid_api_key", "", "key")
	wantOpenAIError(t, s.do(t, "GET", "/v1/models", ""), 401, "authentication_error", "invalid_api_key", "", "key")
	wantVectors(t, s.post(t, "/v1/embeddings", `{"input":"x"}`, "Authorization", bearerOf("bob")), false, 3, "x")
}

func TestOpenAIBusy(t *testing.T) {
	s := serve(t, func(c *Config, svc *Service) {
		svc.Compat, c.MaxBodyMemoryBytes = allDialects(), 8<<10
	})
	wantOpenAIError(t, s.post(t, "/v1/embeddings", `{"input":"`+strings.Repeat("x ", 32<<10)+`"}`), 429, "rate_limit_exceeded", "rate_limit_exceeded", "", "")
}

func TestOpenAIModels(t *testing.T) {
	s := speaking(t, nil)
	type entry struct {
		ID, Object   string
		Created      int64
		OwnedBy      string `json:"owned_by"`
		Aliases      []string
		Architecture struct {
			Input []string `json:"input_modalities"`
		}
		Meta struct {
			Context int `json:"n_ctx"`
		}
	}
	good := func(e entry, name string) bool {
		return e.ID == name && e.Object == "model" && e.Created == s.start.Unix() && e.OwnedBy == "hailo-clip" && len(e.Aliases) == 2 &&
			slices.Equal(e.Architecture.Input, []string{"text", "image"}) && e.Meta.Context == 77
	}
	names := []string{testModel, "openai/clip-vit-base-patch32", "jina-clip-v1"}
	for _, path := range []string{"/v1/models", "/models"} {
		var list struct {
			Object string
			Data   []entry
		}
		r := s.do(t, "GET", path, "")
		r.wantOK(t)
		noError(t, json.Unmarshal(r.body, &list))
		if list.Object != "list" || len(list.Data) != 3 {
			t.Fatalf("%s", r.body)
		}
		for i, e := range list.Data {
			if !good(e, names[i]) || slices.Contains(e.Aliases, e.ID) {
				t.Errorf("%s: %+v", path, e)
			}
		}
	}
	for path, name := range map[string]string{
		"/v1/models/test-clip": testModel, "/v1/models/openai/clip-vit-base-patch32": names[1], "/v1/models/openai%2Fclip-vit-base-patch32": names[1],
		"/v1/models/jina%2dclip-v1": names[2],
	} {
		r := s.do(t, "GET", path, "")
		var e entry
		if noError(t, json.Unmarshal(r.body, &e)); r.status != 200 || !good(e, name) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	for _, path := range []string{"/v1/models/gpt-4", "/v1/models/openai", "/v1/models/test-clip/", "/v1/models/%00"} {
		wantOpenAIError(t, s.do(t, "GET", path, ""), 404, "invalid_request_error", "model_not_found", "model", "does not exist")
	}
	c := s.send(t, "GET /v1/models/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	wantOpenAIError(t, must(read(must(http.ReadResponse(bufio.NewReader(c), nil)))), 400, "invalid_request_error", "invalid_request", "", "percent")
	if r := s.do(t, "HEAD", "/v1/models", ""); r.status != 200 || len(r.body) > 0 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.do(t, http.MethodDelete, "/v1/models/test-clip", ""); r.status != 405 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestOpenAIAskers: many callers at once each get their own vectors, in whatever form they ask.
func TestOpenAIAskers(t *testing.T) {
	s := speaking(t, nil)
	ended := make(chan error)
	for caller := range 8 {
		go func() {
			for i := range 20 {
				name := fmt.Sprintf("%d of %d", i, caller)
				text := "the text " + name
				r, err := s.client.Post(s.url+"/v1/embeddings", "application/json", strings.NewReader(
					`{"input":[`+string(must(json.Marshal(text)))+`,{"image":"`+b64(name)+`"}]}`))
				var answer reply
				if err == nil {
					answer, err = read(r)
				}
				var list embeddingList
				if err == nil {
					err = json.Unmarshal(answer.body, &list)
				}
				for j, what := range []string{text, name} {
					var got []float32
					if err == nil && (len(list.Data) != 2 || json.Unmarshal(list.Data[j].Embedding, &got) != nil || !slices.Equal(got, testVector(what))) {
						err = fmt.Errorf("%d: not the vector of %q: %.100s", answer.status, what, answer.body)
					}
				}
				if err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range 8 {
		noError(t, <-ended)
	}
}

// TestVectorsAreFinite: what is not finite is an error and never a number in an answer.
func TestVectorsAreFinite(t *testing.T) {
	s := speaking(t, nil)
	for _, body := range []string{`{"input":"` + notFiniteText + `"}`, `{"input":[{"image":"` + b64(notFiniteImage) + `"}]}`} {
		if r := s.post(t, "/v1/embeddings", body); r.status < 500 {
			t.Errorf("%d %.100s", r.status, r.body)
		}
	}
	if v := testVector("x"); math.Abs(dot(v, v)-1) > 1e-6 {
		t.Error(dot(v, v))
	}
}
