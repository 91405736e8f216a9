package api

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/compat"
)

// wantLlamaCPP checks a bare list in which the vectors are, each in a list of its own.
func wantLlamaCPP(t *testing.T, r reply, want ...string) {
	t.Helper()
	var list []struct {
		Index     int
		Embedding [][]float32
	}
	if r.status != 200 || json.Unmarshal(r.body, &list) != nil || len(list) != len(want) {
		t.Fatalf("%d %.300s", r.status, r.body)
	}
	for i, item := range list {
		if item.Index != i || len(item.Embedding) != 1 || !slices.Equal(item.Embedding[0], testVector(want[i])) {
			t.Errorf("item %d is not the vector of %q", i, want[i])
		}
	}
}

// TestFrigate is what Frigate asks from its start on.
func TestFrigate(t *testing.T) {
	s := speaking(t, nil)
	s.do(t, "GET", "/v1/models", "").wantOK(t) // see TestOpenAIModels
	for _, path := range []string{
		"/props?model=jina-clip-v1", "/upstream/test-clip/props", "/upstream/openai/clip-vit-base-patch32/props", "/upstream/openai%2Fclip-vit-base-patch32/props",
	} {
		var props struct {
			Marker     string `json:"media_marker"`
			Modalities struct{ Vision, Audio bool }
			Settings   struct {
				Context int `json:"n_ctx"`
			} `json:"default_generation_settings"`
			Template *string `json:"chat_template"`
		}
		r := s.do(t, "GET", path, "")
		if noError(t, json.Unmarshal(r.body, &props)); r.status != 200 || props.Marker != "<__media__>" || !props.Modalities.Vision ||
			props.Modalities.Audio || props.Settings.Context != 77 || props.Template == nil {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	long := strings.Repeat("a person walks by ", 100)
	r := s.post(t, "/embeddings", `{"model":"test-clip","content":[{"prompt_string":"`+long+`"}]}`)
	if r.header.Get("X-Clip-Truncated") != "1" {
		t.Error("the description is not cut")
	}
	wantLlamaCPP(t, r, long)

	var thumbnails, want []string
	for i := range 32 {
		want = append(want, "thumbnail "+string(rune('A'+i)))
		thumbnails = append(thumbnails, `{"prompt_string":"<__media__>\n","multimodal_data":["`+b64(want[i])+`"]}`)
	}
	wantLlamaCPP(t, s.post(t, "/embeddings", `{"model":"test-clip","content":[`+strings.Join(thumbnails, ",")+`]}`), want...)

	for body, want := range map[string]string{
		`{"content":"x"}`: "x", `{"content":{"prompt_string":"y"}}`: "y", `{"content":["z"],"embd_normalize":2,"encoding_format":"base64"}`: "z",
	} {
		wantLlamaCPP(t, s.post(t, "/embedding", body), want)
		wantLlamaCPP(t, s.post(t, "/embeddings", body), want)
	}
}

func TestFrigateErrors(t *testing.T) {
	s := speaking(t, nil)
	want := func(r reply, status int, kind, message string) {
		t.Helper()
		var body struct {
			Error struct {
				Code          int
				Message, Type string
			}
		}
		if json.Unmarshal(r.body, &body) != nil || r.status != status || body.Error.Code != status || body.Error.Type != kind || !strings.Contains(body.Error.Message, message) {
			t.Errorf("%d %s, want %d %s %q", r.status, r.body, status, kind, message)
		}
	}
	for _, c := range [...]struct {
		body          string
		status        int
		kind, message string
	}{
		{`{"content":[]}`, 400, "invalid_request_error", "'content' is empty"},
		{`{"content":[1,2]}`, 400, "invalid_request_error", "tokens"},
		{`{"content":[{"prompt_string":"what is <__media__>","multimodal_data":["aGk="]}]}`, 400, "invalid_request_error", "a text and an image"},
		{`{"content":[{"prompt_string":"<__media__><__media__>","multimodal_data":["aGk=","aGk="]}]}`, 400, "invalid_request_error", "one image"},
		{`{"content":[{"prompt_string":"<__media__>","multimodal_data":["` + b64(notAnImage) + `"]}]}`, 400, "invalid_request_error", "content[0]"},
		{`{"content":"x","model":"jinav2"}`, 404, "not_found_error", "jinav2"},
		{`{"content":[{"prompt_string":"","multimodal_data":["` + b64(lostDevice) + `"]}]}`, 503, "unavailable_error", "not available"},
		{`{"content":[{"prompt_string":"","multimodal_data":["` + b64(panickingImage) + `"]}]}`, 500, "server_error", "request_id"},
	} {
		want(s.post(t, "/embeddings", c.body), c.status, c.kind, c.message)
		want(s.post(t, "/embedding", c.body), c.status, c.kind, c.message)
	}
	want(s.post(t, "/embedding", `{}`), 400, "invalid_request_error", "Missing")
	for _, path := range []string{"/upstream/jinav2/props", "/upstream/test-clip", "/upstream/props", "/upstream/test-clip/slots"} {
		want(s.do(t, "GET", path, ""), 404, "not_found_error", "no such model")
	}
}

// TestSharedPaths: what OpenAI's and llama.cpp's interfaces have in common is there with one of them, too.
func TestSharedPaths(t *testing.T) {
	const input, content = `{"input":"x"}`, `{"content":"x"}`
	openAI := speaking(t, func(c *compat.Config) { *c = compat.Config{OpenAI: true} })
	wantVectors(t, openAI.post(t, "/embeddings", input), false, 3, "x")
	wantVectors(t, openAI.post(t, "/v1/embeddings", content), false, 3, "x")
	wantOpenAIError(t, openAI.post(t, "/embeddings", `{}`), 400, "invalid_request_error", "invalid_request", "input", "Missing")
	frigate := speaking(t, func(c *compat.Config) { *c = compat.Config{Frigate: true} })
	wantLlamaCPP(t, frigate.post(t, "/embeddings", content), "x")
	wantLlamaCPP(t, frigate.post(t, "/embeddings", input), "x")
	for _, c := range [...]struct {
		s            *service
		method, path string
		status       int
	}{
		{openAI, "GET", "/v1/models", 200}, {openAI, "GET", "/v1/models/" + testModel, 200}, {openAI, "GET", "/models", 200},
		{openAI, "GET", "/props", 404}, {openAI, "POST", "/embedding", 404}, {openAI, "GET", "/upstream/test-clip/props", 404},
		{frigate, "GET", "/v1/models", 200}, {frigate, "GET", "/v1/models/" + testModel, 404}, {frigate, "GET", "/models", 404},
		{frigate, "POST", "/v1/embeddings", 404}, {frigate, "POST", "/embeddings_image", 404},
	} {
		if r := c.s.do(t, c.method, c.path, input, "Content-Type", "application/json"); r.status != c.status {
			t.Errorf("%s %s: %d %.100s, want %d", c.method, c.path, r.status, r.body, c.status)
		}
	}
}
