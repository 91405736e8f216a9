package decode

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"hailoclip/hailo/dl"
)

// FindLibrary opens libturbojpeg, once for the process, and returns the file behind it, links resolved; "" when that could
// not be found out. The error says where it was looked for and how to install it; without it JPEGs are decoded by the Go
// standard library, which is slower and not byte-exact. Safe for concurrent use.
func FindLibrary() (path string, err error) {
	lib, err := loadTurbo()
	if err != nil {
		return "", err
	}
	return lib.path, nil
}

// JPEGs names what decodes them, "turbo" or "go": pixels are equal only with the same.
func JPEGs() string {
	if _, err := loadTurbo(); err != nil {
		return "go"
	}
	return "turbo"
}

// turboLib is the opened library: the addresses of its functions (turbojpeg.h, TurboJPEG API 2, which
// version 3 of the library still has).
type turboLib struct {
	path                                                   string
	initDecompress, destroy, header, decompress, errorText uintptr
}

var loadTurbo = sync.OnceValues(func() (*turboLib, error) { return openTurbo(libraryNames()) })

// libraryNames are the names to try: first as the system's loader finds them, then in the folders where
// distributions and the library's own installer put them.
func libraryNames() []string {
	names := []string{"libturbojpeg.so.0", "libturbojpeg.so"}
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	for _, dir := range []string{"/usr/lib/" + triplet, "/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/libjpeg-turbo/lib64"} {
		names = append(names, filepath.Join(dir, names[0]), filepath.Join(dir, names[1]))
	}
	return names
}

func openTurbo(names []string) (*turboLib, error) {
	var errs []error
	for _, name := range names {
		library, err := dl.Open(name)
		if err != nil {
			if _, gone := os.Stat(name); filepath.IsAbs(name) && gone != nil {
				continue // the loader's words for the plain names are enough
			}
			errs = append(errs, err)
			continue
		}
		lib := &turboLib{path: dl.MappedFile("libturbojpeg.so")}
		if err := library.Bind(map[string]*uintptr{
			"tjInitDecompress": &lib.initDecompress, "tjDestroy": &lib.destroy, "tjDecompressHeader3": &lib.header,
			"tjDecompress2": &lib.decompress, "tjGetErrorStr2": &lib.errorText,
		}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		giveBack(library)
		return lib, nil
	}
	return nil, fmt.Errorf("libturbojpeg not found (Debian: apt-get install libturbojpeg0): %w", errors.Join(errs...))
}

// Constants of turbojpeg.h.
const (
	tjRGB        = 0 // TJPF_RGB
	tjCMYK       = 11
	tjLimitScans = 32768 // TJFLAG_LIMITSCANS: fail on more than 500 scans (ignored before 2.1)
)

// turboWarnings are the beginnings of libjpeg's warnings (JWRN_* of jerror.h) that a whole file can cause: the image
// was decoded all the same. The library's own answer, tjGetErrorCode, cannot be used: it says "warning" as well of a
// decoding that ended with an error after one. Its text is that of the first warning, unless an error came, whose text
// replaces it; so what is not in this list, such as a text of a later version, is an error.
var turboWarnings = []string{
	"Corrupt JPEG data: ",
	"Inconsistent progression sequence for component ",
	"Unknown Adobe color transform code ",
	"Warning: unknown JFIF revision number ",
	"Invalid SOS parameters for sequential JPEG",
}

// turbo is one decompressor of the library, for one file: it keeps tables of what it has read. Not for concurrent use.
type turbo struct {
	lib    *turboLib
	handle uintptr
	// What the library writes.
	width, height, subsampling, colorspace int32
}

// open makes the decompressor; close must follow, whatever open returns. The library keeps its error texts by thread,
// so the goroutine stays on this one until then.
func (t *turbo) open() error {
	runtime.LockOSThread()
	if t.handle, _, _ = purego.SyscallN(t.lib.initDecompress); t.handle == 0 {
		return errors.New("no memory for a decompressor")
	}
	return nil
}

func (t *turbo) close() {
	if t.handle != 0 {
		purego.SyscallN(t.lib.destroy, t.handle)
		t.handle = 0
	}
	runtime.UnlockOSThread()
}

// readHeader fills t.width and t.height. The size alone tells whether it was read: the library reports success with
// 0 x 0 for some input that is no JPEG, and sets it last.
func (t *turbo) readHeader(b []byte) error {
	rc, _, _ := purego.SyscallN(t.lib.header, t.handle, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		uintptr(unsafe.Pointer(&t.width)), uintptr(unsafe.Pointer(&t.height)),
		uintptr(unsafe.Pointer(&t.subsampling)), uintptr(unsafe.Pointer(&t.colorspace)))
	switch {
	case t.width > 0 && t.height > 0:
		// Read to the end, whatever rc says: it may be a warning, or that the subsampling has no name in
		// the library's list, which does not keep it from decoding.
		return nil
	case int32(rc) != 0:
		return errors.New(t.message())
	}
	return errors.New("no image in it")
}

// decode writes the image at w x h, which must be the size of the header or one of its DCT scales, into dst: w*h pixels
// without gaps, 3 bytes each (4 for the pixel format tjCMYK). Where it returns no error, all of dst was written; warning
// is then the first one, empty if there was none.
func (t *turbo) decode(b, dst []byte, w, h, pixelFormat int) (warning string, err error) {
	size := 3
	if pixelFormat == tjCMYK {
		size = 4
	}
	_ = dst[: w*h*size : w*h*size]
	rc, _, _ := purego.SyscallN(t.lib.decompress, t.handle, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		uintptr(unsafe.Pointer(&dst[0])), uintptr(w), 0, uintptr(h), uintptr(pixelFormat), tjLimitScans)
	if int32(rc) == 0 {
		return "", nil
	}
	text := t.message()
	for _, known := range turboWarnings {
		if strings.HasPrefix(text, known) {
			return text, nil
		}
	}
	return "", errors.New(text)
}

func (t *turbo) message() string {
	p, _, _ := purego.SyscallN(t.lib.errorText, t.handle)
	return cmp.Or(dl.String(p), "unknown error")
}

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
