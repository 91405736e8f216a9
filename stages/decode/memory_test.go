package decode

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"hailoclip/hailo/dl"
)

// TestPoolKeepsNothingHuge looks for released buffers in the pools.
func TestPoolKeepsNothingHuge(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	kept := func() (sizes []int) {
		for i := range pools {
			for b, _ := pools[i].Get().(*buffer); b != nil; b, _ = pools[i].Get().(*buffer) {
				sizes = append(sizes, cap(b.bytes))
			}
		}
		return sizes
	}
	huge := newImage(maxPooled/3+1, 1)
	huge.Release()
	for _, size := range kept() { // small ones may be left from other tests
		if size > maxPooled {
			t.Errorf("a buffer of %d bytes is kept", size)
		}
	}
	found := false
	for range 20 { // the race detector makes pools forget
		largest := newImage(maxPooled/3, 1)
		largest.Release()
		found = found || slices.Contains(kept(), maxPooled)
	}
	if !found {
		t.Errorf("no buffer of %d bytes is ever kept", maxPooled)
	}
}

// TestLibrariesGiveBack takes a block as large as the coefficients of a component of 16 million pixels, twice: glibc
// learns from the first. What is freed must be gone from the process.
func TestLibrariesGiveBack(t *testing.T) {
	if _, err := FindLibrary(); err != nil {
		t.Skip(err)
	}
	library, err := dl.Open("libturbojpeg.so.0")
	if err != nil {
		t.Skip(err)
	}
	var malloc, free, mallopt uintptr
	if err := library.Bind(map[string]*uintptr{"malloc": &malloc, "free": &free, "mallopt": &mallopt}); err != nil {
		t.Skip("not glibc")
	}
	runtime.LockOSThread() // an arena belongs to a thread
	defer runtime.UnlockOSThread()
	const block = 31 << 20
	for range 2 {
		p, _, _ := purego.SyscallN(malloc, block)
		if p == 0 {
			t.Fatal("no memory")
		}
		page := (p + block/2) &^ uintptr(os.Getpagesize()-1)
		if !mapped(page) {
			t.Error("a block in use is not mapped")
		}
		if purego.SyscallN(free, p); mapped(page) {
			t.Error("a freed block is still mapped")
		}
	}
}

// mapped says whether the process has a page at an address.
func mapped(page uintptr) bool {
	var resident byte
	_, _, errno := syscall.Syscall(syscall.SYS_MINCORE, page, 1, uintptr(unsafe.Pointer(&resident)))
	return errno == 0
}
