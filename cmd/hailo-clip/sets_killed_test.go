package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
)

// putThings begins to make a set of so many labels. The answer is empty where the service ends before.
func putThings(r *running, labels int, templates string) <-chan reply {
	var list []map[string]any
	for i := range labels {
		list = append(list, map[string]any{"name": fmt.Sprint("thing number ", i)})
	}
	body := must(json.Marshal(map[string]any{"labels": list, "templates": templates}))
	answer := make(chan reply, 1)
	go func() {
		req := must(http.NewRequest(http.MethodPut, r.url+"/v1/prompt-sets/things", bytes.NewReader(body)))
		req.Header.Set("Content-Type", "application/json")
		a, _ := read(http.DefaultClient.Do(req))
		answer <- a
	}()
	return answer
}

// TestSetsAfterAKill kills the service while it encodes a set, and while its configuration has another: encoding goes on where
// it was, and after that a restart encodes nothing.
func TestSetsAfterAKill(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	config := configFile(t, "clip: {model: demo, backend: sim}\nprompt_sets:\n  fixed:\n    labels: [{name: a, prompts: [a thing]}]\n")
	r := serve(t, state, "--config", config)
	const total = 7 * 60
	putThings(r, 60, "clip7")
	until(t, "two seconds of encoding", func() bool { return r.stats(t).Sets.Encoded >= 230 }) // at 8.7 ms at least
	if s := r.stats(t).Sets; s.Sets != 2 || s.Encoding == 1 && s.Waiting >= total {
		t.Errorf("%+v", s)
	}
	r.end(t, syscall.SIGKILL, -1)

	r = serve(t, state, "--config", config)
	until(t, "all sets are ready", func() bool { s := r.stats(t).Sets; return s.Sets == 2 && s.Encoding == 0 })
	if s := r.stats(t).Sets; s.Encoded >= total || s.Failed != 0 {
		t.Errorf("after a kill, of %d texts: %+v", total, s)
	}
	r.stop(t)

	r = serve(t, state, "--config", config)
	for name, first := range map[string]string{"things": "thing number 0", "fixed": "a"} {
		a := r.get(t, "/v1/prompt-sets/"+name)
		got := a.body["labels"].([]any)[0].(map[string]any)["name"]
		if a.body["state"] != "ready" || got != first || (a.body["read_only"] == true) != (name == "fixed") {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	if s := r.stats(t); s.Sets.Encoded != 0 || s.Sets.Encoding != 0 {
		t.Errorf("a restart encodes: %+v", s.Sets)
	}
	r.stop(t)
}

// TestStopWhileASetIsEncoded: who waits for the set is told how far it is, and nobody waits for the rest of it.
func TestStopWhileASetIsEncoded(t *testing.T) {
	t.Parallel()
	r := serve(t, t.TempDir(), "--model", "demo", "--backend", "sim")
	put := putThings(r, 100, "imagenet80") // 8,000 texts: more than a minute
	until(t, "it is being encoded", func() bool { return r.stats(t).Sets.Encoded > 0 })
	r.stop(t)
	if a := <-put; a.status != http.StatusCreated || a.body["state"] != "encoding" || a.body["total"] != 8000.0 {
		t.Errorf("%d %.500s", a.status, a.raw)
	}
}
