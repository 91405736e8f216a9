package client

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
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

// noLeaks fails the test when something it began goes on.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// streamService serves WebSockets, with the library that the service has.
func streamService(t *testing.T, serve func(ctx context.Context, s *websocket.Conn, first []byte)) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/v1/stream" {
			t.Errorf("asked for %s", r.RequestURI)
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 23)
		kind, first, err := c.Read(r.Context())
		if err != nil || kind != websocket.MessageText {
			t.Errorf("first message: %v, %v", kind, err)
			return
		}
		serve(r.Context(), c, first)
	}))
	t.Cleanup(s.Close)
	c := must(New(s.URL, Options{Retries: -1}))
	t.Cleanup(c.Close)
	return c
}

func say(ctx context.Context, c *websocket.Conn, format string, args ...any) {
	_ = c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...))
}

// TestStream sends frames of all lengths at which a header has another form, and looks at what arrives.
func TestStream(t *testing.T) {
	noLeaks(t)
	c := streamService(t, func(ctx context.Context, s *websocket.Conn, first []byte) {
		if want := `{"id":"gate","prompt_set":"door","policy":"queue","events":{"store":true},"frame_header":true}`; string(first) != want {
			t.Errorf("first %s, want %s", first, want)
		}
		for n := 0; ; n++ {
			kind, b, err := s.Read(ctx)
			switch {
			case err != nil:
				if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
					t.Errorf("it ends with %v", err)
				}
				return
			case kind == websocket.MessageText && n%2 == 0:
				say(ctx, s, `{"error":"It says %s","code":"invalid_request"}`, bytes.ReplaceAll(b, []byte(`"`), []byte("'")))
			case kind == websocket.MessageText:
			default:
				seq, ts := binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
				say(ctx, s, `{"seq":%d,"ts":%d,"lag_ms":1.5,"classifications":[{"text":"open","score":0.5,"rank":1}],"sum":%q}`, seq, ts, "x")
				if want := frameOf(int(seq)); !bytes.Equal(b[16:], want) {
					t.Errorf("a frame of %d bytes arrived otherwise", seq)
				}
				say(ctx, s, `{"event":"enter","id":"e%d","stream":"gate","label":"open","score":0.9}`, seq)
			}
		}
	})
	s, err := c.Stream(t.Context(), StreamOptions{ID: "gate", StreamDefinition: StreamDefinition{PromptSet: "door", Policy: PolicyQueue, Events: &StreamEvents{Store: true}}})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{0, 1, 7, 8, 9, 100, 109, 110, 111, 65519, 65520, 65521, 1 << 20}
	for _, n := range sizes {
		if err := s.Send(frameOf(n), uint64(n), -int64(n)); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Receive(); err != nil || m.Answer == nil || m.Answer.Seq != uint64(n) || *m.Answer.TS != -int64(n) || m.Answer.LagMS != 1.5 ||
			!m.Answer.Matched || len(m.Answer.Matches) != 1 || m.Answer.Matches[0].Text != "open" {
			t.Fatalf("%d: %+v, %v", n, m.Answer, err)
		}
		if m, err := s.Receive(); err != nil || m.Event == nil || m.Event.Kind != EventEnter || m.Event.ID != fmt.Sprintf("e%d", n) || m.Event.Label != "open" {
			t.Fatalf("%d: %+v, %v", n, m.Event, err)
		}
	}
	for range 1 + len(sizes)%2 { // of which the service answers one
		if err := s.Change(StreamDefinition{PromptSet: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := s.Receive(); err != nil || m.Err == nil || m.Err.Code != "invalid_request" || m.Err.Message != "It says {'prompt_set':'b'}" {
		t.Errorf("%+v, %v", m, err)
	}
	s.Close()
	s.Close()
	if err := s.Send(nil, 0, 0); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if _, err := s.Receive(); err == nil {
		t.Error("there is something after the end")
	}
}

// frameOf is n bytes, no two frames alike.
func frameOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n)
	}
	return b
}

// TestStreamEnds has all ways in which a stream ends that its client does not close.
func TestStreamEnds(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		end  func(context.Context, *websocket.Conn)
		is   func(error) bool
	}{
		{"refused", func(_ context.Context, s *websocket.Conn) {
			s.Close(websocket.StatusPolicyViolation, "policy: \"late\" is neither latest nor queue")
		},
			func(err error) bool {
				var e *CloseError
				return errors.As(err, &e) && e.Code == 1008 && strings.Contains(err.Error(), "neither latest nor queue")
			}},
		{"stops", func(_ context.Context, s *websocket.Conn) { s.Close(websocket.StatusGoingAway, "") },
			func(err error) bool { var e *CloseError; return errors.As(err, &e) && e.Code == 1001 }},
		{"is gone", func(_ context.Context, s *websocket.Conn) { s.CloseNow() }, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"says nothing of use", func(ctx context.Context, s *websocket.Conn) { say(ctx, s, `{"hello":1}`); s.Read(ctx) },
			func(err error) bool { return errors.Is(err, ErrAnswer) }},
		{"says no JSON", func(ctx context.Context, s *websocket.Conn) { say(ctx, s, `hello`); s.Read(ctx) }, func(err error) bool { return errors.Is(err, ErrAnswer) }},
		{"says too much", func(ctx context.Context, s *websocket.Conn) {
			say(ctx, s, `{"seq":1,"error":%q}`, strings.Repeat("x", 1<<16))
			if _, _, err := s.Read(ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
				t.Error(err)
			}
		}, func(err error) bool {
			return errors.Is(err, ErrAnswer) && strings.Contains(err.Error(), "more than 65536 bytes")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := must(streamService(t, func(ctx context.Context, s *websocket.Conn, _ []byte) { c.end(ctx, s) }).Stream(t.Context(), StreamOptions{MaxMessage: 1 << 16}))
			_, err := s.Receive()
			if !c.is(err) {
				t.Errorf("it ends with %v", err)
			}
			s.Close()
		})
	}
}

// TestStreamContext: the end of the context ends whatever blocks.
func TestStreamContext(t *testing.T) {
	noLeaks(t)
	c := streamService(t, func(context.Context, *websocket.Conn, []byte) { <-t.Context().Done() }) // it never reads on
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := must(c.Stream(ctx, StreamOptions{}))
	var both sync.WaitGroup
	both.Go(func() {
		var err error
		for err == nil { // until no buffer has room
			err = s.Send(make([]byte, 1<<20), 0, 0)
		}
		if !errors.Is(err, why) {
			t.Error(err)
		}
	})
	both.Go(func() {
		if _, err := s.Receive(); !errors.Is(err, why) {
			t.Error(err)
		}
	})
	cancel(why)
	both.Wait()
	s.Close()
}

// TestStreamPings: they are answered by whoever receives, also while a sender waits for room.
func TestStreamPings(t *testing.T) {
	noLeaks(t)
	stuck, begin, ponged := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	c := streamService(t, func(ctx context.Context, s *websocket.Conn, _ []byte) {
		var reader sync.WaitGroup
		defer reader.Wait()
		if _, _, err := s.Read(ctx); err != nil {
			t.Error(err)
		}
		close(begin)
		<-stuck // the client has filled all buffers
		say(ctx, s, `{"seq":1,"lag_ms":1}`)
		reader.Go(func() {
			for {
				if _, _, err := s.Read(ctx); err != nil {
					return
				}
			}
		})
		ponged <- s.Ping(ctx)
		s.CloseNow()
	})
	s := must(c.Stream(t.Context(), StreamOptions{}))
	defer s.Close()
	writes := &counted{ReadWriteCloser: s.conn}
	s.conn = writes
	var sender sync.WaitGroup
	sender.Go(func() {
		for s.Send(make([]byte, 1<<20), 1, 1) == nil {
		}
	})
	<-begin
	writes.untilStuck(t)
	close(stuck)
	for {
		if _, err := s.Receive(); err != nil {
			break
		}
	}
	s.Close()
	sender.Wait()
	if err := <-ponged; err != nil {
		t.Errorf("no pong: %v", err)
	}
}

// counted counts writes that began and that ended.
type counted struct {
	io.ReadWriteCloser
	begun, ended atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.begun.Add(1)
	defer c.ended.Add(1)
	return c.ReadWriteCloser.Write(b)
}

// untilStuck waits until some writes have ended and the last has not; one that was only slow makes the test weaker, not wrong.
func (c *counted) untilStuck(t *testing.T) {
	t.Helper()
	for same, last := 0, int64(0); same < 20; {
		if ended := c.ended.Load(); ended != last || c.begun.Load() == ended {
			same, last = 0, ended
		} else {
			same++
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStreamWrites: a frame is one write, whatever its size.
func TestStreamWrites(t *testing.T) {
	c := streamService(t, func(ctx context.Context, s *websocket.Conn, _ []byte) {
		for {
			if _, _, err := s.Read(ctx); err != nil {
				return
			}
		}
	})
	s := must(c.Stream(t.Context(), StreamOptions{}))
	defer s.Close()
	writes := &counted{ReadWriteCloser: s.conn}
	s.conn = writes
	frame := make([]byte, 100_000)
	for range 10 {
		if err := s.Send(frame, 1, 2); err != nil {
			t.Fatal(err)
		}
	}
	if n := writes.begun.Load(); n != 10 {
		t.Errorf("%d writes for 10 frames", n)
	}
}

// TestStreamHandshake has services that do not speak WebSocket.
func TestStreamHandshake(t *testing.T) {
	noLeaks(t)
	accept := func(header string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+header+"\r\n")
		}
	}
	refuse := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":"It says no","code":%q}`, code)
		}
	}
	for _, c := range []struct {
		name, says string
		handler    http.HandlerFunc
	}{
		{"an older service", "status 404", refuse(404, "not_found")},
		{"a full one", "queue_full", refuse(429, "queue_full")},
		{"an answer that is none", "not a WebSocket", refuse(200, "")},
		{"no key", "not a WebSocket", accept("Connection: Upgrade\r\nUpgrade: websocket\r\n")},
		{"a wrong key", "not a WebSocket", accept("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")},
		{"another protocol", "not a WebSocket", accept("Connection: Upgrade\r\nUpgrade: h2c\r\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			client := must(New(s.URL, Options{Retries: -1}))
			defer client.Close()
			if _, err := client.Stream(t.Context(), StreamOptions{}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
	if _, err := must(New("http://127.0.0.1:1", Options{})).Stream(t.Context(), StreamOptions{StreamDefinition: StreamDefinition{FPS: 0}}); err == nil {
		t.Error("nobody is there")
	}
}

// TestStreamAsksAgain: a service that is full for now is asked again.
func TestStreamAsksAgain(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		c := must(websocket.Accept(w, r, nil))
		defer c.CloseNow()
		c.Read(r.Context())
		c.Read(r.Context())
	}))
	defer s.Close()
	stream, err := must(New(s.URL, Options{})).Stream(t.Context(), StreamOptions{})
	if err != nil || asked != 2 {
		t.Fatal(asked, err)
	}
	stream.Close()
}

// server is a frame as a server sends it.
func server(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

// TestMessages has what a server sends, and what is made of it: the messages and control frames, and how it ends.
func TestMessages(t *testing.T) {
	const limit = 100_000
	long := strings.Repeat("ä", limit/2)
	for _, c := range []struct {
		name, sent string
		got        []string
		ends       string
	}{
		{"nothing", "", nil, "EOF"},
		{"texts", server(0x81, "a") + server(0x81, "") + server(0x81, long), []string{"1a", "1", "1" + long}, "EOF"},
		{"parts", server(0x01, "a") + server(0x00, "b") + server(0x89, "ping") + server(0x80, "c") + server(0x81, "d"), []string{"9ping", "1abc", "1d"}, "EOF"},
		{"an empty part", server(0x01, "") + server(0x80, ""), []string{"1"}, "EOF"},
		{"a rune in parts", server(0x01, "\xc3") + server(0x80, "\xa4"), []string{"1ä"}, "EOF"},
		{"binary", server(0x82, "\xff"), []string{"2\xff"}, "EOF"},
		{"pong", server(0x8a, ""), []string{":"}, "EOF"},
		{"half a head", "\x81", nil, "unexpected EOF"},
		{"half a length", "\x81\x7e\x01", nil, "unexpected EOF"},
		{"half a payload", server(0x81, "abc")[:4], nil, "unexpected EOF"},
		{"half a ping", server(0x89, "abc")[:4], nil, "unexpected EOF"},
		{"too long", server(0x81, long+"a"), nil, "more than 100000 bytes"},
		{"too long in parts", server(0x01, long) + server(0x80, "a"), nil, "more than 100000 bytes"},
		{"a huge promise", "\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", nil, "more than 100000 bytes"},
		{"a promise", "\x81\x7f\x00\x00\x00\x00\x00\x01\x80\x00ab", nil, "unexpected EOF"},
		{"masked", "\x81\x80\x00\x00\x00\x00", nil, "masked"},
		{"compressed", server(0xc1, "a"), nil, "reserved bits"},
		{"an opcode", server(0x83, "a"), nil, "opcode 3"},
		{"a control opcode", server(0x8b, "a"), nil, "opcode 11"},
		{"a long ping", server(0x89, strings.Repeat("a", 126)), nil, "or in parts"},
		{"a ping in parts", server(0x09, "a"), nil, "or in parts"},
		{"a part of nothing", server(0x80, "a"), nil, "wrong order"},
		{"a text in a text", server(0x01, "a") + server(0x81, "b"), nil, "wrong order"},
		{"a part after the end", server(0x81, "a") + server(0x80, "b"), []string{"1a"}, "wrong order"},
		{"a length in too many bytes", "\x81\x7e\x00\x01a", nil, "more bytes than it needs"},
		{"a length in far too many bytes", "\x81\x7f\x00\x00\x00\x00\x00\x00\x01\x00a", nil, "more bytes than it needs"},
		{"no UTF-8", server(0x81, "a\xff"), nil, "not UTF-8"},
	} {
		for name, reader := range map[string]io.Reader{"at once": strings.NewReader(c.sent), "in bytes": iotest.OneByteReader(strings.NewReader(c.sent))} {
			m := newMessages(reader, limit)
			var got []string
			opcode, payload, err := m.next()
			for ; err == nil; opcode, payload, err = m.next() {
				got = append(got, string('0'+opcode)+string(payload))
			}
			if !slices.Equal(got, c.got) || !strings.HasSuffix(err.Error(), c.ends) {
				t.Errorf("%s, %s: %.100q, %v", c.name, name, got, err)
			}
		}
	}
}

func TestCloseFrames(t *testing.T) {
	for payload, want := range map[string]string{
		"": "code 1005", "\x03\xe8": "code 1000", "\x03\xf0because": "code 1008: because", "\x0b\xb8": "code 3000", "\x03": "half a close code",
		"\x03\xed": "close code 1005", "\x00\x00": "close code 0", "\x13\x88": "close code 5000", "\x03\xe8\xff": "not UTF-8",
	} {
		if err := closing([]byte(payload)); !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", payload, err, want)
		}
	}
}

// FuzzMessages: whatever a server sends, messages are within their limit, in order, and the same however the bytes come.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{
		server(0x81, `{"seq":1}`), server(0x01, "a") + server(0x89, "p") + server(0x80, "b") + server(0x88, "\x03\xe8bye"), "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
		server(0x81, strings.Repeat("x", 300)), "\x81\x7e\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		const limit = 256
		all := func(r io.Reader) (said []string, last string) {
			for m := newMessages(r, limit); ; {
				opcode, payload, err := m.next()
				if err != nil {
					return said, err.Error()
				}
				if len(payload) > limit || len(payload) > maxControl && opcode >= opClose || opcode == opContinuation || cap(m.message) > 4*limit {
					t.Fatalf("opcode %d with %d bytes", opcode, len(payload))
				}
				if opcode == opText {
					var m Message
					_ = m.read(payload)
				}
				if opcode == opClose && closing(payload) == nil {
					t.Fatal("a close that is none")
				}
				said = append(said, fmt.Sprintf("%d %q", opcode, payload))
			}
		}
		said, last := all(bytes.NewReader(sent))
		again, lastAgain := all(iotest.HalfReader(bytes.NewReader(sent)))
		if !slices.Equal(said, again) || last != lastAgain {
			t.Errorf("%q, %s\nin halves %q, %s", said, last, again, lastAgain)
		}
	})
}

// TestStreamAnswers reads answers of all kinds.
func TestStreamAnswers(t *testing.T) {
	for text, want := range map[string]string{
		`{"seq":18446744073709551615,"lag_ms":1,"classifications":[]}`:                                     `{"seq":18446744073709551615,"lag_ms":1,"classifications":[],"matched":true}`,
		`{"seq":1,"ts":-5,"lag_ms":1,"classifications":[],"prompt_set":"d","matched":false,"reason":"m"}`:  `{"seq":1,"ts":-5,"lag_ms":1,"classifications":[],"prompt_set":"d","matched":false,"reason":"m"}`,
		`{"seq":1,"dropped":"bad","error":"No image","code":"invalid_image"}`:                              `{"seq":1,"lag_ms":0,"dropped":"bad","error":"No image","code":"invalid_image","classifications":null,"matched":true}`,
		`{"seq":1,"lag_ms":1,"reused":true,"regions":[{"name":"a","matched":false},{"name":"b"}],"new":1}`: `{"seq":1,"lag_ms":1,"reused":true,"classifications":null,"matched":true,"regions":[{"name":"a","classifications":null,"matched":false},{"name":"b","classifications":null,"matched":true}]}`,
	} {
		var m Message
		if err := m.read([]byte(text)); err != nil || m.Answer == nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := must(json.Marshal(m.Answer)); string(got) != want {
			t.Errorf("%s\nis read as %s", text, got)
		}
	}
}

// TestStreamMissed: events that were lost are told.
func TestStreamMissed(t *testing.T) {
	for text, want := range map[string]int{`{"missed":3}`: 3, `{"missed":null}`: -1} {
		var m Message
		if err := m.read([]byte(text)); err != nil || m.Missed == nil || m.Missed.N != want || string(m.Text) != text {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
}

// BenchmarkStreamFrame sends a frame of 100 KiB and receives its answer, over a connection of this machine.
func BenchmarkStreamFrame(b *testing.B) {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := must(websocket.Accept(w, r, nil))
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			_, frame, err := c.Reader(r.Context())
			if err != nil {
				return
			}
			if n, err := bufio.NewReaderSize(frame, 64<<10).WriteTo(io.Discard); err == nil && n > 1000 {
				say(r.Context(), c, `{"seq":1,"lag_ms":1,"classifications":[{"text":"open","score":0.5}]}`)
			}
		}
	})}
	go server.Serve(ln)
	defer server.Close()
	s := must(must(New("http://"+ln.Addr().String(), Options{})).Stream(b.Context(), StreamOptions{}))
	defer s.Close()
	frame := frameOf(100 << 10)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(frame, 1, 1); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Receive(); err != nil {
			b.Fatal(err)
		}
	}
}
