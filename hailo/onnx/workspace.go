package onnx

import (
	"runtime"
	"unsafe"
)

// workspace is the memory of one run: whoever holds it may run. Its buffers are pinned for its whole
// life, because C reads and writes them.
type workspace struct {
	args   *runArgs
	inputs []tensor
	pixels []float32 // as the model takes images, one after another
	tokens []int64   // input_ids, and
	mask   []int64   // attention_mask; int32 lies in the same memory
	out    []float32
	pin    runtime.Pinner
}

func newWorkspace(pixels, tokens, out int) *workspace {
	s := &workspace{
		args: new(runArgs), inputs: make([]tensor, 0, maxInputs),
		pixels: make([]float32, pixels), out: make([]float32, out),
		tokens: make([]int64, tokens), mask: make([]int64, tokens),
	}
	s.pin.Pin(s.args)
	for _, b := range [][]float32{s.pixels, s.out} {
		s.pin.Pin(unsafe.SliceData(b))
	}
	for _, b := range [][]int64{s.tokens, s.mask} {
		s.pin.Pin(unsafe.SliceData(b))
	}
	return s
}

// embedding is the i-th vector of a run, before it is normalised.
func (s *workspace) embedding(i, dim int) []float32 { return s.out[i*dim : (i+1)*dim] }

// setInt writes v as the i-th number of b, which holds numbers of the given element type.
func setInt(b []int64, element uintptr, i int, v int32) {
	if element == typeInt32 {
		unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), 2*len(b))[i] = v
		return
	}
	b[i] = int64(v)
}

// setTokens writes one text into row i of length tokens: its ids, then padding, and a mask that
// is 1 up to the end token, as Hugging Face's tokenizer makes it. CLIP's attention is causal, so
// what follows the end token cannot reach the embedding, which is read there.
func (s *workspace) setTokens(l layout, i, length int, ids []int32, pad int32) {
	for j := range length {
		id, mask := pad, int32(0)
		if j < len(ids) {
			id, mask = ids[j], 1
		}
		setInt(s.tokens, l.tokens, i*length+j, id)
		setInt(s.mask, l.mask, i*length+j, mask)
	}
}

// floats and ints describe the first rows of a buffer as a tensor.
func floats(b []float32, dims ...int) tensor {
	return newTensor(uintptr(unsafe.Pointer(unsafe.SliceData(b))), 4, dims)
}

func ints(b []int64, element uintptr, dims ...int) tensor {
	size := 8
	if element == typeInt32 {
		size = 4
	}
	return newTensor(uintptr(unsafe.Pointer(unsafe.SliceData(b))), size, dims)
}

func newTensor(data uintptr, size int, dims []int) tensor {
	t := tensor{data: data, bytes: size, rank: len(dims)}
	for i, d := range dims {
		t.dims[i] = int64(d)
		t.bytes *= d
	}
	return t
}
