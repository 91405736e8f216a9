package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// byPrompts is a first message that has frames answered one by one.
var byPrompts = fmt.Sprintf(`{"prompts":[%q,"x"],"policy":"queue","top_k":1}`, goodImage)

// dial opens a WebSocket and sends its first message.
func (s *service) dial(t testing.TB, first string, headers ...string) *websocket.Conn {
	t.Helper()
	header := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	ws, resp, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(s.url, "http")+"/v1/stream", &websocket.DialOptions{HTTPHeader: header, HTTPClient: s.client})
	noError(t, err)
	if resp.Header.Get(headerRequestID) == "" || resp.Header.Get("Content-Length") != "" {
		t.Error(resp.Status, resp.Header)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	say(t, ws, first)
	return ws
}

func say(t testing.TB, ws *websocket.Conn, text string) {
	t.Helper()
	noError(t, ws.Write(context.Background(), websocket.MessageText, []byte(text)))
}

func show(t testing.TB, ws *websocket.Conn, frame []byte) {
	t.Helper()
	noError(t, ws.Write(context.Background(), websocket.MessageBinary, frame))
}

// hear reads a message.
func hear(t testing.TB, ws *websocket.Conn) (a frameAnswer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, b, err := ws.Read(ctx)
	noError(t, err)
	reply{body: b}.into(t, &a)
	return a
}

// wantClose reads on until the connection is closed, and checks how.
func wantClose(t testing.TB, ws *websocket.Conn, code websocket.StatusCode, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		_, _, err := ws.Read(ctx)
		var closed websocket.CloseError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &closed) || closed.Code != code || !strings.Contains(closed.Reason, reason):
			t.Errorf("%v, want %d %q", err, code, reason)
		}
		return
	}
}

// frameAnswer is what a client may hear: what becomes of a frame, or an error.
type frameAnswer struct {
	Seq             uint64   `json:"seq"`
	TS              *int64   `json:"ts"`
	LagMS           *float64 `json:"lag_ms"`
	Classifications []match  `json:"classifications"`
	Regions         []struct {
		Name            string  `json:"name"`
		Classifications []match `json:"classifications"`
	} `json:"regions"`
	Dropped   string `json:"dropped"`
	Backward  bool   `json:"backward"`
	Error     string `json:"error"`
	Code      string `json:"code"`
	RequestID string `json:"request_id"`
}

// wantTop checks the answer to a frame.
func (a frameAnswer) wantTop(t testing.TB, seq uint64, text string) {
	t.Helper()
	if a.Seq != seq || a.LagMS == nil || len(a.Classifications) == 0 || a.Classifications[0].Text != text {
		t.Errorf("%+v, want %d %q", a, seq, text)
	}
}

// TestWebSocketEnd: after an empty message all frames are answered, and the stream is closed as done.
func TestWebSocketEnd(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, `{"prompts":["x"],"policy":"queue"}`)
	for range 5 {
		show(t, ws, imageFile(goodImage))
	}
	say(t, ws, "")
	for i := range uint64(5) {
		hear(t, ws).wantTop(t, i, "x")
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Error(err)
	}
	s.allReturned(t)
}

func TestWebSocket(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.Warning = "simulated-vectors" })
	ws := s.dial(t, byPrompts, headerRequestID, "mine")
	for i := range uint64(3) {
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, i, goodImage)
	}
	show(t, ws, imageFile(notAnImage))
	if a := hear(t, ws); a.Seq != 3 || a.Dropped != "bad" || a.Code != "invalid_image" || a.Error == "" {
		t.Errorf("%+v", a)
	}
	show(t, ws, nil)
	if a := hear(t, ws); a.Seq != 4 || a.Dropped != "bad" || a.Code != "invalid_image" {
		t.Errorf("%+v", a)
	}
	t.Run("change", func(t *testing.T) {
		say(t, ws, `{"prompts":["y"]}`)
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, 5, "y")
		for _, wrong := range []string{`{"policy":"newest"}`, `{`, `[]`, `{"prompt_set":"nowhere"}`, `{"prompts":[""]}`} {
			say(t, ws, wrong)
			if a := hear(t, ws); a.Error == "" || a.Code == "" || a.RequestID != "mine" || a.LagMS != nil {
				t.Errorf("%s: %+v", wrong, a)
			}
		}
		say(t, ws, `{"regions":[{"name":"left","x":0,"y":0,"w":0.5,"h":1}],"frame_header":true}`)
		show(t, ws, append(encodePrefix(nil, 1<<40, -5), imageFile(goodImage)...))
		a := hear(t, ws)
		if a.Seq != 1<<40 || a.TS == nil || *a.TS != -5 || len(a.Regions) != 1 || a.Regions[0].Name != "left" || a.Regions[0].Classifications[0].Text != "y" {
			t.Errorf("%+v", a)
		}
	})
	noError(t, ws.Close(websocket.StatusNormalClosure, ""))
	s.allReturned(t)
	until(t, func() bool { return strings.Contains(s.log.String(), `"stream ended"`) })
	if strings.Contains(s.log.String(), goodImage) {
		t.Error("the log has a prompt")
	}
}

// encodePrefix appends what comes before a frame.
func encodePrefix(b []byte, seq uint64, ts int64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, seq), uint64(ts))
}

// TestNoMoreFrames: after an empty message all frames are answered before the end.
func TestNoMoreFrames(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, byPrompts)
	for range 8 {
		show(t, ws, imageFile(goodImage))
	}
	say(t, ws, "")
	for i := range uint64(8) {
		hear(t, ws).wantTop(t, i, goodImage)
	}
	wantClose(t, ws, websocket.StatusNormalClosure, "")
	s.allReturned(t)
}

// TestSameAnswersEverywhere: what REST and a WebSocket answer for an image is the same.
func TestSameAnswersEverywhere(t *testing.T) {
	s := serve(t, nil)
	for _, image := range []string{goodImage, "another", notAnImage, truncatedImage, hugeImage, avifImage, failingImage, panickingImage, lostDevice, notFiniteImage} {
		for _, prompts := range [][]string{{"a"}, {goodImage, "b", "c", "d"}, {strings.TrimSpace(strings.Repeat("long ", 100)), "b"}} {
			r := s.post(t, "/v1/classify", classifyBody(image, `,"top_k":2`, prompts...))
			var want struct {
				Classifications []match
				Error, Code     string
			}
			noError(t, json.Unmarshal(r.body, &want))
			ws := s.dial(t, string(must(json.Marshal(map[string]any{"prompts": prompts, "top_k": 2}))))
			show(t, ws, imageFile(image))
			a := hear(t, ws)
			if !slices.Equal(a.Classifications, want.Classifications) || a.Code != want.Code || r.status != 500 && a.Error != want.Error {
				t.Errorf("%q: %+v, REST has %s", image, a, r.body)
			}
			_ = ws.CloseNow()
		}
	}
	t.Run("prompt set", func(t *testing.T) {
		s.json(t, "PUT", "/v1/prompt-sets/pets", `{"labels":[{"name":"cat","prompts":["a cat"],"threshold":{"enter":0.5,"exit":0.4}},{"name":"dog"}],"min_cosine":0.9}`)
		for _, image := range []string{"a cat", "a street"} {
			var want, got struct {
				Classifications []struct {
					match
					Above *bool `json:"above_threshold"`
				}
				Matched           *bool
				Reason, ETag      string
				PromptSet         string `json:"prompt_set"`
				Dropped, LagMS    any
				Error, Code, Etag string
			}
			noError(t, json.Unmarshal(s.post(t, "/v1/classify", `{"image":"`+b64(image)+`","prompt_set":"pets"}`).body, &want))
			ws := s.dial(t, `{"prompt_set":"pets"}`)
			show(t, ws, imageFile(image))
			_, b, err := ws.Read(t.Context())
			noError(t, err)
			noError(t, json.Unmarshal(b, &got))
			if got.Matched == nil || got.PromptSet != "pets" || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, want %+v", b, want)
			}
			_ = ws.CloseNow()
		}
	})
}

func TestFirstMessage(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.ReadTimeout = 200 * time.Millisecond })
	for name, c := range map[string]struct{ first, code string }{
		"no JSON":        {"hello", "invalid_json"},
		"empty":          {"", "invalid_json"},
		"no object":      {"[]", "invalid_request"},
		"nothing":        {"{}", "invalid_request"},
		"policy":         {`{"prompts":["x"],"policy":"WAIT"}`, "invalid_request"},
		"unknown field":  {`{"prompts":["x"],"polcy":"queue"}`, "invalid_request"},
		"unknown set":    {`{"prompt_set":"nowhere"}`, "prompt_set_not_found"},
		"unknown stream": {`{"id":"nowhere"}`, "invalid_request"},
		"bad name":       {`{"id":"../x","prompts":["x"]}`, "invalid_request"},
		"source":         {`{"prompts":["x"],"source":"http://127.0.0.1/"}`, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			ws := s.dial(t, c.first)
			if a := hear(t, ws); a.Code != c.code || a.Error == "" || a.RequestID == "" {
				t.Errorf("%+v", a)
			}
			wantClose(t, ws, websocket.StatusPolicyViolation, c.code+": ")
		})
	}
	t.Run("long", func(t *testing.T) {
		ws := s.dial(t, `{"prompts":["`+strings.Repeat("x", maxDefinitionBytes)+`"]}`)
		wantClose(t, ws, websocket.StatusMessageTooBig, "")
	})
	t.Run("not UTF-8", func(t *testing.T) {
		wantClose(t, s.dial(t, "{\"prompts\":[\"\xff\"]}"), websocket.StatusInvalidFramePayloadData, "UTF-8")
	})
	t.Run("a frame", func(t *testing.T) {
		head, r := s.upgrade(t)
		write(t, head, clientFrame(true, 2, imageFile(goodImage)))
		wantCloseFrame(t, r, 1008, "first message")
	})
	t.Run("none", func(t *testing.T) {
		_, r := s.upgrade(t)
		wantCloseFrame(t, r, 1008, "read_timeout")
	})
	t.Run("fed by another", func(t *testing.T) {
		ws := s.dial(t, `{"id":"one","prompts":["x"]}`)
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, 0, "x")
		wantClose(t, s.dial(t, `{"id":"one"}`), websocket.StatusPolicyViolation, "stream_busy")
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, 1, "x")
		_ = ws.CloseNow()
		until(t, func() bool { return !must(s.svc.Hub.Get("one")).Fed })
		again := s.dial(t, `{"id":"one"}`)
		show(t, again, imageFile(goodImage))
		hear(t, again).wantTop(t, 0, "x")
		noError(t, s.svc.Hub.Delete(t.Context(), "one"))
		wantClose(t, again, websocket.StatusPolicyViolation, "stream_not_found")
	})
	s.allReturned(t)
}

const upgradeHead = "GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// upgrade opens a WebSocket by hand, on a connection that has had a request before.
func (s *service) upgrade(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := s.send(t, askHealth)
	r := bufio.NewReader(c)
	must(read(must(http.ReadResponse(r, nil)))).wantOK(t)
	write(t, c, []byte(upgradeHead))
	wantUpgrade(t, r)
	return c, r
}

func wantUpgrade(t *testing.T, r *bufio.Reader) {
	t.Helper()
	resp := must(http.ReadResponse(r, nil))
	if h := resp.Header; resp.StatusCode != http.StatusSwitchingProtocols || h.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || h.Get("Sec-WebSocket-Extensions") != "" ||
		!strings.EqualFold(h.Get("Upgrade"), "websocket") || !strings.EqualFold(h.Get("Connection"), "Upgrade") {
		t.Fatal(resp.Status, h)
	}
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	_, err := c.Write(b)
	noError(t, err)
}

// clientFrame is a frame of the protocol as clients send them.
func clientFrame(last bool, opcode byte, payload []byte) []byte {
	return append(clientFrameHead(last, opcode, len(payload)), payload...) // the mask is zero
}

func clientFrameHead(last bool, opcode byte, length int) []byte {
	b := []byte{opcode, 0x80}
	if last {
		b[0] |= 0x80
	}
	switch {
	case length < 126:
		b[1] |= byte(length)
	case length < 1<<16:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	default:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, uint64(length))
	}
	return append(b, 0, 0, 0, 0)
}

// serverFrame reads a frame of the protocol; io.EOF where there is none.
func serverFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	head := make([]byte, 2, 10)
	if _, err = io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1])
	if length >= 126 {
		size := 2
		if length == 127 {
			size = 8
		}
		long := make([]byte, 8)
		if _, err = io.ReadFull(r, long[8-size:]); err != nil {
			return 0, nil, err
		}
		length = binary.BigEndian.Uint64(long)
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(r, payload)
	return head[0] & 0xf, payload, err
}

// wantCloseFrame reads frames until the one that closes, and checks it.
func wantCloseFrame(t *testing.T, r io.Reader, code uint16, reason string) {
	t.Helper()
	for {
		opcode, payload, err := serverFrame(r)
		noError(t, err)
		if opcode != 8 {
			continue
		}
		if got := binary.BigEndian.Uint16(payload); got != code || !strings.Contains(string(payload[2:]), reason) {
			t.Errorf("%d %s, want %d %s", got, payload[2:], code, reason)
		}
		return
	}
}

// TestUpgradeRefused: what is no upgrade gets an error as everywhere, and the connection goes on where that can be.
func TestUpgradeRefused(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.AllowedOrigins = []string{"https://friend.example"} })
	without := func(line string) string { return strings.Replace(upgradeHead, line, "", 1) }
	with := func(line string) string { return strings.Replace(upgradeHead, "\r\n\r\n", "\r\n"+line+"\r\n\r\n", 1) }
	for name, c := range map[string]struct {
		head, code string
		status     int
	}{
		"no upgrade":    {without("Upgrade: websocket\r\n"), "upgrade_required", 426},
		"no connection": {without("Connection: keep-alive, Upgrade\r\n"), "upgrade_required", 426},
		"old":           {strings.Replace(upgradeHead, "HTTP/1.1", "HTTP/1.0", 1), "upgrade_required", 426},
		"no key":        {without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "invalid_request", 400},
		"short key":     {strings.Replace(upgradeHead, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1), "invalid_request", 400},
		"two keys":      {with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), "invalid_request", 400},
		"version":       {strings.Replace(upgradeHead, "13", "8", 1), "invalid_request", 400},
		"body":          {with("Content-Length: 3") + "abc", "invalid_request", 400},
		"origin":        {with("Origin: https://evil.example"), "origin_not_allowed", 403},
		"null origin":   {with("Origin: null"), "origin_not_allowed", 403},
		"cross site":    {with("Sec-Fetch-Site: cross-site"), "origin_not_allowed", 403},
		"post":          {strings.Replace(upgradeHead, "GET", "POST", 1), "method_not_allowed", 405},
	} {
		t.Run(name, func(t *testing.T) {
			r := bufio.NewReader(s.send(t, c.head+askHealth))
			resp := must(http.ReadResponse(r, nil))
			must(read(resp)).wantError(t, c.status, c.code, "")
			if c.status == 426 && resp.Header.Get("Upgrade") != "websocket" || strings.Contains(name, "version") && resp.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Error(resp.Header)
			}
			if !resp.Close {
				must(read(must(http.ReadResponse(r, nil)))).wantOK(t)
			}
		})
	}
	t.Run("friend", func(t *testing.T) {
		c := s.send(t, with("Origin: https://friend.example"))
		wantUpgrade(t, bufio.NewReader(c))
	})
	t.Run("close", func(t *testing.T) { // it is that anyway
		c := s.send(t, strings.Replace(upgradeHead, "keep-alive, Upgrade", "Upgrade, close", 1))
		wantUpgrade(t, bufio.NewReader(c))
	})
	t.Run("expect", func(t *testing.T) {
		c := s.send(t, with("Expect: 100-continue"))
		wantUpgrade(t, bufio.NewReader(c))
	})
	t.Run("not ready", func(t *testing.T) {
		s.lose("no device")
		resp := must(http.ReadResponse(bufio.NewReader(s.send(t, upgradeHead)), nil))
		must(read(resp)).wantError(t, 503, "not_ready", "no device")
	})
	t.Run("stopping", func(t *testing.T) {
		s.stopping.Store(true)
		only(t, s.send(t, upgradeHead)).wantError(t, 503, "stopping", "")
	})
}

// TestPipelinedUpgrade: what comes with the head of the upgrade is the first message, and not lost.
func TestPipelinedUpgrade(t *testing.T) {
	s := serve(t, nil)
	c := s.send(t, askHealth+upgradeHead+string(clientFrame(true, 1, []byte(byPrompts)))+string(clientFrame(true, 2, imageFile(goodImage))))
	r := bufio.NewReader(c)
	must(read(must(http.ReadResponse(r, nil)))).wantOK(t)
	wantUpgrade(t, r)
	_, text, err := serverFrame(r)
	noError(t, err)
	var a frameAnswer
	reply{body: text}.into(t, &a)
	a.wantTop(t, 0, goodImage)
	// Nobody takes what follows for requests.
	write(t, c, []byte(askHealth))
	wantCloseFrame(t, r, 1002, "")
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	s.allReturned(t)
}

// TestBrokenSockets does what no client should; each time the service ends the connection, gives all memory back, and goes on.
func TestBrokenSockets(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.ReadTimeout = 300 * time.Millisecond })
	first := clientFrame(true, 1, []byte(byPrompts))
	image := imageFile(goodImage)
	unmasked := []byte{0x82, 1, 'x'}
	cases := map[string]struct {
		sent []byte
		code uint16 // 0: the client leaves
	}{
		"half a head":              {[]byte{0x82}, 0},
		"half a first message":     {first[:len(first)/2], 1008},
		"half a frame":             {append(slices.Clone(first), clientFrame(true, 2, image)[:1000]...), 1008},
		"a frame announced":        {append(slices.Clone(first), clientFrameHead(true, 2, 1<<30)...), 1008},
		"a frame of 2^63":          {append(slices.Clone(first), append([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0, 0)...), 0},
		"half a fragment":          {append(slices.Clone(first), clientFrame(false, 2, image)...), 1008},
		"a new message within one": {append(append(slices.Clone(first), clientFrame(false, 2, image)...), clientFrame(true, 2, image)...), 1002},
		"continuation of nothing":  {append(slices.Clone(first), clientFrame(true, 0, image)...), 1002},
		"reserved bits":            {append(slices.Clone(first), clientFrame(true, 2|0x40, image)...), 1002},
		"opcode":                   {append(slices.Clone(first), clientFrame(true, 3, nil)...), 1002},
		"long ping":                {append(slices.Clone(first), clientFrame(true, 9, make([]byte, 126))...), 1002},
		"too large":                {append(slices.Clone(first), clientFrame(true, 2, make([]byte, s.cfg.MaxBodyBytes+100))...), 1009},
		"too large text":           {append(slices.Clone(first), clientFrame(true, 1, make([]byte, maxDefinitionBytes+1))...), 1009},
		"no prefix":                {append(clientFrame(true, 1, []byte(`{"prompts":["x"],"frame_header":true}`)), clientFrame(true, 2, make([]byte, prefixBytes-1))...), 1008},
		"unmasked":                 {append(slices.Clone(first), unmasked...), 0},
		"garbage":                  {bytes.Repeat([]byte("garbage "), 10000), 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, r := s.upgrade(t)
			_, _ = client.Write(c.sent) // the service may be done before all is sent
			if c.code == 0 {
				client.Close()
				return
			}
			wantCloseFrame(t, r, c.code, "")
		})
	}
	t.Run("close at every point", func(t *testing.T) {
		all := append(append(slices.Clone(first), clientFrame(true, 2, image)...), clientFrame(true, 8, []byte{3, 232})...)
		for at := 0; at < len(all); at += 1 + at/4 {
			client, _ := s.upgrade(t)
			write(t, client, all[:at])
			client.Close()
		}
	})
	ws := s.dial(t, byPrompts)
	show(t, ws, image)
	hear(t, ws).wantTop(t, 0, goodImage)
	_ = ws.CloseNow()
	s.allReturned(t)
	until(t, func() bool { return s.svc.Hub.Stats().Streams == 0 })
}

// TestFragments: a frame in parts, with a ping between them, is one.
func TestFragments(t *testing.T) {
	s := serve(t, nil)
	c, r := s.upgrade(t)
	write(t, c, clientFrame(true, 1, []byte(byPrompts)))
	image := imageFile(goodImage)
	write(t, c, clientFrame(false, 2, image[:100]))
	write(t, c, clientFrame(true, 9, []byte("there?")))
	write(t, c, clientFrame(false, 0, nil))
	write(t, c, clientFrame(false, 0, image[100:101]))
	write(t, c, clientFrame(true, 0, image[101:]))
	opcode, payload, err := serverFrame(r)
	noError(t, err)
	if opcode != 10 || string(payload) != "there?" {
		t.Errorf("%d %s", opcode, payload)
	}
	_, payload, err = serverFrame(r)
	noError(t, err)
	var a frameAnswer
	reply{body: payload}.into(t, &a)
	a.wantTop(t, 0, goodImage)
}

// TestTinyFrames: ten thousand frames that are none are answered one by one, and so are a thousand messages of text.
func TestTinyFrames(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, byPrompts)
	const frames = 10_000
	go func() {
		for range frames {
			if ws.Write(context.Background(), websocket.MessageBinary, []byte{1}) != nil {
				return
			}
		}
	}()
	for i := range uint64(frames) {
		if a := hear(t, ws); a.Seq != i || a.Dropped != "bad" {
			t.Fatalf("%+v, want %d", a, i)
		}
	}
	go func() {
		for range 1000 {
			if ws.Write(context.Background(), websocket.MessageText, []byte("no")) != nil {
				return
			}
		}
	}()
	for range 1000 {
		if a := hear(t, ws); a.Code != "invalid_json" {
			t.Fatalf("%+v", a)
		}
	}
	noError(t, ws.Close(websocket.StatusNormalClosure, ""))
	s.allReturned(t)
}

// TestStalledReader: a client that does not read what it is answered holds up nobody else, and is closed after write_timeout.
func TestStalledReader(t *testing.T) {
	plainOnly(t)
	s := serve(t, func(c *Config, _ *Service) { c.WriteTimeout = 500 * time.Millisecond })
	stalled, _ := s.upgrade(t)
	noError(t, stalled.(*net.TCPConn).SetReadBuffer(4096))
	long := make([]string, 500) // so that the answers fill all buffers soon
	for i := range long {
		long[i] = fmt.Sprintf("%d %s", i, strings.Repeat("x", 200))
	}
	write(t, stalled, clientFrame(true, 1, must(json.Marshal(map[string]any{"prompts": long}))))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		frame := clientFrame(true, 2, imageFile(goodImage))
		for {
			if _, err := stalled.Write(frame); err != nil {
				return
			}
		}
	}()
	ws := s.dial(t, byPrompts)
	for i := uint64(0); ; i++ {
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, i, goodImage)
		select {
		case <-gone:
			until(t, func() bool { return s.svc.Hub.Stats().Streams == 1 })
			return
		default:
		}
	}
}

// TestFramesWithoutMemory: a frame that there is no memory for is answered, in its place, and the stream goes on.
func TestFramesWithoutMemory(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, fmt.Sprintf(`{"prompts":[%q,"x"],"policy":"queue","frame_header":true}`, goodImage))
	framed := func(seq uint64, image []byte) []byte { return append(encodePrefix(nil, seq, int64(seq)), image...) }
	show(t, ws, framed(7, imageFile(goodImage)))
	hear(t, ws).wantTop(t, 7, goodImage)
	s.allReturned(t)
	rest := must(s.bodies.get("somebody", s.cfg.MaxBodyMemoryBytes, 0))
	show(t, ws, framed(8, make([]byte, 500_000)))
	if a := hear(t, ws); a.Seq != 8 || *a.TS != 8 || a.Dropped != "bad" || a.Code != "queue_full" {
		t.Errorf("%+v", a)
	}
	say(t, ws, `{"prompts":["y"]}`)
	if a := hear(t, ws); a.Code != "queue_full" {
		t.Errorf("%+v", a)
	}
	s.bodies.put("somebody", rest)
	show(t, ws, framed(9, imageFile(goodImage)))
	hear(t, ws).wantTop(t, 9, goodImage)
}

// TestSocketStops: what is inside is answered before the client is told to go.
func TestSocketStops(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, byPrompts)
	show(t, ws, imageFile(waitingImage))
	<-s.entered
	idle := s.dial(t, byPrompts)
	show(t, idle, imageFile(notAnImage))
	hear(t, idle)
	fresh, r := s.upgrade(t)
	stopped := s.shutdown()
	wantClose(t, idle, websocket.StatusGoingAway, "stopping: ")
	fresh.Close()
	_ = r
	select {
	case err := <-stopped:
		t.Fatal("it did not wait: ", err)
	default:
	}
	s.release()
	hear(t, ws).wantTop(t, 0, goodImage)
	wantClose(t, ws, websocket.StatusGoingAway, "stopping: ")
	noError(t, <-stopped)
}

// TestSocketStopsAtOnce: when there is no patience, frames are not waited for.
func TestSocketStopsAtOnce(t *testing.T) {
	s := serve(t, nil)
	s.abortTime = time.Minute
	ws := s.dial(t, byPrompts)
	show(t, ws, imageFile(waitingImage))
	<-s.entered
	ctx, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(ctx) }()
	wantClose(t, ws, websocket.StatusGoingAway, "stopping: ")
	if err := <-stopped; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestSocketsHoldTheirPlaces: a WebSocket counts as a connection, and no newcomer gets its place, however long it is silent; one that
// has not said what it wants has no such right.
func TestSocketsHoldTheirPlaces(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxConnections = 2 })
	first, second := s.dial(t, byPrompts), s.dial(t, byPrompts)
	for i, ws := range []*websocket.Conn{first, second} {
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, 0, goodImage)
		_ = i
	}
	only(t, s.sendFrom(t, "127.0.0.2", upgradeHead)).wantError(t, 503, "too_many_connections", "")
	for _, ws := range []*websocket.Conn{first, second} {
		show(t, ws, imageFile(goodImage))
		hear(t, ws).wantTop(t, 1, goodImage)
	}
	_ = second.CloseNow()
	until(t, func() bool { return s.svc.Hub.Stats().Streams == 1 })
	silent := s.send(t, upgradeHead)
	r := bufio.NewReader(silent)
	wantUpgrade(t, r)
	s.sendFrom(t, "127.0.0.2", askHealth)
	if _, err := io.ReadAll(r); err != nil {
		t.Error("the silent one was cut: ", err)
	}
}

// TestPings: a client that answers pings is kept, however silent it is, and one that does not is closed.
func TestPings(t *testing.T) {
	s := newService(t, nil)
	s.pingEvery = 300 * time.Millisecond
	s.listen(t)
	pinged := func(answer bool) (pings int) {
		c, r := s.upgrade(t)
		defer c.Close()
		write(t, c, clientFrame(true, 1, []byte(byPrompts)))
		for pings < 10 {
			opcode, payload, err := serverFrame(r)
			if err != nil || opcode != 9 {
				break
			}
			pings++
			if answer {
				write(t, c, clientFrame(true, 10, payload))
			}
		}
		return pings
	}
	if n := pinged(false); n == 0 || n == 10 {
		t.Errorf("the mute one was asked %d times", n)
	}
	if n := pinged(true); n != 10 {
		t.Errorf("the other one was asked %d times", n)
	}
}

// TestReconnects: a thousand clients that come and go, one way or another, leave nothing behind.
func TestReconnects(t *testing.T) {
	s := serve(t, nil)
	n := 1000
	if testing.Short() || raceEnabled() {
		n = 100
	}
	warm := s.dial(t, byPrompts)
	show(t, warm, imageFile(goodImage))
	hear(t, warm)
	_ = warm.CloseNow()
	settled := func() (goroutines, files int) {
		until(t, func() bool { return s.svc.Hub.Stats().Streams == 0 })
		s.client.CloseIdleConnections()
		until(t, func() bool { return s.listeners[0].count() == 0 })
		return runtime.NumGoroutine(), len(must(os.ReadDir("/proc/self/fd")))
	}
	goroutines, files := settled()
	for i := range n {
		if i%20 == 0 { // a camera, and a listener
			c := s.send(t, pushHead("pushed"+queued)+chunkOf(partOf(black)))
			until(t, func() bool { info, err := s.svc.Hub.Get("pushed"); return err == nil && info.Stats.Answered > 0 })
			if i%100 == 0 { // whose leaving is seen after half a second
				s.listenTo(t, "pushed/events").conn.Close()
			}
			if i%40 == 0 {
				write(t, c, []byte("0\r\n\r\n"))
				must(read(must(http.ReadResponse(bufio.NewReader(c), nil)))).wantOK(t)
			}
			c.Close()
			until(t, func() bool { return s.svc.Hub.Stats().Fed == 0 })
			noError(t, s.svc.Hub.Delete(t.Context(), "pushed"))
		}
		ws := s.dial(t, `{"id":"camera","prompts":["x"],"policy":"queue"}`)
		if i%3 > 0 {
			show(t, ws, imageFile(goodImage))
		}
		if i%3 > 1 {
			hear(t, ws)
			_ = ws.Close(websocket.StatusNormalClosure, "")
		}
		_ = ws.CloseNow()
		until(t, func() bool { return s.listeners[0].count() == 0 })
	}
	noError(t, s.svc.Hub.Delete(t.Context(), "camera"))
	until(t, func() bool {
		g, f := settled()
		return g <= goroutines && f <= files
	})
	s.allReturned(t)
}

// FuzzPrefix: whatever a message with frame_header has, its frame is what is behind the prefix.
func FuzzPrefix(f *testing.F) {
	f.Add(encodePrefix(nil, 1, -1))
	f.Add(encodePrefix(nil, 1<<63, 1<<62))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < prefixBytes {
			return
		}
		seq, ts := parsePrefix((*[prefixBytes]byte)(b))
		if !bytes.Equal(encodePrefix(nil, seq, ts), b[:prefixBytes]) {
			t.Errorf("%d %d of %x", seq, ts, b[:prefixBytes])
		}
	})
}
