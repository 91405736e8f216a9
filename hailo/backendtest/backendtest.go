// Package backendtest holds the test that every hailo.Backend passes.
package backendtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"hailoclip/hailo"
)

// Run checks what the comments of hailo.Backend promise. open makes a fresh backend, with at
// least two frames, whose model has at least the token ids 1 to 8; Run closes it, and open may
// close it once more. Vectors are compared by cosine, because a batch may be computed in another
// order than one picture.
func Run(t *testing.T, open func(t *testing.T) hailo.Backend) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, b hailo.Backend)
	}{
		{"info", info},
		{"images", images},
		{"texts", texts},
		{"refusals", refusals},
		{"ended context", endedContext},
		{"concurrent", concurrent},
		{"close", closing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t)
			defer func() { _ = b.Close() }()
			tt.test(t, b)
			if free, all := b.Frames().Free(), b.Frames().Len(); free != all {
				t.Errorf("%d of %d frames are back in the pool", free, all)
			}
		})
	}
}

func info(t *testing.T, b hailo.Backend) {
	i := b.Info()
	if i.Backend == "" || i.Device == "" || i.TextDigest == "" || i.ImageBatch < 1 || i.ImageCalls < 1 || i.TextBatch < 1 {
		t.Errorf("incomplete: %+v", i)
	}
	if s := b.Status(); !s.Ready || s.Degraded != (s.Reason != "") {
		t.Errorf("a fresh backend is %+v", s)
	}
	if b.Info() != i {
		t.Error("Info changed")
	}
}

// images: unit vectors, the same for the same picture alone or in a batch, others for others.
func images(t *testing.T, b hailo.Backend) {
	n := min(b.Info().ImageBatch, b.Frames().Len())
	frames := take(t, b, n)
	defer release(frames)
	alone := make([][]float32, n)
	for i, f := range frames {
		paint(f, i)
		if err := b.EncodeImages(t.Context(), frames[i:i+1]); err != nil {
			t.Fatalf("picture %d alone: %v", i, err)
		}
		alone[i] = append([]float32(nil), f.Embedding...)
		unit(t, fmt.Sprintf("picture %d alone", i), alone[i])
	}
	for size := 1; size <= n; size++ {
		for _, f := range frames {
			clear(f.Embedding)
		}
		if err := b.EncodeImages(t.Context(), frames[:size]); err != nil {
			t.Fatalf("batch of %d: %v", size, err)
		}
		for i, f := range frames[:size] {
			if c := cosine(f.Embedding, alone[i]); c < 0.9999 {
				t.Errorf("picture %d in a batch of %d: cosine with itself alone %v", i, size, c)
			}
		}
		for i, f := range frames[size:] {
			if f.Embedding[0] != 0 {
				t.Errorf("a batch of %d wrote to frame %d", size, size+i)
			}
		}
	}
	paint(frames[0], 1000)
	if err := b.EncodeImages(t.Context(), frames[:1]); err != nil {
		t.Fatal(err)
	}
	if c := cosine(frames[0].Embedding, alone[0]); c > 0.999999 {
		t.Errorf("two pictures have one vector: cosine %v", c)
	}
	if err := b.EncodeImages(t.Context(), nil); err != nil {
		t.Error("no pictures: ", err)
	}
}

// texts: the same in any number and order.
func texts(t *testing.T, b hailo.Backend) {
	var all [][]int32
	for i := range 3*b.Info().TextBatch + 1 {
		all = append(all, sentence(i))
	}
	together, err := b.EncodeTexts(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	if len(together) != len(all) {
		t.Fatalf("%d vectors for %d texts", len(together), len(all))
	}
	for i := range 10 {
		i = i * len(all) / 10
		alone, err := b.EncodeTexts(t.Context(), all[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		unit(t, fmt.Sprintf("text %d", i), together[i])
		if c := cosine(alone[0], together[i]); c < 0.9999 {
			t.Errorf("text %d among others: cosine with itself alone %v", i, c)
		}
	}
	if c := cosine(together[0], together[1]); c > 0.999999 {
		t.Errorf("two texts have one vector: cosine %v", c)
	}
	if v, err := b.EncodeTexts(t.Context(), nil); err != nil || len(v) != 0 {
		t.Error("no texts: ", v, err)
	}
}

func refusals(t *testing.T, b hailo.Backend) {
	for name, tokens := range map[string][][]int32{
		"empty text":                {sentence(0), {}},
		"longer than any context":   {make([]int32, 1<<16)},
		"one bad text among others": {sentence(0), make([]int32, 1<<16), sentence(1)},
	} {
		if _, err := b.EncodeTexts(t.Context(), tokens); !errors.Is(err, hailo.ErrEncode) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := make([]*hailo.Frame, b.Info().ImageBatch+1)
	frames := take(t, b, 1)
	defer release(frames)
	paint(frames[0], 0)
	for i := range many {
		many[i] = frames[0]
	}
	if err := b.EncodeImages(t.Context(), many); !errors.Is(err, hailo.ErrEncode) {
		t.Error("one picture more than ImageBatch: ", err)
	}
	if err := b.EncodeImages(t.Context(), frames); err != nil {
		t.Error("after refusals: ", err)
	}
}

func endedContext(t *testing.T, b hailo.Backend) {
	why := errors.New("why the context ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	frames := take(t, b, 1)
	defer release(frames)
	paint(frames[0], 0)
	if err := b.EncodeImages(ctx, frames); !errors.Is(err, why) {
		t.Error("EncodeImages: ", err)
	}
	if _, err := b.EncodeTexts(ctx, [][]int32{sentence(0)}); !errors.Is(err, why) {
		t.Error("EncodeTexts: ", err)
	}
	if err := b.EncodeImages(t.Context(), frames); err != nil {
		t.Error("afterwards: ", err)
	}
}

// concurrent: calls at once get their own answers.
func concurrent(t *testing.T, b hailo.Backend) {
	want, err := b.EncodeTexts(t.Context(), [][]int32{sentence(0), sentence(1), sentence(2), sentence(3)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 4 {
				got, err := b.EncodeTexts(t.Context(), [][]int32{sentence(i)})
				if err != nil {
					t.Error(err)
				} else if c := cosine(got[0], want[i]); c < 0.9999 {
					t.Errorf("text %d: cosine %v", i, c)
				}
			}
		})
		wg.Go(func() {
			var first []float32
			for range 4 {
				f, err := b.Frames().Get(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				paint(f, i)
				if err := b.EncodeImages(t.Context(), []*hailo.Frame{f}); err != nil {
					t.Error(err)
				} else if first == nil {
					first = append(first, f.Embedding...)
				} else if c := cosine(f.Embedding, first); c < 0.9999 {
					t.Errorf("picture %d: cosine %v", i, c)
				}
				f.Release()
			}
		})
	}
	wg.Wait()
}

// closing: while calls come in. Each of them works or says that the backend is closed.
func closing(t *testing.T, b hailo.Backend) {
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for i := range 4 {
		wg.Go(func() {
			f, err := b.Frames().Get(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Release()
			paint(f, i)
			for err == nil {
				select {
				case started <- struct{}{}:
				default:
				}
				if err = b.EncodeImages(t.Context(), []*hailo.Frame{f}); err == nil {
					_, err = b.EncodeTexts(t.Context(), [][]int32{sentence(i)})
				}
			}
			if !errors.Is(err, hailo.ErrClosed) {
				t.Error(err)
			}
		})
	}
	<-started
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if s := b.Status(); s.Ready || s.Reason == "" {
		t.Errorf("a closed backend is %+v", s)
	}
	if err := b.EncodeImages(t.Context(), nil); !errors.Is(err, hailo.ErrClosed) {
		t.Error("no pictures after Close: ", err)
	}
	if err := b.Close(); err != nil {
		t.Error("second Close: ", err)
	}
}

func take(t *testing.T, b hailo.Backend, n int) []*hailo.Frame {
	t.Helper()
	frames := make([]*hailo.Frame, n)
	for i := range frames {
		var err error
		if frames[i], err = b.Frames().Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return frames
}

func release(frames []*hailo.Frame) {
	for _, f := range frames {
		f.Release()
	}
}

// paint fills a frame with coloured stripes, others for every seed.
func paint(f *hailo.Frame, seed int) {
	for i := range f.Pixels {
		f.Pixels[i] = byte((i%3+1)*(60+seed*37) + i/96*(seed%5+3))
	}
}

// sentence is a list of 1 to 5 token ids from 1 to 8; the first two differ in their first token.
func sentence(i int) []int32 {
	ids := make([]int32, i%5+1)
	for j := range ids {
		ids[j] = int32((i+j*j)%8 + 1)
	}
	return ids
}

func unit(t *testing.T, what string, v []float32) {
	t.Helper()
	if n := cosineParts(v, v); math.Abs(n-1) > 1e-5 {
		t.Errorf("%s: length %v", what, math.Sqrt(n))
	}
}

func cosine(a, b []float32) float64 {
	return cosineParts(a, b) / math.Sqrt(cosineParts(a, a)*cosineParts(b, b))
}

func cosineParts(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}
