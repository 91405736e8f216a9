package decode

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// TestLibrariesGiveBack takes a block as large as the coefficients of a component of 16 million pixels, twice: glibc
// learns from the first. What is freed must be gone from the process.
func TestLibrariesGiveBack(t *testing.T) {
	if _, err := FindLibrary(); err != nil {
		t.Skip(err)
	}
	handle, err := purego.Dlopen("libturbojpeg.so.0", purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Skip(err)
	}
	malloc, errM := purego.Dlsym(handle, "malloc")
	free, errF := purego.Dlsym(handle, "free")
	if _, err := purego.Dlsym(handle, "mallopt"); err != nil || errM != nil || errF != nil {
		t.Skip("not glibc")
	}
	runtime.LockOSThread() // an arena belongs to a thread
	defer runtime.UnlockOSThread()
	const block = 31 << 20
	for range 2 {
		before := resident(t)
		p, _, _ := purego.SyscallN(malloc, block)
		if p == 0 {
			t.Fatal("no memory")
		}
		b := unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), block)
		for i := 0; i < block; i += 4096 {
			b[i] = 1
		}
		used := resident(t)
		purego.SyscallN(free, p)
		if after := resident(t); used-before < block/2 || after-before > block/4 {
			t.Errorf("%d MB before, %d with the block, %d after it", before>>20, used>>20, after>>20)
		}
	}
}

// resident is the memory of this process in bytes.
func resident(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	var size int
	if _, err := fmt.Fscan(bytes.NewReader(b), &size, &n); err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}
