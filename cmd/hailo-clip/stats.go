package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"syscall"

	"hailoclip/cache"
	"hailoclip/hailo/npu"
	"hailoclip/pipeline"
)

// stats is what GET /v1/stats answers: counters since the start.
type stats struct {
	Stages  []pipeline.StageStats `json:"stages"`
	Cache   cache.Stats           `json:"cache"`
	Process processStats          `json:"process"`
	NPU     *npuStats             `json:"npu,omitempty"`
}

type processStats struct {
	CPUSeconds     float64 `json:"cpu_seconds"` // user and system
	RSSBytes       int64   `json:"rss_bytes"`
	HeapBytes      uint64  `json:"heap_bytes"` // live objects and those not swept yet
	GCCPUSeconds   float64 `json:"gc_cpu_seconds"`
	AllocatedBytes uint64  `json:"allocated_bytes"`
	Mallocs        uint64  `json:"mallocs"`
	Goroutines     int     `json:"goroutines"`
}

// npuStats are the device's counters; numbers that it does not tell are null.
type npuStats struct {
	Ready        bool       `json:"ready"`
	Restarts     int        `json:"restarts"`
	Images       uint64     `json:"images"`
	Texts        uint64     `json:"texts"`
	Failed       uint64     `json:"failed"`
	ImageRuns    float64    `json:"image_runs"` // images / image_runs is the mean batch
	TextRuns     float64    `json:"text_runs"`
	ImageBatches []uint64   `json:"image_batches"` // [n]: images done in runs of n
	InFlight     int        `json:"in_flight"`
	ImageBusy    float64    `json:"image_busy_seconds"` // in which images were in flight: / image_runs is the time of a run under load
	ImagesPerSec float64    `json:"images_per_second"`  // while images were in flight
	Temperature  []*float64 `json:"temperature_celsius"`
	Throttling   uint32     `json:"throttling"`       // 0 none ... 5 streams off, 6 overheat
	Zone         uint32     `json:"temperature_zone"` // 0 green, 1 orange, 2 red

	Worker *workerStats `json:"worker,omitempty"` // not of the simulated chip, whose CPU time is not the service's
}

// workerStats are of the process that holds the device.
type workerStats struct {
	PID        int     `json:"pid"`
	CPUSeconds float64 `json:"cpu_seconds"` // user and system
	RSSBytes   int64   `json:"rss_bytes"`
}

func (e *engine) stats() any {
	s := stats{Stages: e.pipe.Stats(), Cache: e.store.Stats(), Process: processNow()}
	if e.encoders.Device != nil {
		m := e.encoders.Device.Metrics()
		s.NPU = newNPUStats(m)
		if !e.encoders.Device.Info().Simulated {
			s.NPU.Worker = workerNow(m.Worker)
		}
	}
	return s
}

func newNPUStats(m npu.Metrics) *npuStats {
	s := &npuStats{
		Ready: m.Ready, Restarts: m.Restarts, Images: m.Frames[npu.ImageModel], Texts: m.Frames[npu.TextModel],
		Failed:    m.Failed[npu.ImageModel] + m.Failed[npu.TextModel],
		ImageRuns: m.Runs[npu.ImageModel], TextRuns: m.Runs[npu.TextModel], ImageBatches: m.Batches[:],
		InFlight: m.InFlight[npu.ImageModel] + m.InFlight[npu.TextModel], ImagesPerSec: m.Rate, ImageBusy: m.Busy.Seconds(),
		Throttling: m.Device.Throttling, Zone: m.Device.Zone,
	}
	for _, t := range m.Device.Temperature {
		value := float64(t)
		if math.IsNaN(value) {
			s.Temperature = append(s.Temperature, nil)
		} else {
			s.Temperature = append(s.Temperature, &value)
		}
	}
	return s
}

func processNow() processStats {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"},
	}
	metrics.Read(samples)
	p := processStats{
		HeapBytes: samples[0].Value.Uint64(), GCCPUSeconds: samples[1].Value.Float64(),
		AllocatedBytes: samples[2].Value.Uint64(), Mallocs: samples[3].Value.Uint64(), Goroutines: runtime.NumGoroutine(),
	}
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		p.CPUSeconds = seconds(use.Utime) + seconds(use.Stime)
	}
	p.RSSBytes = residentBytes("self")
	return p
}

// workerNow is nil when there is no such process.
func workerNow(pid int) *workerStats {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || pid <= 0 {
		return nil
	}
	// After the name in brackets, which may have any character: user and system time are the 12th and
	// 13th field, in units of which Linux has 100 a second for programs, whatever its own clock does.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return nil
	}
	user, _ := strconv.ParseInt(string(fields[11]), 10, 64)
	system, _ := strconv.ParseInt(string(fields[12]), 10, 64)
	return &workerStats{PID: pid, CPUSeconds: float64(user+system) / 100, RSSBytes: residentBytes(strconv.Itoa(pid))}
}

// residentBytes is the memory of a process; 0 where the kernel does not tell.
func residentBytes(pid string) int64 { return statm(pid, 1) }

// statm is a field of the memory of a process, in bytes: 0 is its addresses, 1 what is resident. 0 where the kernel
// does not tell.
func statm(pid string, field int) int64 {
	b, err := os.ReadFile("/proc/" + pid + "/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) <= field {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[field]), 10, 64)
	return pages * int64(os.Getpagesize())
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
