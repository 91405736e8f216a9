package onnx

import (
	"errors"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"hailoclip/hailo/dl"
)

// The OrtApi is a table of C function pointers that only ever grows at its end, so that a
// position is good for every version from the one that introduced it. Positions are those of
// onnxruntime_c_api.h; all of them are older than version 1.17.
const (
	apiGetErrorMessage        = 2
	apiCreateEnv              = 3
	apiCreateSession          = 7
	apiCreateSessionFromArray = 8
	apiRun                    = 9
	apiCreateSessionOptions   = 10
	apiSetGraphOptimization   = 23
	apiSetIntraOpThreads      = 24
	apiSetInterOpThreads      = 25
	apiSessionInputCount      = 30
	apiSessionOutputCount     = 31
	apiSessionInputType       = 33
	apiSessionOutputType      = 34
	apiSessionInputName       = 36
	apiSessionOutputName      = 37
	apiCreateRunOptions       = 39
	apiRunOptionsTerminate    = 46
	apiCreateTensorWithData   = 49
	apiCastTypeToTensor       = 55
	apiTensorElementType      = 60
	apiTensorDimensionsCount  = 61
	apiTensorDimensions       = 62
	apiCreateCPUMemory        = 69
	apiAllocatorFree          = 76
	apiDefaultAllocator       = 78
	apiReleaseStatus          = 93
	apiReleaseSession         = 95
	apiReleaseValue           = 96
	apiReleaseRunOptions      = 97
	apiReleaseTypeInfo        = 98
	apiReleaseSessionOptions  = 100
)

// apiVersion is the OrtApi that we ask for: every library from 1.17 on has it.
const apiVersion uintptr = 17

// Values of ORT's enums that we use.
const (
	logFatal          = 4  // OrtLoggingLevel
	optimizeAll       = 99 // GraphOptimizationLevel
	arenaAllocator    = 1  // OrtAllocatorType
	memoryTypeDefault = 0  // OrtMemType
)

// Element types of tensors (ONNXTensorElementDataType).
const (
	typeFloat32 = 1
	typeInt32   = 6
	typeInt64   = 7
)

// table is the address of an OrtApi.
type table uintptr

// fn is the address of one function of the table.
func (t table) fn(position uintptr) uintptr {
	return *(*uintptr)(unsafe.Add(dl.Pointer(uintptr(t)), position*unsafe.Sizeof(t)))
}

// call runs a function that returns an OrtStatus, and turns the status into an error.
// Every pointer among the arguments must be to C memory or to pinned Go memory.
func (t table) call(position uintptr, args ...uintptr) error {
	status, _, _ := purego.SyscallN(t.fn(position), args...)
	if status == 0 {
		return nil
	}
	message, _, _ := purego.SyscallN(t.fn(apiGetErrorMessage), status)
	err := errors.New(dl.String(message))
	t.release(apiReleaseStatus, status)
	return err
}

// get runs a function whose last parameter is the address of its result (a pointer, a size or
// an enum), and returns that result.
func (t table) get(position uintptr, args ...uintptr) (uintptr, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	result := new(uintptr)
	pin.Pin(result)
	err := t.call(position, append(args, address(result))...)
	return *result, err
}

// release hands one object back to ORT. Zero is no object.
func (t table) release(position, object uintptr) {
	if object != 0 {
		purego.SyscallN(t.fn(position), object)
	}
}

// address is where a pinned value lies. The caller keeps it pinned while C may use it.
func address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// cString returns s as C wants it, pinned by pin.
func cString(pin *runtime.Pinner, s string) uintptr {
	b := append([]byte(s), 0)
	pin.Pin(&b[0])
	return address(&b[0])
}
