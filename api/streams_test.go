package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// dial opens a WebSocket and sends its first message.
func (s *service) dial(t testing.TB, first string) *websocket.Conn {
	t.Helper()
	ws, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.url, "http")+"/v1/stream", nil)
	noError(t, err)
	if resp.StatusCode != 101 || resp.Header.Get(headerRequestID) == "" {
		t.Fatal(resp.Status, resp.Header)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	noError(t, ws.Write(t.Context(), websocket.MessageText, []byte(first)))
	return ws
}

// hear reads a message of text into v.
func hear(t testing.TB, ws *websocket.Conn, v any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kind, b, err := ws.Read(ctx)
	noError(t, err)
	if kind != websocket.MessageText {
		t.Fatal(kind)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}

// frameAnswer is what becomes of a frame.
type frameAnswer struct {
	Seq             uint64  `json:"seq"`
	TS              *int64  `json:"ts"`
	LagMS           float64 `json:"lag_ms"`
	Classifications []match `json:"classifications"`
	Dropped         string  `json:"dropped"`
	Error           string  `json:"error"`
	Code            string  `json:"code"`
}

func TestWebSocket(t *testing.T) {
	s := serve(t, nil)
	ws := s.dial(t, fmt.Sprintf(`{"prompts":[%q,"x"],"policy":"queue","top_k":1}`, goodImage))
	for i := range 5 {
		noError(t, ws.Write(t.Context(), websocket.MessageBinary, imageFile(goodImage)))
		var a frameAnswer
		hear(t, ws, &a)
		if a.Seq != uint64(i) || len(a.Classifications) != 1 || a.Classifications[0].Text != goodImage {
			t.Errorf("%+v", a)
		}
	}
	noError(t, ws.Close(websocket.StatusNormalClosure, ""))
	s.allReturned(t)
}
