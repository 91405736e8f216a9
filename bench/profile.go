package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"hailoclip/stages"
)

// Picture is a compressed image and what to call it.
type Picture struct {
	Name string
	Data []byte
}

// Path is the way of one image through the pipeline, measured without HTTP: one at a time, so
// without waiting for others. Times are milliseconds.
type Path struct {
	Name      string         `json:"name"`
	Bytes     int            `json:"bytes"` // compressed
	Images    int64          `json:"images"`
	Stages    []StageLatency `json:"stages"`
	Latency   Latency        `json:"latency_ms"` // of the whole way, hand-over between the stages included
	CPU       float64        `json:"cpu_ms"`     // of this process for an image, user and system
	Allocated float64        `json:"allocated_bytes"`
	Mallocs   float64        `json:"mallocs"`
}

// Do is stages.Line.Do.
type Do func(context.Context, *stages.Request) (stages.Result, error)

// Profile sends each picture through the line again and again for the duration, after a tenth
// of that to warm up. prompts are the vectors to score against, n x dimension.
func Profile(ctx context.Context, do Do, pictures []Picture, prompts []float32, scoring stages.Scoring, d time.Duration) ([]Path, error) {
	var paths []Path
	for _, p := range pictures {
		if _, err := profile(ctx, do, p, prompts, scoring, d/10); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		path, err := profile(ctx, do, p, prompts, scoring, d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func profile(ctx context.Context, do Do, p Picture, prompts []float32, scoring stages.Scoring, d time.Duration) (Path, error) {
	path := Path{Name: p.Name, Bytes: len(p.Data)}
	var times stageTimes
	all := newHistogram(3)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := ownCPU()
	for end := time.Now().Add(d); time.Now().Before(end) || path.Images == 0; path.Images++ {
		begin := time.Now()
		result, err := do(ctx, &stages.Request{Image: p.Data, Prompts: prompts, Scoring: scoring})
		if err != nil {
			return path, err
		}
		took := time.Since(begin)
		observe(all, took)
		times.n++
		for _, t := range result.Times {
			times.addTime([]byte(t.Stage), t.Work)
		}
	}
	n := float64(path.Images)
	path.CPU = (ownCPU() - cpu).Seconds() * 1000 / n
	runtime.ReadMemStats(&after)
	path.Allocated, path.Mallocs = float64(after.TotalAlloc-before.TotalAlloc)/n, float64(after.Mallocs-before.Mallocs)/n
	path.Latency, path.Stages = latencyOf(all), times.latencies()
	return path, nil
}

// WritePaths prints the paths as a table for a terminal.
func WritePaths(w io.Writer, paths []Path) {
	for i, p := range paths {
		if i > 0 {
			fmt.Fprintln(w)
		}
		rows := [][]string{{p.Name, "mean", "p50", "p99"}}
		row := func(name string, mean, p50, p99 float64) {
			rows = append(rows, []string{"  " + name, significant(mean) + " ms", significant(p50) + " ms", significant(p99) + " ms"})
		}
		for _, s := range p.Stages {
			row(s.Stage, s.Mean, s.P50, s.P99)
		}
		row("whole way", p.Latency.Mean, p.Latency.P50, p.Latency.P99)
		writeRows(w, rows)
		fmt.Fprintf(w, "  %d images of %s kB; each: %s ms CPU, %s kB in %s objects allocated\n",
			p.Images, significant(float64(p.Bytes)/1000), significant(p.CPU), significant(p.Allocated/1000), significant(p.Mallocs))
	}
}

// Profiles writes a CPU profile of what happens until stop, and stop a heap profile, to files
// that "go tool pprof" reads; "" is no file.
func Profiles(cpuFile, heapFile string) (stop func() error, err error) {
	var cpu *os.File
	if cpuFile != "" {
		if cpu, err = os.Create(cpuFile); err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return nil, errors.Join(err, cpu.Close())
		}
	}
	return func() error {
		var errs []error
		if cpu != nil {
			pprof.StopCPUProfile()
			errs = append(errs, cpu.Close())
		}
		if heapFile != "" {
			heap, err := os.Create(heapFile)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			runtime.GC() // the profile is as of the last collection
			errs = append(errs, pprof.Lookup("heap").WriteTo(heap, 0), heap.Close())
		}
		return errors.Join(errs...)
	}, nil
}
