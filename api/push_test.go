package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	pixels "image"
	"image/color"
	"image/jpeg"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hailoclip/api/stream"
)

// black is a JPEG that the device knows as the text "": its first pixels are zero.
var black = func() []byte {
	var b bytes.Buffer
	small := pixels.NewGray(pixels.Rect(0, 0, testSize, testSize))
	small.Set(testSize-1, testSize-1, color.White)
	if err := jpeg.Encode(&b, small, nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}()

// pushHead is the head of a request that pushes frames; more are lines with their ends.
func pushHead(path string, more ...string) string {
	return "POST /v1/streams/" + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + strings.Join(more, "") + "\r\n"
}

func chunkOf(b []byte) string { return fmt.Sprintf("%x\r\n%s\r\n", len(b), b) }

// partOf is a frame as cameras send it.
func partOf(b []byte) []byte {
	return fmt.Appendf(nil, "--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: %d\r\n\r\n%s\r\n", len(b), b)
}

const queued = "/frames?prompts=x&prompts=y&policy=queue"

// pushedAnswer is the answer to frames.
type pushedAnswer struct {
	Stream string
	stream.Counts
	Skipped                int
	Error, Code, RequestID string
}

// wantPushed checks how many frames were answered, and how many bad.
func (r reply) wantPushed(t *testing.T, status, answered, bad, skipped int) {
	t.Helper()
	var a pushedAnswer
	noError(t, json.Unmarshal(r.body, &a))
	if r.status != status || int(a.Answered) != answered || int(a.Bad) != bad || a.Skipped != skipped || int(a.Frames) != answered+bad || (a.Code == "") != (status == 200) {
		t.Errorf("%d %s, want %d with %d answered, %d bad, %d skipped", r.status, r.body, status, answered, bad, skipped)
	}
}

// TestPush pushes frames in the forms in which they come, on connections that are new and that are not; the connection goes on.
func TestPush(t *testing.T) {
	s := serve(t, nil)
	parts := append(append(partOf(black), partOf([]byte("no image"))...), partOf(black)...)
	raw := make([]byte, 4*4*3)
	for name, c := range map[string]struct {
		query, head                 string
		body                        []byte
		answered, bad, skip, status int
	}{
		"no name":    {"", "", parts, 2, 0, 1, 200},
		"multipart":  {"", "Content-Type: multipart/x-mixed-replace;boundary=ffmpeg\r\n", parts, 2, 0, 1, 200},
		"hyphens":    {"", "Content-Type: multipart/x-mixed-replace; boundary=\"--ffmpeg\"\r\n", parts, 2, 0, 1, 200},
		"one by one": {"", "Content-Type: image/jpeg\r\n", bytes.Repeat(black, 3), 3, 0, 0, 200},
		"octets":     {"", "Content-Type: application/octet-stream\r\n", bytes.Repeat(black, 3), 3, 0, 0, 200},
		"nothing":    {"", "", nil, 0, 0, 0, 200},
		"raw":        {"", headerFrame + ": rgb24; 4x4\r\n", bytes.Repeat(raw, 3), 3, 0, 0, 200},
		"raw, cut":   {"&format=rgb24;+4x4", "", append(bytes.Repeat(raw, 2), 1), 2, 0, 1, 200},
		"rate":       {"&fps=0.001", "", bytes.Repeat(black, 1), 1, 0, 0, 200},
		"JSON":       {"", "Content-Type: application/json\r\n", nil, 0, 0, 0, 415},
		"policy":     {"&policy=newest", "", parts, 0, 0, 0, 400},
		"number":     {"&fps=fast", "", parts, 0, 0, 0, 400},
		"format":     {"&format=bmp", "", parts, 0, 0, 0, 400},
	} {
		t.Run(name, func(t *testing.T) {
			conn, ask := s.asker(t, askHealth)
			for _, again := range []bool{false, true} {
				if again {
					ask().wantOK(t)
				}
				query := queued + c.query
				if c.query == "&policy=newest" {
					query = strings.Replace(query, "policy=queue", "policy=newest", 1)
				}
				head := pushHead("x"+query, c.head)
				write(t, conn, []byte(head))
				for at := 0; at < len(c.body); at += 100 {
					if _, err := io.WriteString(conn, chunkOf(c.body[at:min(at+100, len(c.body))])); err != nil {
						break // it has been refused
					}
				}
				_, _ = io.WriteString(conn, "0\r\n\r\n")
				resp := must(http.ReadResponse(bufio.NewReader(conn), nil))
				r := must(read(resp))
				if c.status != 200 {
					var e struct{ Code string }
					noError(t, json.Unmarshal(r.body, &e))
					if r.status != c.status || !r.last && len(c.body) > 0 {
						t.Errorf("%d %s, closed %v", r.status, r.body, r.last)
					}
					return
				}
				r.wantPushed(t, 200, c.answered, c.bad, c.skip)
				if r.last {
					t.Error("the connection is closed")
				}
				noError(t, s.svc.Hub.Delete(t.Context(), "x"))
			}
		})
	}
	s.allReturned(t)
}

// TestPushWithoutImages: a body in which nothing is a frame is refused, and the connection goes on.
func TestPushWithoutImages(t *testing.T) {
	s := serve(t, nil)
	conn, ask := s.asker(t, askHealth)
	write(t, conn, []byte(pushHead("x"+queued)+chunkOf([]byte("hello"))+"0\r\n\r\n"))
	r := must(read(must(http.ReadResponse(bufio.NewReader(conn), nil))))
	if r.wantPushed(t, 400, 0, 0, 0); !bytes.Contains(r.body, []byte(`"code":"invalid_image"`)) {
		t.Errorf("%s", r.body)
	}
	ask().wantOK(t)
	s.allReturned(t)
}

// TestPushIsAsked: who asks whether the body is wanted hears so at once.
func TestPushIsAsked(t *testing.T) {
	s := serve(t, nil)
	c := s.send(t, pushHead("x"+queued, "Expect: 100-continue\r\n"))
	r := bufio.NewReader(c)
	if line := must(r.ReadString('\n')); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatal(line)
	}
	must(r.ReadString('\n'))
	write(t, c, []byte(chunkOf(black)+"0\r\n\r\n"))
	must(read(must(http.ReadResponse(r, nil)))).wantPushed(t, 200, 1, 0, 0)
}

// endlessly pushes frames until the answer is there, and returns that.
func (s *service) endlessly(t *testing.T, path string) reply {
	t.Helper()
	c := s.send(t, pushHead(path))
	done := make(chan struct{})
	defer func() { c.Close(); <-done }()
	go func() {
		defer close(done)
		frame := []byte(chunkOf(partOf(black)))
		for {
			if _, err := c.Write(frame); err != nil {
				return
			}
		}
	}()
	return must(read(must(http.ReadResponse(bufio.NewReader(c), nil))))
}

// TestPushRefused: an answer does not wait for the end of a body that has none.
func TestPushRefused(t *testing.T) {
	s := serve(t, nil)
	s.endlessly(t, "nowhere/frames").wantError(t, 404, "stream_not_found", "nowhere")
	s.endlessly(t, "nowhere/frames?policy=queue").wantError(t, 404, "stream_not_found", "nowhere")
	s.endlessly(t, "a%2Fb/frames").wantError(t, 400, "invalid_request", "name of a stream")
	s.endlessly(t, "x/frames?prompt_set=none").wantError(t, 404, "prompt_set_not_found", "")
	s.endlessly(t, "x/frames?prompts=a&prompt_set=b").wantError(t, 400, "invalid_request", "")
	ws := s.dial(t, `{"id":"taken","prompts":["x"]}`)
	show(t, ws, black)
	hear(t, ws).wantTop(t, 0, "x")
	s.endlessly(t, "taken/frames").wantError(t, 409, "stream_busy", "")
	t.Run("too many", func(t *testing.T) {
		for i := range 15 {
			s.dial(t, fmt.Sprintf(`{"id":"s%d","prompts":["x"]}`, i))
		}
		until(t, func() bool { return s.svc.Hub.Stats().Streams == 16 })
		s.endlessly(t, "more/frames?prompts=x").wantError(t, 429, "queue_full", "too many streams")
	})
	s.lose("no device")
	s.endlessly(t, "x/frames?prompts=a").wantError(t, 503, "not_ready", "")
	s.allReturned(t)
}

// TestPushEnds: what ends a push before its body does is told with the counters of the frames.
func TestPushEnds(t *testing.T) {
	patient := serve(t, nil)
	s := patient
	begin := func(path string) (net.Conn, *bufio.Reader) {
		c := s.send(t, pushHead(path+queued)+chunkOf(partOf(black)))
		until(t, func() bool { i, err := s.svc.Hub.Get(path); return err == nil && i.Stats.Answered == 1 })
		return c, bufio.NewReader(c)
	}
	hasty := func(t *testing.T) {
		s = serve(t, func(c *Config, _ *Service) { c.ReadTimeout = 300 * time.Millisecond })
		t.Cleanup(func() { s = patient })
	}
	t.Run("silence", func(t *testing.T) {
		hasty(t)
		_, r := begin("silent")
		must(read(must(http.ReadResponse(r, nil)))).wantPushed(t, 408, 1, 0, 0)
	})
	t.Run("deleted", func(t *testing.T) {
		_, r := begin("deleted")
		noError(t, s.svc.Hub.Delete(t.Context(), "deleted"))
		must(read(must(http.ReadResponse(r, nil)))).wantPushed(t, 404, 1, 0, 0)
	})
	t.Run("client gone", func(t *testing.T) {
		c, _ := begin("gone")
		write(t, c, []byte(chunkOf(black)))
		c.Close()
		until(t, func() bool { i := must(s.svc.Hub.Get("gone")); return !i.Fed && i.Stats.Answered == 2 })
	})
	t.Run("half a frame", func(t *testing.T) {
		hasty(t)
		c, r := begin("half")
		write(t, c, []byte(chunkOf(black[:len(black)/2])))
		must(read(must(http.ReadResponse(r, nil)))).wantPushed(t, 408, 1, 0, 1)
	})
	t.Run("bad chunk", func(t *testing.T) {
		c, r := begin("chunk")
		write(t, c, []byte("zz\r\n"))
		must(read(must(http.ReadResponse(r, nil)))).wantPushed(t, 400, 1, 0, 0)
	})
	t.Run("no images", func(t *testing.T) {
		c, r := begin("noise")
		go func() {
			noise := []byte(chunkOf(bytes.Repeat([]byte("noise\n"), 10000)))
			for {
				if _, err := c.Write(noise); err != nil {
					return
				}
			}
		}()
		must(read(must(http.ReadResponse(r, nil)))).wantPushed(t, 400, 1, 0, 0)
		c.Close()
	})
	t.Run("stop", func(t *testing.T) {
		s := serve(t, nil)
		c := s.send(t, pushHead("x"+queued)+chunkOf(partOf(black)))
		until(t, func() bool { i, err := s.svc.Hub.Get("x"); return err == nil && i.Stats.Answered == 1 })
		stopped := s.shutdown()
		resp := must(http.ReadResponse(bufio.NewReader(c), nil))
		r := must(read(resp))
		if r.wantPushed(t, 503, 1, 0, 0); !r.last || resp.Header.Get("Retry-After") == "" {
			t.Error(resp.Header)
		}
		c.Close()
		noError(t, <-stopped)
	})
	s.allReturned(t)
}

// TestPushWithoutMemory: frames that there is no memory for go by, and are counted.
func TestPushWithoutMemory(t *testing.T) {
	s := serve(t, nil)
	c := s.send(t, pushHead("x"+queued))
	var taken [][]byte
	for n := uint64(1); ; n++ {
		for s.bodies.available() > 0 { // by so many that each has a right to it
			taken = append(taken, must(s.bodies.get(fmt.Sprint(len(taken)), 1, 0)))
		}
		write(t, c, []byte(chunkOf(black)))
		var st stream.Stats
		until(t, func() bool {
			info, err := s.svc.Hub.Get("x")
			st = info.Stats
			return err == nil && st.Answered+st.Bad == n
		})
		if st.Bad > 0 {
			break
		}
	}
	for i, b := range taken {
		s.bodies.put(fmt.Sprint(i), b)
	}
	write(t, c, []byte(chunkOf(black)+"0\r\n\r\n"))
	r := must(read(must(http.ReadResponse(bufio.NewReader(c), nil))))
	var a pushedAnswer
	if noError(t, json.Unmarshal(r.body, &a)); r.status != 200 || a.Bad != 1 || a.Answered != a.Frames-1 {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.allReturned(t)
}

// TestPushHoldsItsPlace: a push is not slow, however few bytes come.
func TestPushHoldsItsPlace(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxConnections = 1 })
	c := s.send(t, pushHead("x"+queued)+chunkOf(black))
	until(t, func() bool { i, err := s.svc.Hub.Get("x"); return err == nil && i.Stats.Answered == 1 })
	only(t, s.sendFrom(t, "127.0.0.2", posted(classifyBody(goodImage, "", "x")))).wantError(t, 503, "too_many_connections", "")
	only(t, s.sendFrom(t, "127.0.0.2", askHealth)).wantOK(t)
	write(t, c, []byte(chunkOf(black)+"0\r\n\r\n"))
	must(read(must(http.ReadResponse(bufio.NewReader(c), nil)))).wantPushed(t, 200, 2, 0, 0)
}

// TestFFmpegPushes: what it sends, without a Content-Type, is read frame by frame, and it is told when it is killed within one.
func TestFFmpegPushes(t *testing.T) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("needs ffmpeg")
	}
	s := serve(t, nil)
	push := func(ctx context.Context, id string, more ...string) *exec.Cmd {
		args := append([]string{"-v", "error", "-re", "-f", "lavfi", "-i", "color=black:s=320x240:r=100"}, more...)
		return exec.CommandContext(ctx, ffmpeg, append(args, "-f", "mpjpeg", "-flush_packets", "1", "-method", "POST", s.url+"/v1/streams/"+id+queued)...)
	}
	if out, err := push(t.Context(), "whole", "-frames:v", "90").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
	// It does not wait for the answer to its last chunk.
	until(t, func() bool { st := must(s.svc.Hub.Get("whole")).Stats; return st.Frames == 90 && st.Answered == 90 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := push(ctx, "killed")
	noError(t, cmd.Start())
	until(t, func() bool { i, err := s.svc.Hub.Get("killed"); return err == nil && i.Stats.Answered >= 10 })
	cancel()
	_ = cmd.Wait()
	until(t, func() bool { return !must(s.svc.Hub.Get("killed")).Fed })
	s.allReturned(t)
}
