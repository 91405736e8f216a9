package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// TestNewPromptsTakeTurns has two clients with 1,000 new prompts each before a slow chip. A third
// is answered while theirs wait, and once they have hung up nothing of theirs is left.
func TestNewPromptsTakeTurns(t *testing.T) {
	_, r := slowChip(t, 10)
	pending := func() int { return r.stats(t).Cache.Pending }
	ctx, hangUp := context.WithCancel(t.Context())
	var greedy sync.WaitGroup
	for i := range 2 {
		request := map[string]any{"image": sample(t, "cat.jpg")}
		prompts := make([]string, 1000)
		for n := range prompts {
			prompts[n] = fmt.Sprintf("a photo of a cat, %d of client %d", n, i)
		}
		request["prompts"] = prompts
		body := must(json.Marshal(request))
		greedy.Go(func() {
			post, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/classify", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			if answer, err := http.DefaultClient.Do(post); err == nil {
				answer.Body.Close()
				t.Errorf("a greedy client has its answer: %s", answer.Status)
			}
		})
	}
	until(t, "both greedy clients wait", func() bool { return pending() > 1000 })
	r.mustPost(t, "/v1/embed/text", map[string]any{"text": "a photo of a dog"})
	if pending() == 0 {
		t.Error("the modest client was answered after the greedy ones")
	}
	hangUp()
	greedy.Wait()
	until(t, "nothing waits for clients that have gone", func() bool { return pending() == 0 })
}
