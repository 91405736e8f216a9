package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/stages"
	"hailoclip/stages/clip"
)

// BenchmarkPromptSets says what sets cost on the simulated chip, at its own pace: the time until a new set answers, what a
// restart encodes and takes, the memory and the file, and the time to score a frame. 1,000 labels in 80 templates take 14
// minutes and are left out unless HAILO_BENCH_LONG is set.
//
//	go test -run '^$' -bench PromptSets -benchtime 1x -timeout 1h ./cmd/hailo-clip
func BenchmarkPromptSets(b *testing.B) {
	b.Setenv(asProgram, "1") // the chip is this program
	for _, templates := range []string{"clip7", "imagenet80"} {
		for _, labels := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("labels=%d/templates=%s", labels, templates), func(b *testing.B) {
				if labels == 1000 && templates == "imagenet80" && os.Getenv("HAILO_BENCH_LONG") == "" {
					b.Skip("14 minutes; HAILO_BENCH_LONG=1 runs it")
				}
				for b.Loop() {
					benchPromptSet(b, labels, templates)
				}
			})
		}
	}
}

func benchPromptSet(b *testing.B, labels int, templates string) {
	g := globals{Model: "demo", Backend: "sim", StateDir: b.TempDir()}
	open := func() *engine {
		p, err := g.place()
		if err != nil {
			b.Fatal(err)
		}
		p.cfg.Sim.Vectors, p.cfg.Performance.WarmupEnabled = "hash", false
		return must(newEngine(b.Context(), p, true, slog.New(slog.DiscardHandler)))
	}
	stop := func(e *engine) {
		if err := e.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	d := sets.Definition{Templates: &sets.Templates{Name: templates}}
	for i := range labels {
		d.Labels = append(d.Labels, sets.Label{Name: fmt.Sprint("thing number ", i)})
	}
	e := open()
	before := heap()
	start := time.Now()
	info, _, err := e.PromptSets().Put(b.Context(), "set", d, clip.Condition{})
	if err != nil || info.State != clip.SetReady {
		b.Fatal(info.State, info.Reason, err)
	}
	took := time.Since(start)
	memory := heap() - before
	stop(e)

	p := must(g.place())
	start = time.Now()
	store := must(sets.Open(filepath.Join(p.state, sets.FileName)))
	opened := time.Since(start)
	if err := store.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	e = open()
	defer stop(e)
	set := must(e.PromptSets().Ready("set"))
	stats := e.Stats()
	score := scoreTime(&set.Labels, set.Scoring, set.Dim)

	b.ReportMetric(0, "ns/op") // means nothing
	b.ReportMetric(took.Seconds(), "register-s")
	b.ReportMetric(float64(info.Total)/took.Seconds(), "texts/s")
	b.ReportMetric(float64(stats.Sets.Encoded+stats.NPU.Texts-1), "encoded-after-restart") // the probe's text is one
	b.ReportMetric(float64(opened.Microseconds())/1000, "open-ms")
	b.ReportMetric(float64(memory)/1e6, "heap-MB")
	b.ReportMetric(float64(must(os.Stat(filepath.Join(p.state, sets.FileName))).Size())/1e6, "file-MB")
	b.ReportMetric(float64(score.Nanoseconds())/1000, "score-us")
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// scoreTime is how long it takes to make five matches of an embedding: the least of many tries, as others run meanwhile.
func scoreTime(l *stages.Labels, s stages.Scoring, dim int) time.Duration {
	s.TopK = 5
	embedding := make([]float32, dim)
	for i := range embedding {
		embedding[i] = float32(rand.NormFloat64())
	}
	if err := hailo.Normalize(embedding, embedding); err != nil {
		panic(err)
	}
	least := time.Duration(math.MaxInt64)
	for range 200 {
		start := time.Now()
		stages.Rank(embedding, l, s, nil)
		least = min(least, time.Since(start))
	}
	return least
}
