package hailo

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"hailoclip/hailo/internal/assert"
)

// TestFrameForgets takes the same frame again: nothing of the embedding before is in it.
func TestFrameForgets(t *testing.T) {
	frames := NewHeapFrames(1, 2, 3)
	f, err := frames.Get(t.Context())
	assert.Must(t, err)
	copy(f.Embedding, []float32{1, 2, 3})
	f.Release()
	if f, err = frames.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range f.Embedding {
		assert.True(t, v == 0, "number %d is %v", i, v)
	}
	f.Release()
}

// TestGetSeveral: callers that gather more frames than are free do not wait for each other's, and who gives up has none.
func TestGetSeveral(t *testing.T) {
	frames := NewHeapFrames(4, 2, 3)
	_, err := frames.GetSeveral(t.Context(), nil, 5)
	assert.True(t, err != nil, "more frames than there are")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				list, err := frames.GetSeveral(t.Context(), make([]*Frame, 1, 5), 3)
				if err != nil || len(list) != 4 || list[1] == nil || list[1] == list[2] || list[2] == list[3] {
					t.Errorf("%v, %v", list, err)
					return
				}
				for _, f := range list[1:] {
					f.Release()
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, frames.Free(), 4, "frames that are free")
	one, err := frames.GetSeveral(t.Context(), nil, 1)
	assert.Must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("boom")
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := frames.GetSeveral(ctx, nil, 4)
			ended <- err
		}()
	}
	cancel(boom)
	for range 2 {
		assert.True(t, errors.Is(<-ended, boom), "the cause")
	}
	one[0].Release()
	assert.Equal(t, frames.Free(), 4, "frames that are free")
}

func TestNormalize(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, tt := range []struct {
		name string
		v    []float32
		want []float32 // within 1e-7; nil: an error
	}{
		{"3 4 5", []float32{3, -4}, []float32{0.6, -0.8}},
		{"unit", []float32{0, 1}, []float32{0, 1}},
		{"huge, beyond float32 when squared", []float32{3e30, 4e30}, []float32{0.6, 0.8}},
		{"tiny, 0 in float32 when squared", []float32{3e-30, 4e-30}, []float32{0.6, 0.8}},
		{"zero", []float32{0, 0}, nil},
		{"NaN", []float32{1, nan}, nil},
		{"infinity", []float32{1, inf}, nil},
		{"minus infinity", []float32{-inf, 1}, nil},
		{"empty", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make([]float32, len(tt.v))
			err := Normalize(got, tt.v)
			near := func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-7 }
			if (err == nil) != (tt.want != nil) || err == nil && !slices.EqualFunc(got, tt.want, near) {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
}
