package onnx

import (
	"fmt"
	"sync/atomic"
	"testing"

	"hailoclip/hailo"
	"hailoclip/hailo/internal/assert"
)

func ramps(tb testing.TB, n int) []*hailo.Frame {
	tb.Helper()
	frames := make([]*hailo.Frame, n)
	for i := range frames {
		f := assert.Value(hailo.NewHeapFrames(1, 224, 512).Get(tb.Context()))
		for j := range f.Pixels {
			f.Pixels[j] = byte(i*31 + j/7)
		}
		frames[i] = f
	}
	return frames
}

// BenchmarkEncodeImages is one run after another on one thread: what a batch is worth.
func BenchmarkEncodeImages(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8, 16} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			backend := newBackend(b, Config{Threads: 1, Batch: n}, demo(b))
			frames := ramps(b, n)
			b.ReportAllocs()
			for b.Loop() {
				assert.Must(b, backend.EncodeImages(b.Context(), frames))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/image")
		})
	}
}

// BenchmarkEncodeImagesParallel is a loaded service: calls calls at once, each of a full batch.
func BenchmarkEncodeImagesParallel(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8} {
		for _, calls := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("batch=%d/calls=%d", n, calls), func(b *testing.B) {
				backend := newBackend(b, Config{Batch: n}, demo(b))
				all := ramps(b, n*calls)
				var left atomic.Int64
				left.Store(int64(b.N))
				done := make(chan error)
				b.ResetTimer()
				for c := range calls {
					go func() {
						var err error
						for left.Add(-1) >= 0 && err == nil {
							err = backend.EncodeImages(b.Context(), all[c*n:(c+1)*n])
						}
						done <- err
					}()
				}
				for range calls {
					assert.NoError(b, <-done)
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "images/s")
			})
		}
	}
}

// BenchmarkEncodeTexts is a list of prompts that nobody asked before.
func BenchmarkEncodeTexts(b *testing.B) {
	for _, n := range []int{1, 4, 20} {
		b.Run(fmt.Sprintf("texts=%d", n), func(b *testing.B) {
			backend := newBackend(b, Config{}, demo(b))
			texts := make([][]int32, n)
			for i := range texts {
				texts[i] = []int32{4094, 320, 516, 513, int32(320 + i), 1233, 4095}
			}
			b.ReportAllocs()
			for b.Loop() {
				assert.Must(b, assert.Err(backend.EncodeTexts(b.Context(), texts)))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/text")
		})
	}
}

// BenchmarkPlanes is the host's own work for each image before the model sees it.
func BenchmarkPlanes(b *testing.B) {
	pixels, out := make([]byte, 224*224*3), make([]float32, 224*224*3)
	t := newNormaliser([3]float32{.48, .46, .41}, [3]float32{.27, .26, .28})
	b.SetBytes(int64(len(pixels)))
	b.ReportAllocs()
	for b.Loop() {
		t.planes(out, pixels)
	}
}
