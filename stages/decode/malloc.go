package decode

import "github.com/ebitengine/purego"

// giveBack makes the C library return to the system what libraries free, where it is glibc. By itself glibc learns from
// the first large block that is freed to keep those of up to 32 MB, for each thread's arena: after the coefficients of
// 12 million pixels some 50 MB a thread, which nobody accounts for. handle is a library that is linked with it.
func giveBack(handle uintptr) {
	mallopt, err := purego.Dlsym(handle, "mallopt")
	if err != nil {
		return
	}
	const (
		trimThreshold, mmapThreshold = -1, -3 // M_* of malloc.h
		largest                      = 1 << 20
	)
	for _, parameter := range []int{mmapThreshold, trimThreshold} { // setting them ends the learning
		purego.SyscallN(mallopt, uintptr(parameter), largest)
	}
}
