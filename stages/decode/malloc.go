package decode

import (
	"github.com/ebitengine/purego"

	"hailoclip/hailo/dl"
)

// giveBack makes the C library return to the system what libraries free, where it is glibc. By itself glibc learns from
// the first large block that is freed to keep those of up to 32 MB, for each thread's arena: after the coefficients of
// 12 million pixels some 50 MB a thread, which nobody accounts for. library is one that is linked with it.
func giveBack(library dl.Library) {
	mallopt, err := library.Symbol("mallopt")
	if err != nil {
		return
	}
	const (
		trimThreshold = ^uintptr(0) // M_TRIM_THRESHOLD of malloc.h, -1
		mmapThreshold = ^uintptr(2) // M_MMAP_THRESHOLD, -3
		// Blocks of images of up to two million pixels stay, so that common images need not ask the system each time.
		largest = 4 << 20
	)
	purego.SyscallN(mallopt, mmapThreshold, largest) // setting one ends the learning
	purego.SyscallN(mallopt, trimThreshold, 2*largest)
}
