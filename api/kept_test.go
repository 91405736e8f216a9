package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"hailoclip/stages/clip"
)

// TestWarning: it is on every answer, the bad ones too.
func TestWarning(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.Warning = "simulated-vectors" })
	const end = "Host: x\r\nConnection: close\r\n\r\n"
	for _, request := range []string{"GET /health HTTP/1.1\r\n" + end, "GET /nowhere HTTP/1.1\r\n" + end, "POST /v1/classify HTTP/1.1\r\n" + end,
		"OPTIONS /v1/classify HTTP/1.1\r\n" + end, "GET /health HTTP/1.1\r\nOrigin: x\r\n" + end, "nonsense\r\n\r\n"} {
		if got := only(t, s.send(t, request)).header.Get("X-Clip-Warning"); got != "simulated-vectors" {
			t.Errorf("%.20q: warning %q", request, got)
		}
	}
	if r := serve(t, nil).do(t, "GET", "/health", ""); r.header.Get("X-Clip-Warning") != "" {
		t.Error("a warning of nothing")
	}
}

// TestNothingKeptPointsIntoABody: what the cache, the log and the caller keep of a request is the
// same after its memory has been given back and overwritten.
func TestNothingKeptPointsIntoABody(t *testing.T) {
	var mu sync.Mutex
	var kept []string
	var records []slog.Record
	s := serve(t, func(_ *Config, svc *Service) {
		svc.Engine = testEngine(t, newDevice(), func(_ *clip.Config, p *clip.Parts) {
			p.Tokenize = func(text string) ([]int32, bool) {
				mu.Lock()
				defer mu.Unlock()
				kept = append(kept, text)
				return tokenize(text)
			}
		})
		svc.Log = slog.New(keeper{mu: &mu, records: &records})
	})
	requests := []string{
		classifyBody(goodImage, "", "first", "second \u00fc", strings.Repeat("long ", 400)), classifyBody(failingImage, "", "third"),
		classifyBody(panickingImage, "", "fourth"), `{"image":"AAAA!AAA","prompts":["x"]}`, classifyBody(goodImage, "", panickingText), `{"image":`, `{"text":"fifth"}`,
	}
	s.client.Transport.(*http.Transport).DisableKeepAlives = true
	for i, body := range requests {
		path := "/v1/classify"
		if i == len(requests)-1 {
			path = "/v1/embed/text"
		}
		s.post(t, path, body, headerRequestID, fmt.Sprint("request-", i))
	}
	s.stop()
	want := []string{"first", "second ü", strings.Repeat("long ", 400), "third", "fourth", panickingText, "fifth"}
	slices.Sort(want)
	if slices.Sort(kept); !slices.Equal(kept, want) {
		t.Errorf("kept %.200q\nwant %.200q", kept, want)
	}
	if len(records) != len(requests) {
		t.Fatalf("%d lines in the log", len(records))
	}
	for i, r := range records {
		r.Attrs(func(a slog.Attr) bool {
			text := a.Value.String()
			if !utf8.ValidString(text) || a.Key == "request_id" && text != fmt.Sprint("request-", i) || a.Key == "path" && !strings.HasPrefix(text, "/v1/") {
				t.Errorf("line %d has %s=%.200q", i, a.Key, text)
			}
			return true
		})
	}
}

// keeper keeps the lines of a log as they were handed to it.
type keeper struct {
	slog.Handler
	mu      *sync.Mutex
	records *[]slog.Record
}

func (k keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k keeper) Handle(_ context.Context, r slog.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	*k.records = append(*k.records, r)
	return nil
}
