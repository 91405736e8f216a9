package clip

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"

	"hailoclip/cache"
	"hailoclip/hailo/npu"
	"hailoclip/pipeline"
)

// Stats is what GET /v1/stats answers: what is now, and counters since the start.
type Stats struct {
	Stages  []pipeline.StageStats `json:"stages"`
	Cache   cache.Stats           `json:"cache"`
	Sets    SetStats              `json:"prompt_sets"`
	Process ProcessStats          `json:"process"`
	NPU     *NPUStats             `json:"npu,omitempty"`
	CPU     *CPUStats             `json:"cpu,omitempty"` // what is encoded on the CPU, also while it stands in

	StandingIn bool `json:"standing_in"` // the device is lost, and images are encoded on the CPU
}

// ProcessStats are of this process.
type ProcessStats struct {
	CPUSeconds     float64 `json:"cpu_seconds"` // user and system
	RSSBytes       int64   `json:"rss_bytes"`
	HeapBytes      uint64  `json:"heap_bytes"` // live objects and those not swept yet
	GCCPUSeconds   float64 `json:"gc_cpu_seconds"`
	AllocatedBytes uint64  `json:"allocated_bytes"`
	Mallocs        uint64  `json:"mallocs"`
	Goroutines     int     `json:"goroutines"`
}

// NPUStats are the device's counters; temperatures that it does not tell are null.
type NPUStats struct {
	Ready        bool       `json:"ready"`
	Restarts     int        `json:"restarts"`
	Images       uint64     `json:"images"`
	Texts        uint64     `json:"texts"`
	Failed       uint64     `json:"failed"`
	ImageRuns    float64    `json:"image_runs"` // images / image_runs is the mean batch
	TextRuns     float64    `json:"text_runs"`
	ImageBatches []uint64   `json:"image_batches"` // [n]: images done in runs of n
	HeldRuns     uint64     `json:"held_runs"`     // for which the free device waited, so that callers who come back were in them
	HoldSeconds  float64    `json:"hold_seconds"`  // for how long, in all
	InFlight     int        `json:"in_flight"`
	ImageBusy    float64    `json:"image_busy_seconds"` // in which images were in flight: / image_runs is the time of a run under load
	ImagesPerSec float64    `json:"images_per_second"`  // while images were in flight
	Temperature  []*float64 `json:"temperature_celsius"`
	Throttling   uint32     `json:"throttling"`       // 0 none ... 5 streams off, 6 overheat
	Zone         uint32     `json:"temperature_zone"` // 0 green, 1 orange, 2 red

	// BaselineRate is ImagesPerSec as published for the model, in runs of eight; 0: it is not.
	BaselineRate float64  `json:"baseline_images_per_second"`
	NNCore       *float64 `json:"nn_core_utilization"` // 0 to 1; null: the device does not tell
	CPU          *float64 `json:"cpu_utilization"`     // of the device's processor, likewise
	MemoryBytes  uint64   `json:"memory_bytes"`        // 0: the device does not tell
	MemoryUsed   uint64   `json:"memory_used_bytes"`
	Overcurrent  bool     `json:"overcurrent"`

	Worker *WorkerStats `json:"worker,omitempty"` // not of the simulated chip, whose CPU time is not the service's
}

// CPUStats are what was encoded on the CPU.
type CPUStats struct {
	Images       uint64   `json:"images"`
	Texts        uint64   `json:"texts"`
	Failed       uint64   `json:"failed"`
	ImageBatches []uint64 `json:"image_batches"` // [n]: runs of n images
}

// WorkerStats are of the process that holds the device.
type WorkerStats struct {
	PID        int     `json:"pid"`
	CPUSeconds float64 `json:"cpu_seconds"` // user and system
	RSSBytes   int64   `json:"rss_bytes"`
}

// Stats returns the counters as they are now. It does not block on the device.
func (e *Engine) Stats() Stats {
	s := Stats{Stages: e.line.Stats(), Cache: e.parts.Store.Stats(), Sets: e.sets.stats(), Process: ProcessNow()}
	if e.parts.NPU != nil {
		m := e.parts.NPU.Metrics()
		s.NPU = newNPUStats(m)
		held, took := e.line.Held()
		s.NPU.HeldRuns, s.NPU.HoldSeconds = held, took.Seconds()
		if !e.parts.NPU.Info().Simulated {
			s.NPU.Worker = workerNow(m.Worker)
		}
	}
	if e.parts.CPU != nil {
		c := e.parts.CPU()
		s.CPU = &CPUStats{Images: c.Images, Texts: c.Texts, Failed: c.Failed, ImageBatches: c.Batches}
	}
	if f, ok := e.parts.Images.(interface{ StandingIn() bool }); ok {
		s.StandingIn = f.StandingIn()
	}
	return s
}

func newNPUStats(m npu.Metrics) *NPUStats {
	s := &NPUStats{
		Ready: m.Ready, Restarts: m.Restarts, Images: m.Frames[npu.ImageModel], Texts: m.Frames[npu.TextModel],
		Failed:    m.Failed[npu.ImageModel] + m.Failed[npu.TextModel],
		ImageRuns: m.Runs[npu.ImageModel], TextRuns: m.Runs[npu.TextModel], ImageBatches: m.Batches[:],
		InFlight: m.InFlight[npu.ImageModel] + m.InFlight[npu.TextModel], ImagesPerSec: m.Rate, ImageBusy: m.Busy.Seconds(),
		Throttling: m.Device.Throttling, Zone: m.Device.Zone, Overcurrent: m.Device.Overcurrent != 0, BaselineRate: m.Published,
		NNCore: share(m.Device.NNCore), CPU: share(m.Device.CPU), MemoryBytes: m.Device.Memory, MemoryUsed: m.Device.Used,
	}
	for _, t := range m.Device.Temperature {
		s.Temperature = append(s.Temperature, told(t))
	}
	return s
}

// told is what the device says; nil: nothing.
func told(v float32) *float64 {
	value := float64(v)
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil
	}
	return &value
}

// share is told of a percentage.
func share(v float32) *float64 { return told(v / 100) }

// ProcessNow is what this process has used up.
func ProcessNow() ProcessStats {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"},
	}
	metrics.Read(samples)
	p := ProcessStats{
		HeapBytes: samples[0].Value.Uint64(), GCCPUSeconds: samples[1].Value.Float64(),
		AllocatedBytes: samples[2].Value.Uint64(), Mallocs: samples[3].Value.Uint64(), Goroutines: runtime.NumGoroutine(),
	}
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		p.CPUSeconds = time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
	}
	p.RSSBytes = processOf(os.Getpid()).resident
	return p
}

// workerNow is nil when there is no such process.
func workerNow(pid int) *WorkerStats {
	if p := processOf(pid); p.resident > 0 {
		return &WorkerStats{PID: pid, CPUSeconds: p.cpu, RSSBytes: p.resident}
	}
	return nil
}

// process is what the kernel tells of a process.
type process struct {
	cpu                 float64 // seconds, user and system
	addresses, resident int64   // bytes
}

// processOf is zero where the kernel tells nothing.
func processOf(pid int) (p process) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// After the name in brackets, which may have any character: user and system time are the 12th and 13th field, in
	// units of which Linux has 100 a second for programs, whatever its own clock does; then, 21st and 22nd, memory.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 22 {
		return p
	}
	number := func(n int) int64 { v, _ := strconv.ParseInt(string(fields[n-1]), 10, 64); return v }
	p.cpu = float64(number(12)+number(13)) / 100
	p.addresses, p.resident = number(21), number(22)*int64(os.Getpagesize())
	return p
}
