package clip

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"syscall"

	"golang.org/x/sys/unix"

	"hailoclip/stages/decode"
)

// MemoryLimits says how much memory there is, and how much of it is not for images. All in bytes.
type MemoryLimits struct {
	Max     int64 // of the process; math.MaxInt64: none
	Bodies  int   // of the bodies of requests, at most
	Body    int   // of the largest body
	Lists   int64 // of the lists of prompts in the cache, and of prompt sets
	Workers int   // that decode
}

// Memory divides what there is among those who take it. All in bytes.
type Memory struct {
	Runtime int64 // soft limit of the Go runtime, with images of no library in memory; math.MaxInt64: none
	Bodies  int   // for the bodies of requests
	Images  int64 // for images that are being decoded
}

// leastHeap is how much the Go runtime may always hold beyond what is live after the start: with less it would do
// nothing but collect garbage.
const leastHeap = 32 << 20

// plan divides a machine's memory, total, when the models are loaded and a text and an image have been encoded, so that
// what they take is known: used bytes, of which the Go runtime holds goUsed and keeps live. Without a limit images take
// at most half of the total.
func (l MemoryLimits) plan(total, used, goUsed, live int64) Memory {
	limit := l.Max
	if limit == math.MaxInt64 {
		return Memory{Runtime: math.MaxInt64, Bodies: l.Bodies, Images: total / 2}
	}
	if total > 0 {
		limit = min(limit, total)
	}
	m := Memory{Bodies: max(min(l.Bodies, int(limit/8)), 2*l.Body)}
	// Libraries fragment what they take and run into their largest batch late: a sixteenth is left to them.
	m.Runtime = max(limit-max(used-goUsed, 0)-limit/16, live+leastHeap)
	// A fifth of what is left stays free, so that the collector is not always at work.
	m.Images = max(m.Runtime-live-int64(m.Bodies)-l.Lists, 0) / 5 * 4
	return m
}

// DivideMemory sets the limit of the Go runtime and returns what bodies and images may take. The models must be loaded,
// and a text and an image encoded.
func DivideMemory(l MemoryLimits, log *slog.Logger) Memory {
	var info syscall.Sysinfo_t
	_ = syscall.Sysinfo(&info) // zeros on failure
	debug.FreeOSMemory()       // what loading the models left
	live := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(live)
	used := processOf(os.Getpid()).resident
	total := int64(info.Totalram) * int64(info.Unit)
	if left, limited := addressesLeft(); limited {
		total = min(total, used+left/4*3) // the rest is lost between mappings
		l.Max = min(l.Max, total)
	}
	m := l.plan(total, used, decode.GoMemory(), int64(live[0].Value.Uint64()))
	debug.SetMemoryLimit(m.Runtime)
	if least := decode.LeastBudget(l.Workers); m.Images < least {
		log.Warn("resource_limits.memory_max leaves little for images: large ones are refused",
			"limit_mb", l.Max>>20, "left_mb", m.Images>>20, "wanted_mb", least>>20)
	}
	log.Debug("memory", "runtime_mb", m.Runtime>>20, "bodies_mb", m.Bodies>>20, "images_mb", m.Images>>20)
	return m
}

// addressesLeft is how many bytes of addresses the process may still take, where RLIMIT_AS (LimitAS= of a unit) limits
// them: beyond it the Go runtime ends the process.
func addressesLeft() (left int64, limited bool) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return 0, false
	}
	return max(int64(min(limit.Cur, math.MaxInt64))-processOf(os.Getpid()).addresses, 0), true
}
