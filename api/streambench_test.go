package api

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
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
