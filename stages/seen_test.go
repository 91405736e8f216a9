package stages

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
)

// TestSeen: whoever asks to see the decoded image sees its pixels once, and may have the rest left out; the memory of the request is
// given back once all the same.
func TestSeen(t *testing.T) {
	raw, err := decode.ParseRaw("rgb24; 3x2; stride=12")
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 24)
	for y := range 2 {
		for x := range 3 {
			copy(frame[12*y+3*x:], []byte{255, 0, 0})
		}
	}
	for name, image := range map[string]Request{
		"compressed": {Image: pngImage(t, 3, 2, red)},
		"raw":        {Image: frame, Raw: raw},
	} {
		for _, skip := range []bool{false, true} {
			b := &fakeBackend{batch: 1}
			l := start(t, b)
			seen, released := 0, make(chan struct{}, 2)
			r := image
			r.Embedding, r.Labels, r.Scoring.TopK = true, plain([]float32{1, 0, 0}, 3), 1
			r.Release = func() { released <- struct{}{} }
			r.Seen = func(p Pixels) bool {
				seen++
				if p.Width != 3 || p.Height != 2 || len(released) != 0 {
					t.Errorf("%s: %+v", name, p)
				}
				for y := range p.Height {
					if row := p.Pix[y*p.Stride:][:9]; !slices.Equal(row, []byte{255, 0, 0, 255, 0, 0, 255, 0, 0}) {
						t.Errorf("%s: row %d is %v", name, y, row)
					}
				}
				return skip
			}
			got, err := l.Do(t.Context(), &r)
			if err != nil || seen != 1 || len(released) != 1 {
				t.Fatalf("%s: %v, seen %d times, released %d", name, err, seen, len(released))
			}
			if empty := got.Matches == nil && got.Embedding == nil && got.Times[1].Stage == ""; got.Skipped != skip || empty != skip ||
				len(b.calls) == 0 != skip {
				t.Errorf("%s, skip %v: %+v, %d calls", name, skip, got, len(b.calls))
			}
		}
	}
	l := start(t, &fakeBackend{batch: 1})
	var panicked *pipeline.PanicError
	if _, err := l.Do(t.Context(), &Request{Image: frame, Raw: raw, Seen: func(Pixels) bool { panic("of a caller") }}); !errors.As(err, &panicked) {
		t.Errorf("a panic: %v", err)
	}
	if _, err := l.Do(t.Context(), &Request{Image: []byte("none"), Seen: func(Pixels) bool { t.Error("seen"); return true }}); err == nil {
		t.Error("no image: no error")
	}
}

// TestSkippedNeedsNoDevice: while all frames are taken and the device hangs, images that are skipped are answered.
func TestSkippedNeedsNoDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := start(t, &fakeBackend{batch: 1, fail: func(int, []*hailo.Frame) error { <-gate; return nil }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		image := pngImage(t, 40, 40, red)
		var done atomic.Int32
		for range 5 { // one waits for a frame
			go func() {
				if err := do(ctx, l, image); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		synctest.Wait()
		for range 20 {
			if r, err := l.Do(ctx, &Request{Image: image, Seen: func(Pixels) bool { return true }}); err != nil || !r.Skipped {
				t.Errorf("%+v, %v", r, err)
			}
		}
		if n := done.Load(); n != 0 {
			t.Errorf("%d of the others are done", n)
		}
		close(gate)
		synctest.Wait()
		if n := done.Load(); n != 5 {
			t.Errorf("%d of the others are done", n)
		}
	})
}
