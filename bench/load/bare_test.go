package load

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// TestBare puts the bare handler under load with each kind of body; it tells what its process has used.
func TestBare(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeBare(ctx, ln) }()
	image, err := Photo(32, 32, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{JSON, Binary, Raw, Multipart} {
		bodies, err := NewBodies([]Image{{Name: "one", Data: image}}, Ask{Body: kind, Prompts: 2})
		if err != nil {
			t.Fatal(err)
		}
		if body, _, _ := bodies.get(new([]byte)); kind == Multipart && !strings.HasSuffix(string(body), "\r\n--hailo-clip-bench--\r\n") {
			t.Errorf("a form without an end: %q", body[len(body)-40:])
		}
		target, err := NewTarget("http://"+ln.Addr().String(), "", bodies, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := target.Check(ctx); err != nil || target.snapshot() == nil || target.snapshot().Process.CPUSeconds == 0 {
			t.Errorf("%s: %v, %+v", kind, err, target.snapshot())
		}
		target.Close()
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
