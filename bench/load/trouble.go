package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"hailoclip/api/client"
)

// Kinds of Streams.Trouble: a stream beside those that are measured, of the same kind, which should not notice it.
const (
	Stalled = "stalled" // sends frames, and reads no answers
	Partial = "partial" // stops inside a frame
	Garbage = "garbage" // sends what is no image, as fast as it can
)

// Troubles are all of them.
var Troubles = []string{Stalled, Partial, Garbage}

// troublePause is that before a stream that the service has ended comes again.
const troublePause = 100 * time.Millisecond

// trouble is such a stream until ctx ends; when the service ends it, it comes again.
func (t *Target) trouble(ctx context.Context, kind string, s Streams) {
	for ctx.Err() == nil {
		if s.Kind == StreamWS && kind != Partial {
			t.troubleWS(ctx, kind, s)
		} else {
			t.troubleBody(ctx, kind, s)
		}
		select {
		case <-time.After(troublePause):
		case <-ctx.Done():
		}
	}
}

// troubleWS sends until the service or ctx ends it.
func (t *Target) troubleWS(ctx context.Context, kind string, s Streams) {
	stream, err := t.service.Stream(ctx, client.StreamOptions{StreamDefinition: t.definition(s)})
	if err != nil {
		return
	}
	defer stream.Close()
	if kind == Garbage {
		go func() {
			for err := error(nil); err == nil; {
				_, err = stream.Receive()
			}
		}()
	}
	for seq := uint64(0); stream.Send(t.troubled(kind, seq), seq, 0) == nil && ctx.Err() == nil; seq++ {
		if kind == Stalled {
			sleepUntil(ctx, time.Now().Add(time.Second/time.Duration(max(s.FPS, 1))))
		}
	}
}

// troubled is the next frame of a stream that does not behave.
func (t *Target) troubled(kind string, seq uint64) []byte {
	images := t.bodies.list
	if kind != Garbage {
		return images[seq%uint64(len(images))].bytes
	}
	b := make([]byte, 1+rand.IntN(10_000))
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// troubleBody is the same with a body: that of a push, or of a WebSocket, which are bytes to a server that waits for more of a frame.
func (t *Target) troubleBody(ctx context.Context, kind string, s Streams) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.Kind == StreamWS {
		t.halfFrame(ctx, s)
		return
	}
	id := fmt.Sprintf("bench-%s-%d", kind, time.Now().UnixNano())
	if _, _, err := t.service.PutStream(ctx, id, t.definition(s)); err != nil {
		return
	}
	defer func() {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = t.service.DeleteStream(within, id)
	}()
	body, w := io.Pipe()
	defer context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })()
	go func() {
		for seq, err := uint64(0), error(nil); err == nil && ctx.Err() == nil; seq++ {
			frame := t.troubled(kind, seq)
			if kind == Partial && seq > 0 {
				_, _ = w.Write(frame[:len(frame)/2])
				return
			}
			if _, err = w.Write(frame); kind == Stalled { // nobody reads the events of this one, and nobody need
				sleepUntil(ctx, time.Now().Add(time.Second/time.Duration(max(s.FPS, 1))))
			}
		}
	}()
	_, _ = t.service.PushBody(ctx, id, body, client.PushOptions{})
}

// halfFrame opens a WebSocket, sends a frame and half of another one, and waits for the end.
func (t *Target) halfFrame(ctx context.Context, s Streams) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base+"/v1/stream", nil)
	if err != nil {
		return
	}
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		request.Header.Set(name, value)
	}
	if t.key != "" {
		request.Header.Set("Authorization", "Bearer "+t.key)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return
	}
	defer response.Body.Close()
	conn, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		return
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	first, _ := json.Marshal(t.definition(s))
	frame := t.troubled(Partial, 0)
	for _, part := range [][]byte{
		unmasked(1, len(first)), first, unmasked(2, len(frame)), frame, unmasked(2, len(frame)), frame[:len(frame)/2],
	} {
		if _, err := conn.Write(part); err != nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, conn)
}

// unmasked is the head of a WebSocket frame with a mask of zeros.
func unmasked(opcode byte, size int) []byte {
	b := []byte{0x80 | opcode, 0x80 | 127, 0, 0, 0, 0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}
	switch {
	case size < 126:
		b = []byte{b[0], 0x80 | byte(size)}
	case size < 1<<16:
		b = []byte{b[0], 0x80 | 126, byte(size >> 8), byte(size)}
	}
	return append(b, 0, 0, 0, 0)
}
