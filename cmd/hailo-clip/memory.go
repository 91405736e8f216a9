package main

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"syscall"

	"golang.org/x/sys/unix"

	"hailoclip/configs"
	"hailoclip/stages/decode"
)

// memoryPlan divides resource_limits.memory_max among those who take memory. All in bytes.
type memoryPlan struct {
	runtime int64 // soft limit of the Go runtime, with images of no library in memory; math.MaxInt64: none
	bodies  int   // for the bodies of requests
	images  int64 // for images that are being decoded
}

// leastHeap is what the Go runtime may hold beside what lives after the start, however small the limit is: below that
// it would do nothing but collect.
const leastHeap = 32 << 20

// planMemory is called when the models are loaded and a text and an image have been encoded, so that what they take
// is known: used bytes, of which the Go runtime holds goUsed and keeps live. limit is math.MaxInt64 where there is
// none; then images take at most half of the machine's memory, total.
func planMemory(cfg configs.Config, limit, total, used, goUsed, live int64) memoryPlan {
	if limit == math.MaxInt64 {
		return memoryPlan{runtime: math.MaxInt64, bodies: cfg.Server.MaxBodyMemoryBytes, images: total / 2}
	}
	if total > 0 {
		limit = min(limit, total)
	}
	p := memoryPlan{bodies: max(min(cfg.Server.MaxBodyMemoryBytes, int(limit/8)), 2*cfg.Server.MaxBodyBytes)}
	// Libraries fragment what they take and run into their largest batch late: a sixteenth is left to them.
	p.runtime = max(limit-max(used-goUsed, 0)-limit/16, live+leastHeap)
	// A fifth of what is left stays free, so that the collector is not always at work.
	p.images = max(p.runtime-live-int64(p.bodies)-cfg.TextEmbedding.CacheListBytes, 0) / 5 * 4
	return p
}

// divideMemory sets the limit of the Go runtime and returns what bodies and images may take.
func (e *engine) divideMemory() memoryPlan {
	limit, _ := e.cfg.ResourceLimits.MemoryBytes() // checked by Load
	var info syscall.Sysinfo_t
	_ = syscall.Sysinfo(&info) // zeros on failure
	debug.FreeOSMemory()       // what loading the models left
	live := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(live)
	used := residentBytes("self")
	total := int64(info.Totalram) * int64(info.Unit)
	if left, limited := addressesLeft(); limited {
		total = min(total, used+left/4*3) // the rest is lost between mappings
		limit = min(limit, total)
	}
	p := planMemory(e.cfg, limit, total, used, decode.GoMemory(), int64(live[0].Value.Uint64()))
	debug.SetMemoryLimit(p.runtime)
	if least := decode.LeastBudget(e.cfg.Performance.WorkerThreads); p.images < least {
		e.log.Warn("resource_limits.memory_max leaves little for images: large ones are refused",
			"memory_max", e.cfg.ResourceLimits.MemoryMax, "left_mb", p.images>>20, "wanted_mb", least>>20)
	}
	e.log.Debug("memory", "runtime_mb", p.runtime>>20, "bodies_mb", p.bodies>>20, "images_mb", p.images>>20)
	return p
}

// addressesLeft is how many bytes of addresses the process may still take, where RLIMIT_AS (LimitAS= of a unit) limits
// them: beyond it the Go runtime ends the process.
func addressesLeft() (left int64, limited bool) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return 0, false
	}
	return max(int64(min(limit.Cur, math.MaxInt64))-statm("self", 0), 0), true
}
