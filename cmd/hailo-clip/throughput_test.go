package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/bench/load"
	"hailoclip/hailo"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/onnx"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// BenchmarkThroughput compares what the service does over HTTP with what its parts can do: images/s
// of POST /v1/classify with 4 clients, a 640x480 JPEG and 20 known prompts, against the images/s
// that bare decode + resize + encode of one image add up to when every core does nothing
// else. The clients run on the same cores. Both are measured in turns, because the speed of
// shared machines drifts:
//
//	go test -run '^$' -bench Throughput -benchtime 10x ./cmd/hailo-clip
func BenchmarkThroughput(b *testing.B) {
	needONNX(b)
	image := must(os.ReadFile(filepath.Join("..", "..", "stages", "decode", "testdata", "pixels", "vga_420.jpg")))
	r := serve(b, b.TempDir(), "--model", "demo", "--backend", "cpu")
	service := must(load.NewTarget(r.url, "", must(load.NewBodies([]load.Image{{Data: image}}, load.Ask{Prompts: 20})), time.Minute))
	defer service.Close()
	backend := must(onnx.Open(b.Context(), onnx.Config{}, must(demo.Model()), runtime.GOMAXPROCS(0), libraryDirs(b.TempDir())...))
	defer backend.Close()
	serve := func() float64 {
		found, err := load.Run(b.Context(), load.Options{Loads: []load.Load{{Clients: 4}},
			Window: load.Window{Duration: time.Second / 2, Every: 1 << 20}, Progress: func(string, time.Duration, time.Duration) {}}, service)
		if err != nil || found.Steps[0].Failed() > 0 {
			b.Fatal(err, found)
		}
		return found.Steps[0].Rate
	}
	serve() // the prompts are known from here on
	var served, parts float64
	for b.Loop() {
		parts += bare(b, backend, image, time.Second/2)
		served += serve()
	}
	b.ReportMetric(parts/float64(b.N), "bare-images/s")
	b.ReportMetric(served/float64(b.N), "http-images/s")
	b.ReportMetric(100*served/parts, "share-%")
	b.ReportMetric(0, "ns/op") // two turns; means nothing
}

// bare returns images/s of decode, resize and encode of one image after the other on every core.
func bare(tb testing.TB, backend hailo.Backend, image []byte, d time.Duration) float64 {
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			decoder := decode.NewDecoder(decode.Config{MaxPixels: 1 << 24, JPEGScale: decode.ScaleExact}, 224)
			resizer := resize.New(resize.Config{Fit: resize.FitCrop}, 224)
			frame := must(backend.Frames().Get(context.Background()))
			defer frame.Release()
			for time.Since(start) < d {
				decoded := must(decoder.DecodeBytes(image))
				err := resizer.Resize(frame.Pixels, decoded.Pix, decoded.Width, decoded.Height)
				decoded.Release()
				if err = cmp.Or(err, backend.EncodeImages(context.Background(), []*hailo.Frame{frame})); err != nil {
					tb.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}
