package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/stages/clip"

	"github.com/valyala/fasthttp"
)

var twentyPrompts = func() (p []string) {
	for i := range 20 {
		p = append(p, fmt.Sprintf("a photo of a person number %d riding a bicycle", i))
	}
	return p
}()

// BenchmarkClassify is all from body to answer, without the network and with a device
// that costs next to nothing. What it allocates must not grow with the image.
func BenchmarkClassify(b *testing.B) {
	for _, size := range []int{150 << 10, 700 << 10} {
		b.Run(fmt.Sprintf("image=%dKiB", size>>10), func(b *testing.B) {
			s := handlerOnly(b)
			body := []byte(classifyBody(strings.Repeat("\xff", size), "", twentyPrompts...))
			var reader bytes.Reader
			var ctx fasthttp.RequestCtx
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				ask(b, s, &ctx, &reader, body)
			}
		})
	}
}

// TestMemoryDoesNotGrowWithTheImage: the body's buffer comes from a pool, and the image is
// decoded in it.
func TestMemoryDoesNotGrowWithTheImage(t *testing.T) {
	if testing.Short() || raceEnabled() {
		t.Skip("pools drop things at random under the race detector")
	}
	s := handlerOnly(t)
	perRequest := func(size int) uint64 {
		body := []byte(classifyBody(strings.Repeat("\xff", size), "", twentyPrompts...))
		var reader bytes.Reader
		var ctx fasthttp.RequestCtx
		// The cheapest of many: a collection may empty the pool at any time.
		least := uint64(math.MaxUint64)
		var before, after runtime.MemStats
		for range 50 {
			runtime.ReadMemStats(&before)
			ask(t, s, &ctx, &reader, body)
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		return least
	}
	if small, large := perRequest(1<<10), perRequest(700<<10); large > small+16<<10 {
		t.Errorf("%d bytes for a request with 1 KiB, %d with 700 KiB", small, large)
	}
}

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// free is a device that costs nothing.
type free struct{ *device }

func (free) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		f.Embedding[0] = 1
	}
	return nil
}

// handlerOnly is a server without a network, over a device that costs nothing.
func handlerOnly(t testing.TB) *Server {
	t.Helper()
	return newService(t, func(c *Config, svc *Service) {
		c.MaxBodyBytes, svc.Compat, svc.Log = 16<<20, allDialects(), slog.New(slog.NewTextHandler(io.Discard, nil))
		svc.Engine = testEngine(t, newDevice(), func(_ *clip.Config, p *clip.Parts) { p.Images = free{newDevice()} })
	}).Server
}

// ask calls the handler as the server does.
func ask(t testing.TB, s *Server, ctx *fasthttp.RequestCtx, reader *bytes.Reader, body []byte) {
	askPath(t, s, ctx, reader, "/v1/classify", body)
}

func askPath(t testing.TB, s *Server, ctx *fasthttp.RequestCtx, reader *bytes.Reader, path string, body []byte) {
	reader.Reset(body)
	ctx.Request.Reset()
	ctx.Response.Reset()
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.SetRequestURI(path)
	ctx.Request.Header.SetContentType("application/json")
	ctx.Request.SetBodyStream(reader, len(body))
	if s.handle(ctx); ctx.Response.StatusCode() != 200 {
		t.Fatal(ctx.Response.String())
	}
}

// BenchmarkDialects is the way of one image through dialects, beside the service's own.
func BenchmarkDialects(b *testing.B) {
	image := b64(strings.Repeat("\xff", 150<<10))
	for _, way := range [...]struct{ name, path, body string }{
		{"own", "/v1/embed/image", `{"image":"` + image + `"}`},
		{"openai", "/v1/embeddings", `{"model":"` + testModel + `","input":"data:image/bmp;base64,` + image + `"}`},
		{"openai-base64", "/v1/embeddings", `{"input":["data:image/bmp;base64,` + image + `"],"encoding_format":"base64"}`},
		{"jina", "/v1/embeddings", `{"input":[{"image":"` + image + `"}]}`},
		{"vllm", "/v1/embeddings", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/bmp;base64,` + image + `"}}]}]}`},
		{"weaviate", "/vectorize", `{"images":["` + image + `"]}`},
		{"tei", "/embed", `{"inputs":"data:image/bmp;base64,` + image + `"}`},
		{"huggingface", "/", `{"inputs":{"image":"` + image + `"},"parameters":{"candidate_labels":["cat","dog"]}}`},
		{"cohere", "/v2/embed", `{"images":["` + image + `"],"input_type":"image","embedding_types":["float"]}`},
		{"voyage", "/v1/multimodalembeddings", `{"inputs":[{"content":[{"type":"image_base64","image_base64":"` + image + `"}]}]}`},
		{"frigate", "/embeddings", `{"content":[{"prompt_string":"<__media__>\n","multimodal_data":["` + image + `"]}]}`},
	} {
		b.Run(way.name, func(b *testing.B) {
			s, body := handlerOnly(b), []byte(way.body)
			var reader bytes.Reader
			var ctx fasthttp.RequestCtx
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				askPath(b, s, &ctx, &reader, way.path, body)
			}
		})
	}
}

// BenchmarkParse is the JSON alone.
func BenchmarkParse(b *testing.B) {
	for _, size := range []int{150 << 10, 700 << 10} {
		b.Run(fmt.Sprintf("image=%dKiB", size>>10), func(b *testing.B) {
			body := []byte(classifyBody(strings.Repeat("\xff", size), "", twentyPrompts...))
			var in input
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if in.parse(body) != nil || len(must(in.prompts(1000, 2048))) != len(twentyPrompts) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkBatch is 64 images over a socket, in one batch and one by one, with a device that costs next to nothing. Per op
// are 64 images.
func BenchmarkBatch(b *testing.B) {
	const size, n = 150 << 10, 64
	image := strings.Repeat("\xff", size)
	prompts := fmt.Sprintf(`,"prompts":%s`, must(json.Marshal(twentyPrompts)))
	one, all := classifyBody(image, "", twentyPrompts...), batchBody(prompts, slices.Repeat([]string{image}, n)...)
	start := func(b *testing.B) *service {
		s := serve(b, func(c *Config, svc *Service) {
			c.MaxBodyBytes, c.MaxBatchBodyBytes, c.MaxBodyMemoryBytes = 16<<20, 64<<20, 256<<20
			svc.Log = slog.New(slog.DiscardHandler)
			svc.Engine = testEngine(b, newDevice(), func(_ *clip.Config, p *clip.Parts) { p.Images = free{newDevice()} })
		})
		s.post(b, "/v1/classify", one).wantOK(b)
		b.ReportAllocs()
		return s
	}
	report := func(b *testing.B, before time.Duration) {
		images := float64(n * b.N)
		b.ReportMetric(images/b.Elapsed().Seconds(), "images/s")
		b.ReportMetric(float64((cpuTime()-before).Microseconds())/images, "cpu-µs/image") // the client's, too
	}
	b.Run("batch", func(b *testing.B) {
		s := start(b)
		before := cpuTime()
		for b.Loop() {
			s.post(b, "/v1/classify/batch", all).wantOK(b)
		}
		report(b, before)
	})
	b.Run("singles", func(b *testing.B) {
		s := start(b)
		before := cpuTime()
		for b.Loop() {
			for range n {
				s.post(b, "/v1/classify", one).wantOK(b)
			}
		}
		report(b, before)
	})
	b.Run("embeddings", func(b *testing.B) {
		s := start(b)
		for b.Loop() {
			s.post(b, "/v1/embed/batch", batchBody("", slices.Repeat([]string{"x"}, n)...)).wantOK(b)
		}
	})
}

// BenchmarkRaw is all that a raw frame of the device's size costs from head to answer, with known prompts in the query: one
// copy of its pixels, and the rest.
func BenchmarkRaw(b *testing.B) {
	s := handlerOnly(b)
	frame := fmt.Sprintf("rgb24; %dx%[1]d", testSize)
	body := make([]byte, 3*testSize*testSize)
	query := "/v1/classify?" + url.Values{"prompts": twentyPrompts}.Encode()
	var reader bytes.Reader
	var ctx fasthttp.RequestCtx
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		ctx.Request.Reset()
		ctx.Response.Reset()
		ctx.Request.Header.SetMethod("POST")
		ctx.Request.SetRequestURI(query)
		ctx.Request.Header.SetContentType("application/octet-stream")
		ctx.Request.Header.Set(headerFrame, frame)
		ctx.Request.SetBodyStream(&reader, len(body))
		if s.handle(&ctx); ctx.Response.StatusCode() != 200 {
			b.Fatal(ctx.Response.String())
		}
	}
}

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use) // zeros on failure
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
