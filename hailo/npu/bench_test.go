package npu_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu"
)

// Images through the Backend on the simulated chip at batch 8, which could do 335 a second.
// CPU is that of this process, without the simulated chip.
func BenchmarkImages(b *testing.B) {
	for _, callers := range []int{1, 8, 16, 24, 32} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			be := open(b, options(b))
			var frames []*hailo.Frame
			for i := range callers {
				f := assert.Value(be.Frames().Get(context.Background()))
				paint(f.Pixels, uint64(i))
				frames = append(frames, f)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			start, cpu := time.Now(), cpuTime()
			var wg sync.WaitGroup
			for _, f := range frames {
				wg.Go(func() {
					defer f.Release()
					for left.Add(-1) >= 0 {
						if err := be.EncodeImages(context.Background(), []*hailo.Frame{f}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			took, used := time.Since(start), cpuTime()-cpu
			b.StopTimer()
			m := be.Metrics()
			n := float64(m.Frames[npu.ImageModel])
			b.ReportMetric(n/took.Seconds(), "frames/s")
			b.ReportMetric(n/m.Runs[npu.ImageModel], "frames/batch")
			b.ReportMetric(float64(used.Microseconds())/n, "cpu-us/frame")
		})
	}
}

// Texts, 20 in a call.
func BenchmarkTexts(b *testing.B) {
	be := open(b, options(b))
	tokens := make([][]int32, 20)
	for i := range tokens {
		tokens[i] = []int32{1, int32(i) + 10, 3, 4, 5, 6, 7, endToken}
	}
	b.ReportAllocs()
	for b.Loop() {
		assert.Must(b, assert.Err(be.EncodeTexts(context.Background(), tokens)))
	}
	m := be.Metrics()
	b.ReportMetric(20*float64(b.N)/b.Elapsed().Seconds(), "texts/s")
	b.ReportMetric(float64(m.Frames[npu.TextModel])/m.Runs[npu.TextModel], "texts/batch")
}

// 20 new prompts a second beside 200 images a second, for 10 s: the images keep their rate,
// and none waits for more than a batch of texts (46.3 ms) besides the images before it.
func BenchmarkMixed(b *testing.B) {
	be := open(b, options(b))
	tokens := make([][]int32, 20)
	for i := range tokens {
		tokens[i] = []int32{1, int32(i) + 10, 3, endToken}
	}
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		var wg sync.WaitGroup
		var images, texts, worst atomic.Int64
		wg.Go(func() {
			for next := time.Now(); ctx.Err() == nil; next = next.Add(5 * time.Millisecond) {
				time.Sleep(time.Until(next))
				wg.Go(func() {
					start := time.Now()
					assert.NoError(b, assert.Err(backendtest.Encode(context.Background(), be, func([]byte) {})))
					for d := time.Since(start).Nanoseconds(); ; {
						if w := worst.Load(); d <= w || worst.CompareAndSwap(w, d) {
							break
						}
					}
					images.Add(1)
				})
			}
		})
		wg.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for ctx.Err() == nil {
				assert.NoError(b, assert.Err(be.EncodeTexts(context.Background(), tokens)))
				texts.Add(20)
				<-tick.C
			}
		})
		wg.Wait()
		cancel()
		b.ReportMetric(float64(images.Load())/10, "images/s")
		b.ReportMetric(float64(texts.Load())/10, "texts/s")
		b.ReportMetric(float64(worst.Load())/1e6, "worst-image-ms")
	}
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var self syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &self)
	return time.Duration(self.Utime.Nano() + self.Stime.Nano())
}
