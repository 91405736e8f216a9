package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// scripted answers requests for events in turn, and with the last answer for ever.
type scripted struct {
	answers []string // bodies of a stream, or of what else says other
	other   int      // status of the last one; 0: a stream
	media   string   // "": text/event-stream
	lastIDs []string // that were asked with
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	n := len(s.lastIDs)
	s.lastIDs = append(s.lastIDs, r.Header.Get("Last-Event-ID"))
	if r.URL.Path != "/v1/streams/gate/events" || r.Header.Get("Accept") != "text/event-stream" {
		return nil, fmt.Errorf("asked for %s %s", r.URL, r.Header)
	}
	last := n >= len(s.answers)-1
	response := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}}
	text := s.answers[min(n, len(s.answers)-1)]
	if s.other != 0 && last {
		response.StatusCode = s.other
	}
	if s.media != "" {
		response.Header.Set("Content-Type", s.media)
	}
	if text == "refused" {
		return nil, errors.New("connection refused")
	}
	response.Body = io.NopCloser(strings.NewReader(text))
	return response, nil
}

// TestEvents has what a service says over several connections, and what is heard.
func TestEvents(t *testing.T) {
	event := func(id, kind string) string {
		return fmt.Sprintf("id: %s\nevent: %s\ndata: {\"id\":%q,\"event\":%q,\ndata: \"label\":\"open\"}\n\n", id, kind, id, kind)
	}
	for _, c := range []struct {
		name    string
		last    string
		answers []string
		other   int
		media   string
		most    int // the listener leaves after so many
		heard   []string
		ends    string
		lastIDs []string
	}{
		{name: "some", answers: []string{": hello\n\n" + event("1", "enter") + ":\n" + event("2", "exit")}, most: 2, heard: []string{"1 enter", "2 exit"}, lastIDs: []string{""}},
		{name: "goes on", last: "0", answers: []string{event("1", "enter") + "id: 2\ndata: {}\n", "refused", "refused", strings.ReplaceAll(event("3", "exit"), "\n", "\r\n")}, most: 2,
			heard: []string{"1 enter", "3 exit"}, lastIDs: []string{"0", "1", "1", "1"}},
		{name: "missed", answers: []string{"event: missed\ndata: {\"missed\":7}\n\nevent: missed\ndata: {\"missed\":null}\n\n" + event("9", "state")}, most: 3,
			heard: []string{"7 events were missed", "some events were missed", "9 state"}, lastIDs: []string{""}},
		{name: "no such stream", answers: []string{`{"error":"There is none","code":"stream_not_found"}`}, other: 404, most: 9, ends: "stream_not_found", lastIDs: []string{""}},
		{name: "is deleted", answers: []string{event("1", "enter"), `{"error":"There is none","code":"stream_not_found"}`}, other: 404, most: 9, heard: []string{"1 enter"}, ends: "stream_not_found", lastIDs: []string{"", "1"}},
		{name: "stops", answers: []string{event("1", "enter") + "event: end\ndata: {\"error\":\"It stops\",\"code\":\"stopping\"}\n\n", event("2", "exit")}, most: 2,
			heard: []string{"1 enter", "2 exit"}, lastIDs: []string{"", "1"}},
		{name: "ends", answers: []string{event("1", "enter") + "event: end\ndata: {\"error\":\"There is none\",\"code\":\"stream_not_found\"}\n\n"}, most: 9,
			heard: []string{"1 enter"}, ends: "status 404: There is none (stream_not_found)", lastIDs: []string{""}},
		{name: "nobody there", answers: []string{"refused"}, most: 9, ends: "connection refused", lastIDs: []string{""}},
		{name: "full for now", answers: []string{event("1", "enter"), event("2", "enter")}, most: 2, heard: []string{"1 enter", "2 enter"}, lastIDs: []string{"", "1"}},
		{name: "a list", answers: []string{`{"events":[]}`}, media: "application/json", most: 9, ends: "application/json", lastIDs: []string{""}},
		{name: "no JSON", answers: []string{"data: hello\n\n"}, most: 9, ends: "invalid character", lastIDs: []string{""}},
		{name: "too long", answers: []string{"data: " + strings.Repeat("x", 1<<16) + "\n\n"}, most: 9, ends: "a line of more than 65536 bytes", lastIDs: []string{""}},
		{name: "too long in lines", answers: []string{strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 100)}, most: 9, ends: "an event of more than 65536 bytes", lastIDs: []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{answers: c.answers, other: c.other, media: c.media}
				client := must(New("http://service", Options{HTTP: &http.Client{Transport: s}, MaxAnswer: 1 << 16}))
				var heard []string
				ends := ""
				for e, err := range client.Events(t.Context(), "gate", EventsOptions{LastID: c.last}) {
					var missed *Missed
					switch {
					case errors.As(err, &missed):
						heard = append(heard, err.Error())
					case err != nil:
						ends = err.Error()
					default:
						if heard = append(heard, e.ID+" "+e.Kind); e.Label != "open" {
							t.Errorf("%+v", e)
						}
					}
					if len(heard) == c.most {
						break
					}
				}
				if !slices.Equal(heard, c.heard) || !strings.Contains(ends, c.ends) || (ends == "") != (c.ends == "") || !slices.Equal(s.lastIDs, c.lastIDs) {
					t.Errorf("heard %q, then %q, asked from %q", heard, ends, s.lastIDs)
				}
			})
		})
	}
}

// TestEventsSilence: a connection without a sign of life is given up, and opened again.
func TestEventsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		silent := roundTripper(func(r *http.Request) (*http.Response, error) {
			if asked++; asked == 1 {
				body, w := io.Pipe()
				context.AfterFunc(r.Context(), func() { w.CloseWithError(r.Context().Err()) })
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}, Body: body}, nil
			}
			return (&scripted{answers: []string{"data: {\"id\":\"1\"}\n\n"}}).RoundTrip(r)
		})
		c := must(New("http://service", Options{HTTP: &http.Client{Transport: silent}}))
		for e, err := range c.Events(t.Context(), "gate", EventsOptions{}) {
			if err != nil || e.ID != "1" || asked != 2 {
				t.Errorf("%+v, %v after %d", e, err, asked)
			}
			break
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestEventsContext: the end of the context ends a listener that waits for an event.
func TestEventsContext(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		if r.URL.Query().Get("frames") != "true" {
			t.Error(r.URL)
		}
		cancel()
		<-r.Context().Done()
	}))
	defer s.Close()
	n := 0
	for _, err := range must(New(s.URL, Options{})).Events(ctx, "gate", EventsOptions{Frames: true}) {
		if n++; !errors.Is(err, context.Canceled) || n > 1 {
			t.Error(n, err)
		}
	}
}

// FuzzEvents: whatever comes, events are within their limit, and the same however the bytes come.
func FuzzEvents(f *testing.F) {
	for _, seed := range []string{"id: 1\nevent: enter\ndata: {}\n\n", ":\n\n", "data\ndata:\r\ndata: a\n\n\n", "data: {\"missed\":1}\nevent:missed\n\n", "id:\x00\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		const limit = 64
		all := func(r io.Reader) (heard []string) {
			err := readEvents(r, limit, func() {}, func(kind, id string, data []byte) (bool, error) {
				if len(data) > limit {
					t.Fatalf("%d bytes", len(data))
				}
				heard = append(heard, fmt.Sprintf("%q %q %q", kind, id, data))
				l := listening{yield: func(Event, error) bool { return true }}
				_, _ = l.hear(kind, id, data)
				return true, nil
			})
			if err == nil {
				t.Fatal("it ends without an error")
			}
			return append(heard, err.Error())
		}
		if a, b := all(bytes.NewReader(sent)), all(iotest.OneByteReader(bytes.NewReader(sent))); !slices.Equal(a, b) {
			t.Errorf("%q\nin bytes %q", a, b)
		}
	})
}

// TestPush sends frames, some with what looks like the end of one, and looks at what arrives.
func TestPush(t *testing.T) {
	noLeaks(t)
	frames := [][]byte{[]byte("\xff\xd8\xff one"), {}, []byte("\x89PNG\r\n\x1a\n--hailo-clip-frame--\r\n"), frameOf(1 << 20)}
	got := make(chan []byte, len(frames))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		media, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if r.Method+r.RequestURI != "POST/v1/streams/gate%2F1/frames?prompt_set=door" || media != "multipart/x-mixed-replace" || r.ContentLength != -1 {
			t.Errorf("%s %s, %s, %d", r.Method, r.RequestURI, media, r.ContentLength)
		}
		for parts := multipart.NewReader(r.Body, params["boundary"]); ; {
			p, err := parts.NextPart()
			if err != nil {
				break
			}
			n := 0
			fmt.Sscan(p.Header.Get("Content-Length"), &n)
			b, _ := io.ReadAll(p)
			if media := p.Header.Get("Content-Type"); media != "image/jpeg" && media != "image/png" {
				t.Error(media)
			}
			if len(b) < n { // the parser goes by the boundary
				b = frames[2]
				got <- b
				break
			}
			got <- b
		}
		_, _ = io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"stream":"gate/1","frames":4,"answered":3,"bad":1,"skipped":2}`)
	}))
	defer s.Close()
	c := must(New(s.URL, Options{}))
	defer c.Close()
	p := c.Push(t.Context(), "gate/1", PushOptions{PromptSet: "door"})
	for _, f := range frames {
		if err := p.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if r, err := p.Close(); err != nil || r.Stream != "gate/1" || r.Frames != 4 || r.Answered != 3 || r.Bad != 1 || r.Skipped != 2 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	for _, f := range frames[:3] {
		if b := <-got; !bytes.Equal(b, f) {
			t.Errorf("%.50q arrived as %.50q", f, b)
		}
	}
	if err := p.Send(frames[0]); err == nil {
		t.Error("sent after the end")
	}
}

// TestPushEnds has pushes that end before their client is done: refused, and given up.
func TestPushEnds(t *testing.T) {
	noLeaks(t)
	var opened atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if opened.Add(1) == 1 {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error":"There is none","code":"stream_not_found"}`)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer s.Close()
	c := must(New(s.URL, Options{}))
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n, want := range []func(error) bool{
		func(err error) bool { var e *Error; return errors.As(err, &e) && e.Code == "stream_not_found" },
		func(err error) bool { return errors.Is(err, context.Canceled) },
	} {
		p := c.Push(ctx, "gate", PushOptions{})
		var err error
		for i := 0; err == nil; i++ {
			if err = p.Send(make([]byte, 1<<16)); n == 1 && i == 10 {
				cancel()
			}
		}
		_, closed := p.Close()
		if !want(err) || !want(closed) {
			t.Errorf("%d: %v, %v", n, err, closed)
		}
	}
}
