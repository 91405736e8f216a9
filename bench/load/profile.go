package load

import (
	"fmt"
	"runtime"
	"time"

	"hailoclip/bench/report"
)

// Profile has each image done again and again for the duration, after a tenth of that to warm up,
// one at a time. do takes an image through the pipeline and tells stage how long each stage worked.
func Profile(images []Image, d time.Duration, do func(image []byte, stage func(name string, took time.Duration)) error) ([]report.Path, error) {
	var paths []report.Path
	for _, image := range images {
		_, err := profile(image, d/10, do)
		var path report.Path
		if err == nil {
			path, err = profile(image, d, do)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", image.Name, err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func profile(image Image, d time.Duration, do func([]byte, func(string, time.Duration)) error) (report.Path, error) {
	path := report.Path{Name: image.Name, Bytes: len(image.Data)}
	var stages stageTimes
	all := newHistogram(3)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := ownCPU()
	for end := time.Now().Add(d); time.Now().Before(end) || path.Images == 0; path.Images++ {
		begin := time.Now()
		if err := do(image.Data, stages.addTime); err != nil {
			return path, err
		}
		observe(all, time.Since(begin))
		stages.n++
	}
	n := float64(path.Images)
	path.CPU = (ownCPU() - cpu).Seconds() * 1000 / n
	runtime.ReadMemStats(&after)
	path.Allocated, path.Mallocs = float64(after.TotalAlloc-before.TotalAlloc)/n, float64(after.Mallocs-before.Mallocs)/n
	path.Latency, path.Stages = latencyOf(all), stages.latencies()
	return path, nil
}
