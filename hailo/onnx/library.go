package onnx

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/ebitengine/purego"

	"hailoclip/hailo/dl"
)

// ErrNoLibrary says that no ONNX Runtime library could be used. The error that wraps it lists
// what was tried and what to do.
var ErrNoLibrary = errors.New("no usable ONNX Runtime library")

// Library is ONNX Runtime, loaded into the process. It stays loaded until the process ends. Safe for concurrent use.
type Library struct {
	Path    string // the file, or the name that the system found it under
	Version string // as the library tells it: "1.24.3"

	api    table
	env    uintptr // OrtEnv: logging and shared state, one for the process
	memory uintptr // OrtMemoryInfo of ordinary memory
}

// Load finds and loads ONNX Runtime 1.17 or newer. With library set, it is that file or nothing. Otherwise the first
// of these that works: beside the program, the file that Fetch put into one of dirs, the system's. A library runs
// with all that this process may do, so one that another user could have put there is taken only if it is the
// published one by its digest; who is not root may name any. The error wraps ErrNoLibrary.
func Load(library string, dirs ...string) (*Library, error) {
	var tried []error
	for _, path := range candidates(library, dirs) {
		l, err := load(path, library != "")
		if err == nil {
			return l, nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", path, err))
	}
	if library != "" { // the one that is fetched would not be looked at
		return nil, fmt.Errorf("%w: cpu.library is %w; correct it, or leave it empty and run \"hailo-clip setup\"", ErrNoLibrary, tried[0])
	}
	return nil, fmt.Errorf("%w (\"hailo-clip setup\" fetches one); tried:\n%w", ErrNoLibrary, errors.Join(tried...))
}

// sonames are the names that packages install the library under.
var sonames = []string{"libonnxruntime.so.1", "libonnxruntime.so"}

// candidates lists what Load tries, in order.
func candidates(library string, dirs []string) []string {
	if library != "" {
		return []string{library}
	}
	var list []string
	if program, err := os.Executable(); err == nil {
		for _, name := range sonames {
			list = append(list, filepath.Join(filepath.Dir(program), name))
		}
	}
	for _, dir := range dirs {
		if dir != "" {
			list = append(list, LibraryFile(dir, runtime.GOARCH))
		}
	}
	return append(list, sonames...)
}

var (
	loadedMu sync.Mutex
	loaded   = map[string]*Library{} // by path; never unloaded, threads may still be inside
)

// load loads the library at path, a file or a name for the system's loader. named says that the
// configuration names it.
func load(path string, named bool) (*Library, error) {
	loadedMu.Lock()
	defer loadedMu.Unlock()
	if l := loaded[path]; l != nil {
		return l, nil
	}
	file := path
	if strings.ContainsRune(path, filepath.Separator) {
		trusted, done, err := vouch(path, named && os.Geteuid() != 0)
		if err != nil {
			return nil, err
		}
		defer done()
		file = trusted
	}
	library, err := dl.Open(file)
	if err != nil {
		return nil, err
	}
	l, err := start(library)
	if err != nil {
		return nil, err // stays mapped: closing a library of this size is not safe
	}
	l.Path = path
	loaded[path] = l
	return l, nil
}

// checkWhole refuses a library that lacks a part of what the loader would map. The loader maps past
// the end of such a file, and the first touch of what is not there ends the process.
func checkWhole(file *os.File, size int64) error {
	f, err := elf.NewFile(file)
	if err != nil {
		return fmt.Errorf("not a library, or cut short: %w", err)
	}
	for _, p := range f.Progs {
		if end := p.Off + p.Filesz; p.Type == elf.PT_LOAD && (end < p.Off || end > uint64(size)) {
			return fmt.Errorf("cut short: it has %d of at least %d bytes", size, end)
		}
	}
	return nil
}

// start asks an opened library for its functions and makes its environment.
func start(library dl.Library) (*Library, error) {
	symbol, err := library.Symbol("OrtGetApiBase")
	if err != nil {
		return nil, errors.New("not ONNX Runtime: it has no OrtGetApiBase")
	}
	base, _, _ := purego.SyscallN(symbol) // OrtApiBase: {GetApi, GetVersionString}
	version, _, _ := purego.SyscallN(table(base).fn(1))
	l := &Library{Version: dl.String(version)}
	if err := checkVersion(l.Version); err != nil {
		return nil, err
	}
	api, _, _ := purego.SyscallN(table(base).fn(0), apiVersion)
	if api == 0 {
		return nil, fmt.Errorf("version %s has no API %d", l.Version, apiVersion)
	}
	l.api = table(api)

	var pin runtime.Pinner
	defer pin.Unpin()
	// Everything that matters comes back as a status. ORT's own log would go to stderr past our
	// logger, with a page of C++ for every run that a deadline ends.
	if l.env, err = l.api.get(apiCreateEnv, logFatal, cString(&pin, "hailo-clip")); err != nil {
		return nil, err
	}
	l.memory, err = l.api.get(apiCreateCPUMemory, arenaAllocator, memoryTypeDefault)
	return l, err
}

// checkVersion refuses libraries older than the API that we ask for.
func checkVersion(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("unknown version %q", version)
	}
	if major < 1 || major == 1 && minor < int(apiVersion) {
		return fmt.Errorf("version %s is too old, 1.%d or newer is needed", version, apiVersion)
	}
	return nil
}
