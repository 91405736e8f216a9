package npu

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"hailoclip/hailo/npu/wire"
)

func newCall(ctx context.Context, n int) *textCall {
	return &textCall{ctx: ctx, tokens: make([][]int32, n), open: n, vectors: make([][]float32, n), done: make(chan struct{})}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Every batch has one text of each call in turn.
func TestTextQueueIsFair(t *testing.T) {
	var q textQueue
	q.init()
	calls := []*textCall{newCall(t.Context(), 7), newCall(t.Context(), 1), newCall(t.Context(), 2)}
	for _, c := range calls {
		q.put(c)
	}
	name := map[*textCall]string{calls[0]: "a", calls[1]: "b", calls[2]: "c"}
	var got []string
	for {
		batch := ""
		for _, item := range q.take(4) {
			batch += fmt.Sprint(name[item.call], item.index)
			q.finish(item, []float32{1}, nil)
		}
		if batch == "" {
			break
		}
		got = append(got, batch)
	}
	if want := "[a0b0c0a1 c1a2a3a4 a5a6]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	for _, c := range calls {
		if !isClosed(c.done) || c.err != nil {
			t.Errorf("call %s: %+v", name[c], c)
		}
	}
}

// A call ends at its first error, and when its context does, as soon as nothing of it is with
// the device.
func TestTextQueueGivesUp(t *testing.T) {
	var q textQueue
	q.init()
	failing := newCall(t.Context(), 5)
	ctx, cancel := context.WithCancelCause(t.Context())
	ending := newCall(ctx, 3)
	q.put(failing)
	q.put(ending)
	items := q.take(3) // two of the first, one of the second
	bad, why := errors.New("bad"), errors.New("why")
	q.finish(items[0], nil, bad)
	if isClosed(failing.done) {
		t.Error("a text is still with the device")
	}
	q.finish(items[2], []float32{1}, nil)
	if !isClosed(failing.done) || !errors.Is(failing.err, bad) {
		t.Error(failing.err)
	}
	cancel(why)
	if got := q.take(9); len(got) != 0 || isClosed(ending.done) {
		t.Errorf("%d texts", len(got))
	}
	q.finish(items[1], []float32{1}, nil)
	if !isClosed(ending.done) || !errors.Is(ending.err, why) {
		t.Error(ending.err)
	}
	q.close()
	if q.wait() {
		t.Error("texts in an empty, closed queue")
	}
}

// When the device is lost, calls end that have nothing on it; the others when that has ended.
func TestTextQueueFails(t *testing.T) {
	var q textQueue
	q.init()
	taken, waiting := newCall(t.Context(), 2), newCall(t.Context(), 2)
	q.put(taken)
	items := q.take(1)
	q.put(waiting)
	bad := errors.New("bad")
	q.fail(bad)
	if !isClosed(waiting.done) || !errors.Is(waiting.err, bad) || isClosed(taken.done) {
		t.Errorf("waiting: %v, taken: %v", waiting.err, taken.err)
	}
	q.finish(items[0], []float32{1}, nil)
	if !isClosed(taken.done) || !errors.Is(taken.err, bad) || len(q.take(9)) != 0 {
		t.Error(taken.err)
	}
}

// Texts are held back until the images that waited for them are done, and no longer.
func TestWaitImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fuzzSession()
		s.waitImages(9) // nothing in flight: it returns
		s.launch(ImageModel, 0)
		s.launch(ImageModel, 1)
		waited := make(chan struct{})
		go func() { s.waitImages(2); close(waited) }()
		s.launch(ImageModel, 2) // later than those
		if err := s.complete(&wire.Done{Slot: 1, Sequence: 2}); err != nil {
			t.Fatal(err)
		}
		if synctest.Wait(); isClosed(waited) {
			t.Error("image 1 is in flight")
		}
		if err := s.complete(&wire.Done{Slot: 0, Sequence: 1}); err != nil {
			t.Fatal(err)
		}
		<-waited
	})
}
