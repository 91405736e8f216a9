package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// question is a request, and what the service answers to it when it is alone.
type question struct {
	name, path string
	body       []byte
	status     int
	answer     string
}

// ask posts the question. The answer is what is in it of the input: not how long it took, nor the request's id.
func (q question) ask(client *http.Client, url string, deadline int) (status int, answer string, err error) {
	request := must(http.NewRequest(http.MethodPost, url+q.path, bytes.NewReader(q.body)))
	if deadline > 0 {
		request.Header.Set("X-Request-Timeout-Ms", strconv.Itoa(deadline))
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	var got struct{ Embedding, Classifications, Error, Code json.RawMessage }
	err = json.NewDecoder(response.Body).Decode(&got)
	return response.StatusCode, fmt.Sprintf("%s %s %s %s", got.Embedding, got.Classifications, got.Error, got.Code), err
}

// questions are images of all formats, whole and broken, embedded and with prompts, as the service answers them alone.
func questions(t *testing.T, url string) (all []question) {
	t.Helper()
	files := append(must(filepath.Glob("../../stages/decode/testdata/pil/*.*")), must(filepath.Glob(samples+"*.jpg"))...)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	good := 0
	for n, file := range files {
		if strings.HasSuffix(file, ".json") {
			continue
		}
		b := must(os.ReadFile(file))
		broken := slices.Clone(b)
		for i := len(b) / 2; i < len(b); i += 97 {
			broken[i] ^= 0x55
		}
		for i, image := range [][]byte{b, b[:len(b)*2/3], broken} {
			q := question{name: fmt.Sprintf("%s, %d", filepath.Base(file), i), path: "/v1/embed/image"}
			request := map[string]any{"image": base64.StdEncoding.EncodeToString(image)}
			if n%2 == 1 {
				q.path = "/v1/classify"
				request["prompts"] = []string{"a photo of a cat", "prompt of " + q.name, "a drawing"}
			}
			q.body = must(json.Marshal(request))
			var err error
			if q.status, q.answer, err = q.ask(client, url, 0); err != nil {
				t.Fatal(q.name, err)
			}
			if q.status == 200 {
				good++
			} else if q.status != 400 && q.status != 415 && q.status != 413 {
				t.Errorf("%s: %d %s", q.name, q.status, q.answer)
			}
			all = append(all, q)
		}
	}
	if good < len(files) || good == len(all) {
		t.Fatalf("%d of %d are good", good, len(all))
	}
	return all
}

// TestEveryAnswerIsItsOwn has many clients ask at once, with deadlines too short and others that hang up in between:
// whoever is answered gets what the same question gets alone.
func TestEveryAnswerIsItsOwn(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"cpu", "sim"} {
		t.Run(backend, func(t *testing.T) {
			r := serve(t, t.TempDir(), "--backend", backend)
			all := questions(t, r.url)
			const clients, rounds = 48, 60
			var statuses counts
			var running sync.WaitGroup
			for i := range clients {
				running.Go(func() {
					chance := rand.New(rand.NewPCG(uint64(i), 8))
					client := &http.Client{Transport: &http.Transport{}}
					defer client.CloseIdleConnections()
					for range rounds {
						q, deadline := all[chance.IntN(len(all))], 0
						switch chance.IntN(8) {
						case 0:
							deadline = 1 + chance.IntN(30)
						case 1:
							hangUp(t, r.url, q, chance)
							continue
						}
						status, answer, err := q.ask(client, r.url, deadline)
						statuses.add(status)
						switch {
						case err != nil:
							t.Errorf("%s: %v", q.name, err)
						case status == 429, status == 504 && deadline > 0:
						case status != q.status || answer != q.answer:
							t.Errorf("%s: %d %.300s\nalone: %d %.300s", q.name, status, answer, q.status, q.answer)
						}
					}
				})
			}
			running.Wait()
			if statuses.of[200] < clients || statuses.of[400] < clients {
				t.Errorf("too few to tell: %v", statuses.of)
			}
			r.stop(t)
		})
	}
}

// hangUp sends some or all of a question, reads some or none of the answer, and leaves.
func hangUp(t *testing.T, url string, q question, chance *rand.Rand) {
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", q.path, len(q.body), q.body)
	part := chance.IntN(2 * len(text))
	_, _ = io.WriteString(c, text[:min(part, len(text))])
	if part > len(text) && chance.IntN(2) == 0 {
		_, _ = c.Read(make([]byte, 16))
	}
}

// TestNewPromptsTakeTurns has two clients with 1,000 new prompts each before a slow chip. A third
// is answered while theirs wait, and once they have hung up nothing of theirs is left.
func TestNewPromptsTakeTurns(t *testing.T) {
	t.Parallel()
	_, r := slowChip(t, 10)
	pending := func() int { return r.stats(t).Cache.Pending }
	ctx, hangUp := context.WithCancel(t.Context())
	var greedy sync.WaitGroup
	for i := range 2 {
		request, prompts := catRequest(t), make([]string, 1000)
		for n := range prompts {
			prompts[n] = fmt.Sprintf("a photo of a cat, %d of client %d", n, i)
		}
		request["prompts"] = prompts
		post := must(http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/classify", bytes.NewReader(must(json.Marshal(request)))))
		greedy.Go(func() {
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
