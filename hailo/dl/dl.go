// Package dl opens shared libraries without cgo.
package dl

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Library is a shared library in the process. It is never unloaded, since threads may still be inside. Safe for
// concurrent use.
type Library struct{ handle uintptr }

// Open loads a library: a file, or a name without a slash that the system's loader looks up.
func Open(name string) (Library, error) {
	defer lockThread()()
	handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	return Library{handle}, err
}

// Symbol returns the address of a symbol of the library, or of a library that it is linked with.
func (l Library) Symbol(name string) (uintptr, error) {
	defer lockThread()()
	return purego.Dlsym(l.handle, name)
}

// Bind stores the address of each named symbol. Its error says which one is missing.
func (l Library) Bind(symbols map[string]*uintptr) (err error) {
	for name, to := range symbols {
		if *to, err = l.Symbol(name); err != nil {
			return err
		}
	}
	return nil
}

// lockThread keeps the goroutine on its thread, for which alone the loader keeps its last error, until the result
// is called.
func lockThread() (unlock func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}

// MappedFile returns the path of the first file mapped into the process whose name contains part; "" if there is none.
func MappedFile(part string) string {
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if i := strings.IndexByte(line, '/'); i >= 0 && strings.Contains(filepath.Base(line), part) {
			return strings.TrimSpace(line[i:])
		}
	}
	return ""
}

// Pointer makes a pointer of an address in C memory. The detour keeps go vet from taking it for an address of Go
// memory, which would be a mistake.
func Pointer(c uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&c)) }

// String copies a C string; "" for a null pointer.
func String(c uintptr) string {
	n, start := 0, (*byte)(Pointer(c))
	for start != nil && *(*byte)(unsafe.Add(unsafe.Pointer(start), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(start, n))
}
