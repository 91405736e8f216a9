package api

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// until waits for what other goroutines are about to do.
func until(t testing.TB, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); time.Sleep(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("waited in vain")
		}
	}
}

// TestQueueFull gets the line so full that the next request is refused: one at the device, which has the only frame, one
// that waits for a frame, one behind it, one in the hands of the decoder, and the queue. What is refused need not even be
// JSON, its connection goes on, and a request that does not need the queue is served.
func TestQueueFull(t *testing.T) {
	s := serve(t, nil)
	const decoded = 4
	var inside []net.Conn
	for n := range decoded + testQueue {
		inside = append(inside, s.send(t, posted(classifyBody(waitingImage, "", "x", "y"), "Connection: close\r\n")))
		until(t, func() bool { // this one is as far as it will get: the next one would push it back
			decoder := s.svc.Engine.Stats().Stages[0]
			return decoder.Passed == uint64(min(n+1, decoded)) && decoder.Queued == max(n+1-decoded, 0)
		})
	}
	for _, path := range []string{"/v1/classify", "/v1/embed/image"} {
		for _, body := range []string{classifyBody(goodImage, "", "x"), "not JSON"} {
			r := s.post(t, path, body)
			if r.wantError(t, 429, "queue_full", "queue is full"); r.last {
				t.Errorf("%s: the connection is closed", path)
			}
		}
	}
	s.post(t, "/v1/embed/text", `{"text":"x"}`).wantOK(t)
	only(t, s.send(t, postHead+"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")).wantError(t, 429, "queue_full", "queue is full")
	s.release()
	for _, c := range inside {
		only(t, c).wantOK(t)
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
}

// TestDeadline: request_timeout in the line and at the text encoder, and X-Request-Timeout-Ms, which shortens it.
func TestDeadline(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.RequestTimeout = 50 * time.Millisecond })
	s.post(t, "/v1/classify", classifyBody(waitingImage, "", "x")).wantError(t, 504, "deadline_exceeded", "deadline")
	s.post(t, "/v1/embed/text", `{"text":"`+waitingText+`"}`).wantError(t, 504, "deadline_exceeded", "deadline")
	long := serve(t, func(_ *Config, svc *Service) { svc.RequestTimeout = time.Hour })
	long.post(t, "/v1/classify", classifyBody(waitingImage, "", "x"), headerTimeout, "20").wantError(t, 504, "deadline_exceeded", "deadline")
	// The line had the buffers of these requests to the end, and nobody else had them.
	if r := s.post(t, "/v1/classify", classifyBody(goodImage, "", "x"), headerTimeout, "10000"); r.status != 200 && r.status != 504 {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}

// TestBufferBelongsToTheEngine: a request that has been given up, here because its client is gone,
// leaves its image to the engine, so that the buffer it lies in must not be given to another one.
func TestBufferBelongsToTheEngine(t *testing.T) {
	s := serve(t, nil)
	all := int64(s.cfg.MaxBodyMemoryBytes)
	client := s.send(t, posted(classifyBody(heldImage, "", "x")))
	<-s.entered
	client.Close()
	until(t, func() bool { return strings.Contains(s.log.String(), "client_gone") })
	if free := s.bodies.available(); free == all {
		t.Error("the buffer is free while the engine works on the image")
	}
	s.release()
	until(t, func() bool { return s.bodies.available() == all })
}

// send sends bytes on a connection of its own.
func (s *service) send(t *testing.T, parts ...string) net.Conn {
	t.Helper()
	return s.sendFrom(t, "127.0.0.1", parts...)
}

// sendFrom is send from one of this machine's addresses.
func (s *service) sendFrom(t *testing.T, ip string, parts ...string) net.Conn {
	t.Helper()
	c := must((&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", s.addr))
	if s.Server != nil && s.cfg.TLS.On() {
		c = tlsClient{tls.Client(c, clientTLS), c}
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	for _, part := range parts {
		if _, err := io.WriteString(c, part); err != nil {
			break // the server has answered already
		}
	}
	return c
}

const askHealth = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
const postHead = "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

// posted is a request for /v1/classify with more header lines, each with its end.
func posted(body string, lines ...string) string {
	return fmt.Sprintf("%s%sContent-Length: %d\r\n\r\n%s", postHead, strings.Join(lines, ""), len(body), body)
}

// occupy has a client of its own wait for the device until release.
func (s *service) occupy(t *testing.T) net.Conn {
	t.Helper()
	c := s.send(t, posted(classifyBody(waitingImage, "", "x")))
	<-s.entered
	return c
}

// replies reads answers until the server closes the connection, then closes it too.
func replies(t *testing.T, c net.Conn) (all []reply) {
	t.Helper()
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		if _, err := r.Peek(1); err == io.EOF {
			return all
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal("the answer was cut off: ", err)
		}
		all = append(all, must(read(resp)))
	}
}

// only is the one answer before the server closes the connection.
func only(t *testing.T, c net.Conn) reply {
	t.Helper()
	all := replies(t, c)
	if len(all) != 1 || !all[0].last {
		t.Fatalf("answers: %+v", all)
	}
	return all[0]
}

// asker sends a request again and again on one connection.
func (s *service) asker(t *testing.T, request string) (c net.Conn, ask func() reply) {
	t.Helper()
	c = s.send(t)
	r := bufio.NewReader(c)
	return c, func() reply {
		t.Helper()
		fmt.Fprint(c, request)
		return must(read(must(http.ReadResponse(r, nil))))
	}
}

// TestHostileBytes sends what no HTTP client would.
func TestHostileBytes(t *testing.T) {
	plainOnly(t) // its time limit is too short for a handshake
	patient := serve(t, nil)
	impatient := serve(t, func(c *Config, _ *Service) { c.ReadTimeout = 200 * time.Millisecond })
	good := classifyBody(goodImage, "", "x")
	whole := posted(good)
	chunked := func(chunks ...string) string {
		b := postHead + "Transfer-Encoding: chunked\r\n\r\n"
		for _, c := range chunks {
			b += fmt.Sprintf("%x\r\n%s\r\n", len(c), c)
		}
		return b
	}
	mega := strings.Repeat("A", 1<<18)
	cases := []struct {
		name     string
		send     []string
		statuses []int
		code     string // of the last answer
	}{
		{"half a body", []string{postHead + "Content-Length: 1000\r\n\r\n", `{"image":"`}, []int{408}, "read_timeout"},
		{"half a chunked body", []string{chunked(`{"image":"`)}, []int{408}, "read_timeout"},
		{"a chunk without its line end", []string{postHead + "Transfer-Encoding: chunked\r\n\r\n1\r\n{"}, []int{408}, "read_timeout"},
		{"half a line end of a chunk", []string{postHead + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r"}, []int{408}, "read_timeout"},
		{"half a chunk size", []string{postHead + "Transfer-Encoding: chunked\r\n\r\n1"}, []int{408}, "read_timeout"},
		{"no end of the trailer", []string{chunked(good) + "0\r\n"}, []int{408}, "read_timeout"},
		{"half a trailer", []string{chunked(good) + "0\r\nX-Slow: "}, []int{408}, "read_timeout"},
		{"half a header", []string{"POST /v1/classify HTTP/1.1\r\nHost: x\r\nX-Slow: "}, []int{408}, "read_timeout"},
		{"huge header", []string{"GET /health HTTP/1.1\r\nHost: x\r\nX-Big: ", mega, "\r\n\r\n"}, []int{431}, "header_too_large"},
		{"huge path", []string{"GET /", mega, " HTTP/1.1\r\nHost: x\r\n\r\n"}, []int{431}, "header_too_large"},
		{"not HTTP", []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"}, []int{400}, "malformed_request"},
		{"HTTP/2", []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, []int{400}, "malformed_request"},
		{"no host", []string{"GET /health HTTP/1.1\r\n\r\n"}, []int{400}, "malformed_request"},
		{"two lengths", []string{postHead + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"}, []int{400}, "malformed_request"},
		{"a length of -1", []string{postHead + "Content-Length: -1\r\n\r\n{}"}, []int{400}, "malformed_request"},
		{"Content-Length and Transfer-Encoding", []string{strings.Replace(chunked("{}"), "Transfer-Encoding", "Content-Length: 5\r\nTransfer-Encoding", 1) + "0\r\n\r\n"},
			[]int{400}, "malformed_request"},
		{"Transfer-Encoding and Content-Length first", []string{"POST /v1/classify HTTP/1.1\r\ncontent-length: 5\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
			[]int{400}, "malformed_request"},
		{"broken chunk", []string{postHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"}, []int{400}, "malformed_request"},
		{"chunked body over the limit", []string{chunked(mega, mega, mega, mega, mega), "0\r\n\r\n"}, []int{413}, "body_too_large"},
		{"endless chunked body", append([]string{chunked(mega)}, strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(mega), mega), 30)), []int{413}, "body_too_large"},
		{"promised body over the limit", []string{postHead + "Content-Length: 1048577\r\n\r\n", mega}, []int{413}, "body_too_large"},
		{"promised body beyond memory", []string{postHead + "Content-Length: 1000000000000000\r\n\r\n", mega}, []int{413}, "body_too_large"},
		{"promised body over the limit, not sent", []string{postHead + "Content-Length: 1048577\r\n\r\n"}, []int{408}, "read_timeout"},
		{"body over the limit with Expect", []string{postHead + "Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", mega}, []int{413}, "body_too_large"},
		{"large body to a path that is not there", []string{"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n", mega, mega, mega, mega}, []int{404}, "not_found"},
		{"large body of the wrong type", []string{"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: 1048576\r\n\r\n", mega, mega, mega, mega}, []int{415}, "unsupported_media_type"},
		{"pipelined", []string{whole + whole + "GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + whole + "GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
			[]int{200, 200, 200, 200, 404}, "not_found"},
		{"pipelined behind an error", []string{postHead + "Content-Length: 2\r\n\r\n{}" + whole + "GET /nowhere HTTP/1.0\r\n\r\n"}, []int{400, 200, 404}, "not_found"},
		{"chunked byte by byte", []string{chunked(strings.Split(good, "")...) + "0\r\n\r\nGET /nowhere HTTP/1.0\r\n\r\n"}, []int{200, 404}, "not_found"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := patient
			if c.code == "read_timeout" {
				s = impatient
			}
			all := replies(t, s.send(t, c.send...))
			var statuses []int
			for _, r := range all {
				statuses = append(statuses, r.status)
			}
			if fmt.Sprint(statuses) != fmt.Sprint(c.statuses) {
				t.Fatalf("got %v, want %v", statuses, c.statuses)
			}
			last := all[len(all)-1]
			last.wantError(t, last.status, c.code, "")
			if !last.last {
				t.Error("the connection stays open")
			}
		})
	}
}

// TestHostileJSON sends bodies that are made to take time or memory.
func TestHostileJSON(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxBodyBytes = 16 << 20 })
	image := b64(goodImage)
	cases := []struct {
		name, body string
		status     int
		code       string
	}{
		{"nested 200000 deep", `{"x":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + `,"image":"` + image + `","prompts":["x"]}`, 400, "invalid_json"},
		{"nested and never closed", strings.Repeat(`{"x":`, 1_000_000), 400, "invalid_json"},
		{"prompts nested", `{"image":"` + image + `","prompts":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + `}`, 400, "invalid_prompts"},
		{"five million prompts", `{"image":"` + image + `","prompts":[` + strings.Repeat(`"",`, 5_000_000) + `""]}`, 400, "invalid_prompts"},
		{"a prompt of 15 MB", `{"image":"` + image + `","prompts":["` + strings.Repeat("x", 15<<20) + `"]}`, 400, "invalid_prompts"},
		{"a million fields", `{"image":"` + image + `",` + strings.Repeat(`"x":1,`, 1_000_000) + `"prompts":["x"]}`, 200, ""},
		{"top_k with a million digits", `{"image":"` + image + `","prompts":["x"],"top_k":` + strings.Repeat("9", 1_000_000) + `}`, 400, "invalid_request"},
		{"base64 of line breaks", `{"image":"` + strings.Repeat(`\n`, 5<<20) + `","prompts":["x"]}`, 400, "invalid_image"},
		{"invalid UTF-8 in an image", `{"image":"` + image + strings.Repeat("\xff", 1<<20) + `","prompts":["x"]}`, 400, "invalid_json"},
		{"data URI without end", `{"image":"data:` + strings.Repeat(";", 15<<20) + `","prompts":["x"]}`, 400, "invalid_image"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := s.post(t, "/v1/classify", c.body)
			if len(r.body) > 1000 {
				t.Errorf("an answer of %d bytes", len(r.body))
			}
			if c.status == 200 {
				r.wantOK(t)
			} else {
				r.wantError(t, c.status, c.code, "")
			}
		})
	}
}
