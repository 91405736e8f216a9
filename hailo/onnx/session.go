package onnx

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"hailoclip/hailo/dl"
)

// source is an ONNX model: a file, or its bytes where it is no file on disk. ORT maps what it
// can of a file, and finds the weights that lie in a second file beside it (model.onnx_data).
type source struct {
	name  string // within the model's folder; "" is no model
	path  string // "": bytes
	bytes []byte
}

// session is a loaded model. Safe for concurrent runs.
type session struct {
	api     table
	memory  uintptr
	handle  uintptr
	inputs  []port
	outputs []port
	pin     runtime.Pinner // holds the names
}

// port is one input or output of a model.
type port struct {
	name    string
	cName   uintptr
	element uintptr // element type
	dims    []int64 // -1: any
}

func (p port) String() string {
	return fmt.Sprintf("%s %s%s", p.name, elementName(p.element), strings.ReplaceAll(fmt.Sprint(p.dims), "-1", "any"))
}

// newSession loads a model. It blocks while weights are read and prepared.
func newSession(l *Library, src source) (*session, error) {
	s := &session{api: l.api, memory: l.memory}
	var pin runtime.Pinner
	defer pin.Unpin()
	options, err := s.api.get(apiCreateSessionOptions)
	if err != nil {
		return nil, err
	}
	defer s.api.release(apiReleaseSessionOptions, options)
	// One thread for each run: several runs at once use the cores better than several threads in
	// one run, which spin at barriers and lose more than a core where a core is shared. Memory
	// arena, memory patterns and prepacked weights stay on, as they are by default: each was
	// measured to cost more when off than it saves.
	err = errors.Join(s.api.call(apiSetGraphOptimization, options, optimizeAll),
		s.api.call(apiSetIntraOpThreads, options, 1),
		s.api.call(apiSetInterOpThreads, options, 1))
	if err != nil {
		return nil, err
	}
	if src.path != "" {
		s.handle, err = s.api.get(apiCreateSession, l.env, cString(&pin, src.path), options)
	} else {
		data := unsafe.SliceData(src.bytes)
		pin.Pin(data)
		s.handle, err = s.api.get(apiCreateSessionFromArray, l.env, address(data), uintptr(len(src.bytes)), options)
	}
	if err != nil {
		return nil, err
	}
	s.inputs, err = s.ports(apiSessionInputCount, apiSessionInputName, apiSessionInputType)
	if err == nil {
		s.outputs, err = s.ports(apiSessionOutputCount, apiSessionOutputName, apiSessionOutputType)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close releases the session. No run may be under way or follow.
func (s *session) close() {
	s.api.release(apiReleaseSession, s.handle)
	s.handle = 0
	s.pin.Unpin()
}

// ports reads the names, types and shapes of all inputs or outputs.
func (s *session) ports(count, name, typ uintptr) ([]port, error) {
	n, err := s.api.get(count, s.handle)
	if err != nil {
		return nil, err
	}
	list := make([]port, n)
	for i := range list {
		if list[i], err = s.port(name, typ, uintptr(i)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (s *session) port(name, typ, index uintptr) (port, error) {
	allocator, err := s.api.get(apiDefaultAllocator)
	if err != nil {
		return port{}, err
	}
	text, err := s.api.get(name, s.handle, index, allocator)
	if err != nil {
		return port{}, err
	}
	p := port{name: dl.String(text)}
	p.cName = cString(&s.pin, p.name)
	if err := s.api.call(apiAllocatorFree, allocator, text); err != nil {
		return port{}, err
	}
	info, err := s.api.get(typ, s.handle, index)
	if err != nil {
		return port{}, err
	}
	defer s.api.release(apiReleaseTypeInfo, info)
	tensor, err := s.api.get(apiCastTypeToTensor, info) // part of info, not released
	if err != nil || tensor == 0 {                      // 0: a sequence or map, element type 0
		return p, err
	}
	if p.element, err = s.api.get(apiTensorElementType, tensor); err != nil {
		return port{}, err
	}
	rank, err := s.api.get(apiTensorDimensionsCount, tensor)
	if err != nil || rank == 0 {
		return p, err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	p.dims = make([]int64, rank)
	pin.Pin(&p.dims[0])
	return p, s.api.call(apiTensorDimensions, tensor, address(&p.dims[0]), rank)
}

// elementName is how a person calls an ONNX element type.
func elementName(t uintptr) string {
	names := [...]string{1: "float32", "uint8", "int8", "uint16", "int16", "int32", "int64",
		"string", "bool", "float16", "float64", "uint32", "uint64", 16: "bfloat16"}
	if t < uintptr(len(names)) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("type %d", t)
}

const (
	maxInputs = 3 // pixel_values, input_ids, attention_mask
	maxRank   = 4
)

// tensor is memory for one input or output of a run, pinned by its owner.
type tensor struct {
	data  uintptr
	bytes int
	dims  [maxRank]int64
	rank  int
}

// runArgs is what one run passes to C: pinned once by its owner, used by one run at a time.
type runArgs struct {
	names   [maxInputs + 1]uintptr // the output last
	values  [maxInputs + 1]uintptr // OrtValue
	dims    [maxInputs + 1][maxRank]int64
	options uintptr // OrtRunOptions
}

// run computes one output from all inputs, given in the order of s.inputs. When ctx ends, the
// run is stopped between two operators and the cause of ctx returned; after return nothing
// touches the tensors any more.
func (s *session) run(ctx context.Context, a *runArgs, inputs []tensor, output port, out tensor) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer s.releaseArgs(a)
	n := len(inputs)
	for i, in := range inputs {
		if err := s.newValue(a, i, s.inputs[i], in); err != nil {
			return err
		}
	}
	if err := s.newValue(a, n, output, out); err != nil {
		return err
	}
	// Fresh options for every run: the terminate flag stays set once it was.
	if err := s.api.call(apiCreateRunOptions, address(&a.options)); err != nil {
		return err
	}
	var terminated error
	gone := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(gone)
		terminated = s.api.call(apiRunOptionsTerminate, a.options)
	})
	err := s.api.call(apiRun, s.handle, a.options, address(&a.names[0]), address(&a.values[0]), uintptr(n),
		address(&a.names[n]), 1, address(&a.values[n]))
	if !stop() {
		<-gone // it must be done with the options before they are released
		err = errors.Join(err, terminated)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *session) newValue(a *runArgs, i int, p port, t tensor) error {
	a.names[i], a.dims[i] = p.cName, t.dims
	return s.api.call(apiCreateTensorWithData, s.memory, t.data, uintptr(t.bytes),
		address(&a.dims[i][0]), uintptr(t.rank), p.element, address(&a.values[i]))
}

func (s *session) releaseArgs(a *runArgs) {
	for _, v := range a.values {
		s.api.release(apiReleaseValue, v)
	}
	s.api.release(apiReleaseRunOptions, a.options)
	*a = runArgs{}
}
