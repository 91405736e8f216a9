package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

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
	image, err := os.ReadFile(filepath.Join("..", "..", "stages", "decode", "testdata", "pixels", "vga_420.jpg"))
	if err != nil {
		b.Fatal(err)
	}
	r := serve(b, b.TempDir(), "--model", "demo", "--backend", "cpu")
	clients := newLoad(b, r.url, image, 4)
	bare := newBare(b, image)
	const turn = 500 * time.Millisecond
	clients.run(b, turn) // the prompts are known from here on
	bare.run(b, turn)

	var served, parts float64
	for b.Loop() {
		parts += bare.run(b, turn)
		served += clients.run(b, turn)
	}
	n := float64(b.N)
	b.ReportMetric(parts/n, "bare-images/s")
	b.ReportMetric(served/n, "http-images/s")
	b.ReportMetric(100*served/parts, "share-%")
	b.ReportMetric(0, "ns/op") // two turns; means nothing
}

// load is clients in a closed loop.
type load struct {
	client  *fasthttp.HostClient
	url     string
	body    []byte
	clients int
}

func newLoad(tb testing.TB, url string, image []byte, clients int) *load {
	tb.Helper()
	prompts := make([]string, 20)
	for i := range prompts {
		prompts[i] = "a photo of thing number " + strconv.Itoa(i)
	}
	body, err := json.Marshal(map[string]any{"image": base64.StdEncoding.EncodeToString(image), "prompts": prompts})
	if err != nil {
		tb.Fatal(err)
	}
	return &load{&fasthttp.HostClient{Addr: url[len("http://"):], MaxConns: clients}, url + "/v1/classify", body, clients}
}

// run returns requests/s.
func (l *load) run(tb testing.TB, d time.Duration) float64 {
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range l.clients {
		wg.Go(func() {
			request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			request.SetRequestURI(l.url)
			request.Header.SetMethod("POST")
			request.Header.SetContentType("application/json")
			request.SetBodyRaw(l.body)
			for time.Since(start) < d {
				if err := l.client.Do(request, response); err != nil || response.StatusCode() != 200 {
					tb.Errorf("%v, status %d: %.200s", err, response.StatusCode(), response.Body())
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// bare is decode, resize and encode of one image after the other on every core.
type bare struct {
	image   []byte
	backend hailo.Backend
}

func newBare(tb testing.TB, image []byte) *bare {
	tb.Helper()
	model, err := demo.Model()
	if err != nil {
		tb.Fatal(err)
	}
	backend, err := onnx.Open(tb.Context(), onnx.Config{}, model, runtime.GOMAXPROCS(0), libraryDirs(tb.TempDir())...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := backend.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &bare{image, backend}
}

// run returns images/s of all cores.
func (x *bare) run(tb testing.TB, d time.Duration) float64 {
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			decoder := decode.NewDecoder(decode.Config{MaxPixels: 1 << 24, JPEGScale: decode.ScaleExact}, 224)
			resizer := resize.New(resize.Config{Fit: resize.FitCrop}, 224)
			frame, err := x.backend.Frames().Get(context.Background())
			if err != nil {
				tb.Error(err)
				return
			}
			defer frame.Release()
			for time.Since(start) < d {
				picture, err := decoder.DecodeBytes(x.image)
				if err == nil {
					err = resizer.Resize(frame.Pixels, picture.Pix, picture.Width, picture.Height)
					picture.Release()
				}
				if err == nil {
					err = x.backend.EncodeImages(context.Background(), []*hailo.Frame{frame})
				}
				if err != nil {
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
