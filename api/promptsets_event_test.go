package api

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
)

// TestEventAsExample: what is stored of an event becomes an example, as the image would have.
func TestEventAsExample(t *testing.T) {
	store := must(event.OpenStore(filepath.Join(t.TempDir(), event.FileName), event.Config{MaxBytes: 1 << 20, MaxAge: time.Hour}))
	t.Cleanup(func() { noError(t, store.Close()) })
	s := serve(t, func(_ *Config, svc *Service) { svc.Store = store })
	s.json(t, "PUT", "/v1/prompt-sets/pets", `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog","prompts":["a dog"]}]}`)
	const path = "/v1/prompt-sets/pets/examples"

	// The image itself tells what an event of it has.
	s.post(t, path, `{"label":"cat","image":"`+b64("my cat")+`"}`)
	examples := func(name string) []sets.Example {
		t.Helper()
		var set sets.Definition
		noError(t, json.Unmarshal(s.do(t, "GET", "/v1/prompt-sets/"+name+"?examples=full", "").body, &set))
		return set.Labels[0].Examples
	}
	first := examples("pets")[0]
	e := event.Event{ID: event.NewID(), Stream: "a", Kind: event.Enter, Model: first.Model, Vector: sets.ParseVector(first.Vector), JPEG: first.Thumbnail}
	bare, foreign := e, e
	bare.ID, bare.Vector = event.NewID(), nil
	foreign.ID, foreign.Model, foreign.JPEG = event.NewID(), "another", nil
	for _, e := range []*event.Event{&e, &bare, &foreign} {
		noError(t, store.Add(context.Background(), e))
	}
	s.json(t, "PUT", "/v1/prompt-sets/other", `{"labels":[{"name":"cat","prompts":["a cat"]}]}`)
	if r := s.post(t, "/v1/prompt-sets/other/examples", `{"label":"cat","event":"`+e.ID+`"}`); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := examples("other"); len(got) != 1 || got[0].ID != first.ID || !slices.Equal(got[0].Thumbnail, first.Thumbnail) || got[0].Model != first.Model {
		t.Errorf("%+v, want %+v", got, first)
	}
	s.post(t, path, `{"label":"cat","event":"`+e.ID+`"}`)
	if got := examples("pets"); len(got) != 1 {
		t.Errorf("it is there twice: %+v", got)
	}
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"unknown":      {`{"label":"cat","event":"` + event.NewID() + `"}`, 404, "event_not_found"},
		"no id":        {`{"label":"cat","event":"../` + e.ID + `"}`, 404, "event_not_found"},
		"a number":     {`{"label":"cat","event":1}`, 400, "invalid_request"},
		"empty":        {`{"label":"cat","event":""}`, 400, "invalid_request"},
		"null":         {`{"label":"cat","event":null}`, 400, "invalid_image"},
		"and a vector": {`{"label":"cat","vector":[1],"event":"` + e.ID + `"}`, 400, "invalid_request"},
		"and an image": {`{"label":"cat","image":"` + b64(goodImage) + `","event":"` + e.ID + `"}`, 400, "invalid_request"},
		"no vector":    {`{"label":"cat","event":"` + bare.ID + `"}`, 400, "invalid_request"},
		"foreign":      {`{"label":"cat","event":"` + foreign.ID + `"}`, 400, "invalid_request"},
		"no label":     {`{"event":"` + e.ID + `"}`, 400, "invalid_request"},
		"other label":  {`{"label":"cow","event":"` + e.ID + `"}`, 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) { s.post(t, path, c.body).wantError(t, c.status, c.code, "") })
	}
	s.post(t, "/v1/prompt-sets/none/examples", `{"label":"cat","event":"`+e.ID+`"}`).wantError(t, 404, "prompt_set_not_found", "")
	if got := examples("pets"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	lost := serve(t, nil) // without a store
	lost.json(t, "PUT", "/v1/prompt-sets/pets", `{"labels":[{"name":"cat","prompts":["a cat"]}]}`)
	lost.post(t, path, `{"label":"cat","event":"`+strings.Repeat("0", 32)+`"}`).wantError(t, 503, "unavailable", "")
}
