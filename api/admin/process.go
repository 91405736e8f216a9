package admin

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"hailoclip/stages/clip"
)

// started is when the process began, nearly.
var started = time.Now()

// process writes the usual metrics of a process and of Go under their usual names. Those that package metrics would write have no
// HELP, which promtool demands.
func (p *page) process(s clip.ProcessStats) {
	p.family("go_info", gauge, "The version of Go; always 1.")
	p.value(1, "version", runtime.Version())
	p.one("go_goroutines", gauge, "Goroutines.", float64(s.Goroutines))
	p.one("go_gc_cpu_seconds_total", counter, "CPU time of the garbage collector.", s.GCCPUSeconds)
	p.one("go_memstats_heap_alloc_bytes", gauge, "Bytes of live objects and those not swept yet.", float64(s.HeapBytes))
	p.one("go_memstats_alloc_bytes_total", counter, "Bytes that were allocated on the heap.", float64(s.AllocatedBytes))
	p.one("go_memstats_mallocs_total", counter, "Objects that were allocated on the heap.", float64(s.Mallocs))
	p.one("process_cpu_seconds_total", counter, "CPU time, user and system.", s.CPUSeconds)
	p.one("process_resident_memory_bytes", gauge, "Resident memory.", float64(s.RSSBytes))
	p.one("process_start_time_seconds", gauge, "When the process began, in seconds since 1970.", float64(started.UnixMilli())/1000)
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.one("process_open_fds", gauge, "Open file descriptors.", float64(len(files)))
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		p.one("process_max_fds", gauge, "File descriptors that may be open.", float64(limit.Cur))
	}
}
