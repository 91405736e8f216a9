package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrSafetensors says that a .safetensors file is damaged or has not what is asked for.
var ErrSafetensors = errors.New("bad .safetensors file")

const (
	// maxSafetensorsHeader bounds the header: that of CLIP ViT-L/14 has 0.06 MB.
	maxSafetensorsHeader = 8 << 20 // bytes
	maxTensorRank        = 8
)

// elementBytes are the sizes of the types of the format. Only those of floats of up to 32 bits are read.
var elementBytes = map[string]int64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
	"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}

// safetensors is an open file of tensors (https://github.com/huggingface/safetensors): the length of the header in 8 bytes,
// the header in JSON, the numbers of all tensors in little-endian order. The file may hold anything: what it says of
// itself is held to its size before it is believed.
type safetensors struct {
	r       io.ReaderAt
	data    int64 // where the numbers begin
	tensors map[string]tensor
}

// tensor is an entry of the header.
type tensor struct {
	DType   string  `json:"dtype"`
	Shape   []int64 `json:"shape"`
	Offsets []int64 `json:"data_offsets"` // begin and end, from safetensors.data
}

// readSafetensors reads the header of a file of the given size in bytes, and checks that each of its tensors lies within
// the file and is as long as its shape says. It allocates in proportion to the header, which has 8 MB at most. Error:
// ErrSafetensors.
func readSafetensors(r io.ReaderAt, size int64) (*safetensors, error) {
	s := &safetensors{r: r, tensors: map[string]tensor{}}
	if err := s.readHeader(size); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSafetensors, err)
	}
	return s, nil
}

func (s *safetensors) readHeader(size int64) error {
	var length [8]byte
	if _, err := s.r.ReadAt(length[:], 0); err != nil || size < 8 {
		return errors.New("it is shorter than 8 bytes")
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxSafetensorsHeader || int64(n) > size-8 {
		return fmt.Errorf("header of %d bytes, at most %d in a file of %d", n, maxSafetensorsHeader, size)
	}
	header := make([]byte, n)
	if _, err := s.r.ReadAt(header, 8); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	s.data = 8 + int64(n)
	d := json.NewDecoder(bytes.NewReader(header))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("header: want a JSON object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		name, _ := key.(string)
		if name == "__metadata__" {
			var notes map[string]string
			err = d.Decode(&notes)
		} else {
			err = s.readTensor(d, name, size-s.data)
		}
		if err != nil {
			return fmt.Errorf("header: tensor %.128q: %w", name, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if _, err := d.Token(); err != io.EOF { // spaces may fill it up
		return errors.New("header: something follows the object")
	}
	return nil
}

// readTensor reads the entry of a tensor; data is how many bytes follow the header.
func (s *safetensors) readTensor(d *json.Decoder, name string, data int64) error {
	if _, twice := s.tensors[name]; twice {
		return errors.New("it is there twice")
	}
	var t tensor
	if err := d.Decode(&t); err != nil {
		return err
	}
	want := elementBytes[t.DType]
	if want == 0 {
		return fmt.Errorf("type %.16q is not known", t.DType)
	}
	if len(t.Shape) > maxTensorRank || len(t.Offsets) != 2 {
		return fmt.Errorf("%d sides and %d offsets, want at most %d and 2", len(t.Shape), len(t.Offsets), maxTensorRank)
	}
	for _, side := range t.Shape {
		if side < 0 || side > 0 && want > data/side { // then it is larger than the file
			return fmt.Errorf("shape %v does not fit into %d bytes", t.Shape, data)
		}
		want *= side
	}
	if begin, end := t.Offsets[0], t.Offsets[1]; begin < 0 || end < begin || end > data || end-begin != want {
		return fmt.Errorf("bytes %d to %d of %d, want %d for %s of %v", begin, end, data, want, t.DType, t.Shape)
	}
	s.tensors[name] = t
	return nil
}

// matrix returns rows and columns of a tensor. Error: ErrSafetensors, if it is not there, not a matrix of F32, F16 or
// BF16, empty, or larger than what ReadNpy reads.
func (s *safetensors) matrix(name string) (rows, cols int, err error) {
	t, ok := s.tensors[name]
	switch {
	case !ok:
		return 0, 0, fmt.Errorf("%w: there is no %s", ErrSafetensors, name)
	case len(t.Shape) != 2:
		return 0, 0, fmt.Errorf("%w: %s has the shape %v, want a matrix", ErrSafetensors, name, t.Shape)
	case t.DType != "F32" && t.DType != "F16" && t.DType != "BF16":
		return 0, 0, fmt.Errorf("%w: %s is of type %s, want F32, F16 or BF16", ErrSafetensors, name, t.DType)
	case t.Shape[0] < 1 || t.Shape[1] < 1 || t.Shape[0] > maxNpyElement/t.Shape[1]:
		return 0, 0, fmt.Errorf("%w: %s has the shape %v, want 1 to %d elements", ErrSafetensors, name, t.Shape, maxNpyElement)
	}
	return int(t.Shape[0]), int(t.Shape[1]), nil
}

// read calls put with each row of a matrix in turn, which it may use until it returns. It allocates a row. Error:
// ErrSafetensors, also for numbers that are not finite; that of put.
func (s *safetensors) read(name string, put func(row []float32) error) error {
	rows, cols, err := s.matrix(name)
	if err != nil {
		return err
	}
	t := s.tensors[name]
	width := int(elementBytes[t.DType])
	in, row := make([]byte, cols*width), make([]float32, cols)
	for i := range rows {
		if _, err := s.r.ReadAt(in, s.data+t.Offsets[0]+int64(i)*int64(len(in))); err != nil {
			return fmt.Errorf("%w: %s, row %d: %w", ErrSafetensors, name, i, err)
		}
		for j := range row {
			switch t.DType {
			case "F32":
				row[j] = math.Float32frombits(binary.LittleEndian.Uint32(in[4*j:]))
			case "F16":
				row[j] = float16(binary.LittleEndian.Uint16(in[2*j:]))
			case "BF16": // the upper half of a float32
				row[j] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(in[2*j:])) << 16)
			}
			if v := float64(row[j]); math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("%w: %s, row %d, column %d is %v", ErrSafetensors, name, i, j, v)
			}
		}
		if err := put(row); err != nil {
			return err
		}
	}
	return nil
}
