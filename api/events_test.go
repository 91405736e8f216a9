package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/pipeline/fair"
)

// sseMessage is one of text/event-stream.
type sseMessage struct{ id, kind, data string }

// eventReader hears the events of a stream.
type eventReader struct {
	*bufio.Reader
	resp *http.Response
	conn net.Conn
}

// listenTo begins to listen, on a connection that has been used before; headers are lines with their ends.
func (s *service) listenTo(t *testing.T, path string, headers ...string) *eventReader {
	t.Helper()
	l := s.tryToListen(t, path, headers...)
	if h := l.resp.Header; l.resp.StatusCode != http.StatusOK || h.Get("Content-Type") != mediaEvents || !l.resp.Close || h.Get("Cache-Control") != "no-store" {
		t.Fatal(l.resp.Status, h)
	}
	if first := must(l.ReadString('\n')); first != ": hailo-clip\n" {
		t.Fatal(first)
	}
	must(l.ReadString('\n'))
	return l
}

func (s *service) tryToListen(t *testing.T, path string, headers ...string) *eventReader {
	t.Helper()
	c, ask := s.asker(t, askHealth)
	ask().wantOK(t)
	fmt.Fprintf(c, "GET /v1/streams/%s HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n%s\r\n", path, strings.Join(headers, ""))
	r := bufio.NewReader(c)
	resp := must(http.ReadResponse(r, nil))
	return &eventReader{r, resp, c}
}

// next reads a message, and goes over comments.
func (l *eventReader) next(t *testing.T) (m sseMessage) {
	t.Helper()
	for {
		line, err := l.ReadString('\n')
		noError(t, err)
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); name {
		case "id":
			m.id = value
		case "event":
			m.kind = value
		case "data":
			m.data = value
		case "":
			if m.kind != "" {
				return m
			}
		}
	}
}

// publish has a change happen in the stream.
func (s *service) publish(stream string, kind event.Kind, label string) *event.Event {
	e := &event.Event{ID: event.NewID(), Stream: stream, Kind: kind, Label: label, Score: 0.5, Time: time.Now()}
	s.svc.Bus.Publish(e)
	return e
}

// open has a stream that is fed by nobody.
func (s *service) open(t *testing.T, id string) {
	t.Helper()
	ws := s.dial(t, fmt.Sprintf(`{"id":%q,"prompts":["x"]}`, id))
	show(t, ws, black)
	hear(t, ws).wantTop(t, 0, "x")
	_ = ws.CloseNow()
	until(t, func() bool { return !must(s.svc.Hub.Get(id)).Fed })
}

func TestListenToEvents(t *testing.T) {
	s := newService(t, nil)
	s.heartbeat = 50 * time.Millisecond
	s.listen(t)
	s.open(t, "door")
	l := s.listenTo(t, "door/events")
	first := s.publish("door", event.Enter, "cat")
	s.publish("window", event.Enter, "cat")
	second := s.publish("door", event.Exit, "cat")
	for _, want := range []*event.Event{first, second} {
		m := l.next(t)
		var e event.Event
		noError(t, json.Unmarshal([]byte(m.data), &e))
		if m.id != want.ID || m.kind != string(want.Kind) || e.ID != want.ID || e.Label != "cat" || e.Stream != "door" {
			t.Errorf("%+v, want %+v", m, want)
		}
	}
	if line := must(l.ReadString('\n')); line != ":\n" {
		t.Errorf("no heartbeat, but %q", line)
	}
	t.Run("again", func(t *testing.T) {
		for _, again := range []*eventReader{s.listenTo(t, "door/events", "Last-Event-ID: "+first.ID+"\r\n"), s.listenTo(t, "door/events?since="+first.ID)} {
			if m := again.next(t); m.id != second.ID {
				t.Errorf("%+v, want %+v", m, second)
			}
			again.conn.Close()
		}
		lost := s.listenTo(t, "door/events", "Last-Event-ID: "+event.NewID()+"\r\n")
		if m := lost.next(t); m.kind != "missed" || m.data != `{"missed":null}` {
			t.Errorf("%+v", m)
		}
		if m := lost.next(t); m.id != first.ID {
			t.Errorf("%+v", m)
		}
		lost.conn.Close()
	})
	t.Run("frames", func(t *testing.T) {
		until(t, func() bool { return s.svc.Hub.Stats().Listeners == 1 })
		frames := s.listenTo(t, "door/events?frames=true")
		ws := s.dial(t, `{"id":"door","events":{"on":"frames"}}`)
		show(t, ws, black)
		hear(t, ws)
		m := frames.next(t)
		var e struct{ Answer frameAnswer }
		noError(t, json.Unmarshal([]byte(m.data), &e))
		if e.Answer.wantTop(t, 0, "x"); m.kind != "frame" || m.id != "" {
			t.Errorf("%+v", m)
		}
		_ = ws.CloseNow()
		frames.conn.Close()
	})
	t.Run("deleted", func(t *testing.T) {
		until(t, func() bool { return !must(s.svc.Hub.Get("door")).Fed })
		noError(t, s.svc.Hub.Delete(t.Context(), "door"))
		if m := l.next(t); m.kind != "end" || !strings.Contains(m.data, "stream_not_found") {
			t.Errorf("%+v", m)
		}
		if _, err := l.ReadByte(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

// TestListenersAreBounded: an address has as many as it may, and a place is free as soon as its listener is gone.
func TestListenersAreBounded(t *testing.T) {
	s := serve(t, nil)
	s.open(t, "door")
	var all []*eventReader
	for range 4 {
		all = append(all, s.listenTo(t, "door/events"))
	}
	more := s.tryToListen(t, "door/events")
	must(read(more.resp)).wantError(t, 429, "queue_full", "listeners")
	all[0].conn.Close()
	until(t, func() bool { return s.svc.Hub.Stats().Listeners == 3 })
	s.listenTo(t, "door/events")
	for i, c := range []struct{ path, code string }{{"nowhere/events", "stream_not_found"}, {"door/events?frames=perhaps", "invalid_request"}, {"door/events?since=yesterday", "invalid_request"}} {
		if r := must(read(s.tryToListen(t, c.path).resp)); !strings.Contains(string(r.body), c.code) {
			t.Errorf("%d: %s", i, r.body)
		}
	}
}

// TestSlowListener: it is told how much it has missed, and nobody waits for it.
func TestSlowListener(t *testing.T) {
	s := serve(t, nil)
	s.open(t, "door")
	slow := s.listenTo(t, "door/events")
	quick := s.listenTo(t, "door/events")
	const events = 2000
	sent := make([]*event.Event, events)
	for i := range sent {
		sent[i] = s.publish("door", event.Enter, strings.Repeat("long ", 4000))
		if m := quick.next(t); m.id != sent[i].ID {
			t.Fatalf("%d: %.100s, want %s", i, m, sent[i].ID)
		}
	}
	heard, missed := 0, 0
	for heard+missed < events {
		m := slow.next(t)
		if m.kind != "missed" {
			heard++
			continue
		}
		var n struct{ Missed int }
		noError(t, json.Unmarshal([]byte(m.data), &n))
		missed += n.Missed
	}
	if missed == 0 || heard+missed != events {
		t.Errorf("%d heard and %d missed of %d", heard, missed, events)
	}
}

// TestListenersHearTheEnd: when the service stops they hear the events of the last frames, and then that it stops.
func TestListenersHearTheEnd(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, `{"id":"door","policy":"queue","prompts":["x"],"events":{"on":"frames"}}`)
	show(t, ws, imageFile(waitingImage))
	<-s.entered
	l := s.listenTo(t, "door/events?frames=1")
	stopped := s.shutdown()
	until(t, func() bool { return s.live.Err() != nil })
	s.release()
	if m := l.next(t); m.kind != "frame" {
		t.Errorf("%+v", m)
	}
	if m := l.next(t); m.kind != "end" || !strings.Contains(m.data, `"code":"stopping"`) {
		t.Errorf("%+v", m)
	}
	noError(t, <-stopped)
}

// kept has events and definitions stored.
func kept(t *testing.T) func(*Config, *Service) {
	return func(_ *Config, svc *Service) {
		store := must(event.OpenStore(filepath.Join(t.TempDir(), "streams.db"), event.Config{MaxBytes: 1 << 20, MaxAge: time.Hour}))
		t.Cleanup(func() { noError(t, store.Close()) })
		svc.Store = store
	}
}

func TestStreams(t *testing.T) {
	s := serve(t, kept(t))
	if r := s.do(t, "GET", "/v1/streams", ""); string(r.body) != `{"streams":[]}` {
		t.Errorf("%s", r.body)
	}
	made := s.json(t, "PUT", "/v1/streams/door", "\xef\xbb\xbf"+`{"prompts":["x","y"],"fps":5}`)
	if made.status != 201 || made.header.Get("Location") != "/v1/streams/door" {
		t.Errorf("%d %s", made.status, made.body)
	}
	var info stream.Info
	noError(t, json.Unmarshal(made.body, &info))
	if info.ID != "door" || info.FPS != 5 || info.Policy != "latest" {
		t.Errorf("%+v", info)
	}
	s.json(t, "PUT", "/v1/streams/door", `{"prompts":["x"]}`).wantOK(t)
	if r := s.do(t, "GET", "/v1/streams/door", ""); r.status != 200 || strings.Contains(string(r.body), `"y"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	ws := s.dial(t, `{"id":"door"}`)
	show(t, ws, imageFile(goodImage))
	hear(t, ws).wantTop(t, 0, "x")
	_ = ws.CloseNow()
	for _, c := range []struct {
		method, path, body string
		status             int
		code, sentence     string
	}{
		{"PUT", "/v1/streams/door", "", 400, "invalid_json", "The body"},
		{"PUT", "/v1/streams/door", "{", 400, "invalid_json", "The body is not valid JSON"},
		{"PUT", "/v1/streams/door", "[]", 400, "invalid_request", "The body"},
		{"PUT", "/v1/streams/door", "{}", 400, "invalid_request", "prompt_set"},
		{"PUT", "/v1/streams/door", `{"prompts":["x"],"policy":"all"}`, 400, "invalid_request", "policy must be"},
		{"PUT", "/v1/streams/door", "{\"prompts\":[\"\xff\"]}", 400, "invalid_json", "UTF-8"},
		{"PUT", "/v1/streams/door", `{"prompts":["` + strings.Repeat("x", maxDefinitionBytes) + `"]}`, 413, "body_too_large", ""},
		{"PUT", "/v1/streams/-", `{"prompts":["x"]}`, 400, "invalid_request", "name of a stream"},
		{"PUT", "/v1/streams/cat", `{"prompt_set":"none"}`, 404, "prompt_set_not_found", ""},
		{"PUT", "/v1/streams/cat", `{"prompts":["x"],"source":"file:///etc/passwd"}`, 400, "invalid_request", ""},
		{"PUT", "/v1/streams/cat", `{"prompts":["x"],"source":"http://user:secret@127.0.0.1/"}`, 400, "invalid_request", "fetch.allow"},
		{"GET", "/v1/streams/cat", "", 404, "stream_not_found", "cat"},
		{"DELETE", "/v1/streams/cat", "", 404, "stream_not_found", "cat"},
		{"GET", "/v1/streams/cat/events", "", 404, "stream_not_found", "cat"},
		{"GET", "/v1/streams/door/events?limit=0", "", 400, "invalid_request", "limit"},
		{"GET", "/v1/streams/door/events?order=up", "", 400, "invalid_request", "order"},
		{"GET", "/v1/events/1234", "", 404, "event_not_found", ""},
		{"DELETE", "/v1/events/" + event.NewID(), "", 404, "event_not_found", ""},
		{"GET", "/v1/events/" + event.NewID() + "/thumbnail", "", 404, "event_not_found", ""},
	} {
		r := s.json(t, c.method, c.path, c.body)
		if r.wantError(t, c.status, c.code, c.sentence); strings.Contains(string(r.body), "secret") {
			t.Errorf("the password is in %s", r.body)
		}
	}
	if r := s.do(t, "DELETE", "/v1/streams/door", ""); r.status != 204 || len(r.body) > 0 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestLargeLists: what callers have written does not grow in the file and in answers, and lists of it are made by few at a time.
func TestLargeLists(t *testing.T) {
	s := serve(t, kept(t))
	text := `{"prompts":["` + strings.Repeat("<&>", maxDefinitionBytes/3-20) + `"]}`
	s.svc.Hub = must(stream.NewHub(stream.Config{MaxStreams: 10, MaxListeners: 8}, stream.Parts{
		Engine: s.svc.Engine, Bus: s.svc.Bus, Store: s.svc.Store, Limits: stream.Limits{Prompts: 10, PromptBytes: len(text)}, Log: s.svc.Log,
	}))
	for i := range 2 {
		if r := s.json(t, "PUT", fmt.Sprint("/v1/streams/s", i), text); r.status != 201 || len(r.body) > len(text)+1000 {
			t.Errorf("%d %.200s", r.status, r.body)
		}
	}
	if r := s.do(t, "GET", "/v1/streams", ""); r.status != 200 || len(r.body) > 2*(len(text)+1000) || !strings.Contains(string(r.body), "<&><&>") {
		t.Errorf("%d: %d bytes for two of %d", r.status, len(r.body), len(text))
	}
	for range spared() {
		defer must(s.telling.Take(t.Context(), fair.Caller{}))()
	}
	for _, path := range []string{"/v1/streams", "/v1/streams/s0/events"} {
		s.do(t, "GET", path, "", "X-Request-Timeout-Ms", "20").wantError(t, 504, "deadline_exceeded", "")
	}
}

func TestEvents(t *testing.T) {
	s := serve(t, kept(t))
	s.json(t, "PUT", "/v1/streams/door", `{"prompts":["x"]}`)
	var ids []string
	for i := range 3 {
		e := &event.Event{ID: event.NewID(), Stream: "door", Kind: event.Enter, Label: "cat", Score: 0.9, Time: time.Now(), Thumbnail: i == 0, Vector: testVector("x")}
		if i == 0 {
			e.JPEG = black
		}
		noError(t, s.svc.Store.Add(t.Context(), e))
		ids = append(ids, e.ID)
	}
	list := func(query string) (found []string) {
		var answer struct{ Events []event.Event }
		r := s.do(t, "GET", "/v1/streams/door/events"+query, "")
		r.wantOK(t)
		noError(t, json.Unmarshal(r.body, &answer))
		for _, e := range answer.Events {
			found = append(found, e.ID)
		}
		return found
	}
	if got := list(""); !slices.Equal(got, ids) {
		t.Errorf("%q, want %q", got, ids)
	}
	if got := list("?limit=1&since=" + ids[0]); !slices.Equal(got, ids[1:2]) {
		t.Errorf("%q", got)
	}
	if got := list("?order=desc"); !slices.Equal(got, []string{ids[2], ids[1], ids[0]}) {
		t.Errorf("%q, want %q reversed", got, ids)
	}
	if got := list("?order=desc&limit=1&since=" + ids[0]); !slices.Equal(got, ids[2:]) {
		t.Errorf("%q", got)
	}
	one := s.do(t, "GET", "/v1/events/"+ids[0], "")
	var e struct {
		event.Event
		Embedding []float32
	}
	noError(t, json.Unmarshal(one.body, &e))
	if one.status != 200 || e.ID != ids[0] || !slices.Equal(e.Embedding, testVector("x")) {
		t.Errorf("%d %s", one.status, one.body)
	}
	if r := s.do(t, "GET", "/v1/events/"+ids[0]+"/thumbnail", ""); r.status != 200 || r.header.Get("Content-Type") != "image/jpeg" || string(r.body) != string(black) {
		t.Errorf("%d %s", r.status, r.header)
	}
	s.do(t, "GET", "/v1/events/"+ids[1]+"/thumbnail", "").wantError(t, 404, "not_found", "thumbnail")
	if r := s.do(t, "DELETE", "/v1/events/"+ids[0], ""); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.do(t, "GET", "/v1/events/"+ids[0], "").wantError(t, 404, "event_not_found", "")
	if got := list(""); !slices.Equal(got, ids[1:]) {
		t.Errorf("%q, want %q", got, ids[1:])
	}
	s.do(t, "DELETE", "/v1/streams/door", "")
	if got := list(""); !slices.Equal(got, ids[1:]) {
		t.Errorf("without the stream: %q", got)
	}
}

// TestNoStore: without a file for them, what need not be kept works.
// TestMissedAtOnce: who comes again is told that events were missed before there is another one.
func TestMissedAtOnce(t *testing.T) {
	s := serve(t, nil)
	s.open(t, "door")
	l := s.listenTo(t, "door/events", "Last-Event-ID: "+event.NewID()+"\r\n")
	defer l.conn.Close()
	if m := l.next(t); m.kind != "missed" || m.data != `{"missed":null}` {
		t.Errorf("%+v", m)
	}
	e := s.publish("door", event.Enter, "cat")
	if m := l.next(t); m.id != e.ID {
		t.Errorf("%+v", m)
	}
}

// TestListenAfterRestart: who comes again after a restart hears the stored events that it has not heard, and then those that come, each once.
func TestListenAfterRestart(t *testing.T) {
	s := serve(t, kept(t))
	s.json(t, "PUT", "/v1/streams/door", `{"prompts":["x"]}`)
	add := func(publish bool) string {
		e := &event.Event{ID: event.NewID(), Stream: "door", Kind: event.Enter, Label: "cat", Time: time.Now()}
		if noError(t, s.svc.Store.Add(t.Context(), e)); publish {
			s.svc.Bus.Publish(e)
		}
		return e.ID
	}
	ids := make([]string, event.MaxList+3)
	var adding sync.WaitGroup // together, so that many are written at once
	for range ids {
		adding.Go(func() { add(false) }) // before the restart
	}
	adding.Wait()
	for i := range ids { // in the order of the file
		since := ""
		if i > 0 {
			since = ids[i-1]
		}
		ids[i] = must(s.svc.Store.List(t.Context(), "door", since, 1))[0].ID
	}
	wants := func(l *eventReader, ids []string) {
		t.Helper()
		for i, id := range ids {
			if m := l.next(t); m.id != id || m.kind != "enter" {
				t.Fatalf("%d: %+v, want %s", i, m, id)
			}
		}
	}
	l := s.listenTo(t, "door/events", "Last-Event-ID: "+ids[0]+"\r\n")
	wants(l, ids[1:])
	ids = append(ids, add(true))
	again := s.listenTo(t, "door/events?since="+ids[2])
	wants(again, ids[3:])
	last := add(true)
	wants(l, []string{ids[len(ids)-1], last})
	wants(again, []string{last})
	l.conn.Close()
	again.conn.Close()
}

func TestNoStore(t *testing.T) {
	s := serve(t, nil)
	s.json(t, "PUT", "/v1/streams/door", `{"prompts":["x"]}`).wantError(t, 503, "unavailable", "")
	s.open(t, "door")
	e := s.publish("door", event.Enter, "cat")
	if r := s.do(t, "GET", "/v1/streams/door/events", ""); r.status != 200 || !strings.Contains(string(r.body), e.ID) {
		t.Errorf("%d %s", r.status, r.body)
	}
	newest := s.publish("door", event.Exit, "cat")
	r := s.do(t, "GET", "/v1/streams/door/events?order=desc&limit=1", "")
	if r.status != 200 || !strings.Contains(string(r.body), newest.ID) || strings.Contains(string(r.body), e.ID) {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.do(t, "GET", "/v1/events/"+e.ID, "").wantError(t, 503, "unavailable", "")
	s.do(t, "DELETE", "/v1/events/"+e.ID, "").wantError(t, 503, "unavailable", "")
}
