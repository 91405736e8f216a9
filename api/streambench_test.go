package api

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// asked is a client of a WebSocket that allocates nothing.
type asked struct {
	net.Conn
	*bufio.Reader
	head   [2]byte
	answer [1 << 16]byte
}

func (s *service) askFrames(t testing.TB, first string) *asked {
	t.Helper()
	c := must(net.Dial("tcp", s.addr))
	t.Cleanup(func() { c.Close() })
	a := &asked{Conn: c, Reader: bufio.NewReader(c)}
	_, err := io.WriteString(c, upgradeHead+string(clientFrame(true, 1, []byte(first))))
	noError(t, err)
	if resp, err := http.ReadResponse(a.Reader, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return a
}

// ask sends a frame, as clientFrame has it, and reads its answer.
func (a *asked) ask(t testing.TB, frame []byte) {
	_, err := a.Conn.Write(frame)
	if err == nil {
		_, err = io.ReadFull(a.Reader, a.head[:])
	}
	length := int(a.head[1])
	if length == 126 && err == nil {
		_, err = io.ReadFull(a.Reader, a.head[:])
		length = int(binary.BigEndian.Uint16(a.head[:]))
	}
	if err == nil {
		_, err = io.ReadFull(a.Reader, a.answer[:length])
	}
	if err != nil || !bytes.Contains(a.answer[:length], []byte(`"classifications":[{`)) {
		t.Fatalf("%v %s", err, a.answer[:length])
	}
}

// rawImage is goodImage without a file around it.
func rawImage() []byte {
	b := make([]byte, testSize*testSize*3)
	binary.LittleEndian.PutUint16(b, uint16(len(goodImage)))
	copy(b[2:], goodImage)
	return b
}

// byRaw has raw frames answered one by one.
var byRaw = fmt.Sprintf(`{"prompts":[%q,"x"],"policy":"queue","top_k":1,"format":"rgb24; %dx%d"}`, goodImage, testSize, testSize)

// TestFrameAllocations: from the bytes of a raw frame to those of its answer one allocation at most, beside three of the device of
// the tests.
func TestFrameAllocations(t *testing.T) {
	plainOnly(t)
	if raceEnabled() {
		t.Skip("pools drop things at random under the race detector")
	}
	s := serve(t, nil)
	a, frame := s.askFrames(t, byRaw), clientFrame(true, 2, rawImage())
	for range 100 {
		a.ask(t, frame)
	}
	if n := testing.AllocsPerRun(500, func() { a.ask(t, frame) }); n > 3+1 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkWebSocketFrame is all of a frame on a WebSocket, client included, with a device that costs next to nothing but three
// allocations: raw, without decoding, and as an image file with many bytes behind it.
func BenchmarkWebSocketFrame(b *testing.B) {
	for _, c := range []struct {
		name, first string
		frame       []byte
	}{
		{"raw=3KiB", byRaw, rawImage()},
		{"image=20KiB", byPrompts, imageFile(goodImage + strings.Repeat("\xff", 17<<10))},
		{"image=100KiB", byPrompts, imageFile(goodImage + strings.Repeat("\xff", 97<<10))},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := serve(b, nil)
			a, frame := s.askFrames(b, c.first), clientFrame(true, 2, c.frame)
			for range 100 {
				a.ask(b, frame)
			}
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				a.ask(b, frame)
			}
		})
	}
}

// BenchmarkTransports compares what a frame costs client and service together: on a WebSocket, as the body of a request, and as
// base64 in JSON, each on one connection. cpu-us/op is the time of processors.
func BenchmarkTransports(b *testing.B) {
	image := imageFile(goodImage + strings.Repeat("\xff", 97<<10))
	coded := fmt.Sprintf(`{"image":%q,"prompts":[%q,"x"],"top_k":1}`, base64.StdEncoding.EncodeToString(image), goodImage)
	request := func(query, kind string, body []byte) []byte {
		return fmt.Appendf(nil, "POST /v1/classify%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", query, kind, len(body), body)
	}
	ask := func(a *asked, b *testing.B, frame []byte) {
		_, err := a.Conn.Write(frame)
		length := 0
		for err == nil {
			var line []byte
			if line, err = a.ReadSlice('\n'); len(line) == 2 {
				break
			}
			if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
				for _, digit := range bytes.TrimSpace(value) {
					length = 10*length + int(digit-'0')
				}
			}
		}
		if err == nil {
			_, err = io.ReadFull(a.Reader, a.answer[:length])
		}
		if err != nil || !bytes.Contains(a.answer[:length], []byte(`"classifications":[{`)) {
			b.Fatalf("%v %s", err, a.answer[:length])
		}
	}
	for _, c := range []struct {
		name  string
		frame []byte
		ask   func(*asked, *testing.B, []byte)
	}{
		{"websocket", clientFrame(true, 2, image), func(a *asked, b *testing.B, frame []byte) { a.ask(b, frame) }},
		{"binary", request("?top_k=1&prompts=x&prompts="+url.QueryEscape(goodImage), "image/bmp", image), ask},
		{"base64", request("", "application/json", []byte(coded)), ask},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := serve(b, nil)
			a := s.askFrames(b, byPrompts)
			if c.name != "websocket" {
				conn := must(net.Dial("tcp", s.addr))
				b.Cleanup(func() { conn.Close() })
				a = &asked{Conn: conn, Reader: bufio.NewReader(conn)}
			}
			for range 100 {
				c.ask(a, b, c.frame)
			}
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				c.ask(a, b, c.frame)
			}
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}
