package model

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo/internal/assert"
)

// tensorsFile writes a safetensors file with this header and these bytes after it.
func tensorsFile(header string, data []byte) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(file, header...), data...)
}

// readAll returns a matrix of a file, row by row.
func readAll(file []byte, name string) (rows, cols int, data []float32, err error) {
	s, err := readSafetensors(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return 0, 0, nil, err
	}
	if rows, cols, err = s.matrix(name); err != nil {
		return 0, 0, nil, err
	}
	err = s.read(name, func(row []float32) error { data = append(data, row...); return nil })
	return rows, cols, data, err
}

const tensorHeader = `{"__metadata__": {"format": "pt"}, "m": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},` +
	` "scale": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "ids": {"dtype": "I64", "shape": [1, 0], "data_offsets": [28, 28]}}   `

func TestReadSafetensors(t *testing.T) {
	data := npyBytes(9, 1, 2, 3, 4, 5, -6)
	var half, brain []byte
	for _, v := range []uint16{0x3c00, 0x4000, 0x4200, 0x4400, 0x0001, 0xc600} { // 0x0001 is subnormal
		half = binary.LittleEndian.AppendUint16(half, v)
	}
	for _, v := range []float32{1, 2, 3, 4, 5, -6} {
		brain = binary.LittleEndian.AppendUint16(brain, uint16(math.Float32bits(v)>>16))
	}
	small := func(dtype string) string {
		return `{"m": {"dtype": "` + dtype + `", "shape": [2, 3], "data_offsets": [0, 12]}}`
	}
	for name, c := range map[string]struct {
		file []byte
		want []float32
	}{
		"F32":  {tensorsFile(tensorHeader, data), []float32{1, 2, 3, 4, 5, -6}},
		"F16":  {tensorsFile(small("F16"), half), []float32{1, 2, 3, 4, 5.9604645e-8, -6}},
		"BF16": {tensorsFile(small("BF16"), brain), []float32{1, 2, 3, 4, 5, -6}},
	} {
		rows, cols, got, err := readAll(c.file, "m")
		assert.True(t, err == nil && rows == 2 && cols == 3 && slices.Equal(got, c.want), "%s: %d x %d %v, %v", name, rows, cols, got, err)
	}
}

func TestReadSafetensorsRefuses(t *testing.T) {
	data := npyBytes(9, 1, 2, 3, 4, 5, 6)
	edit := func(old, new string) []byte {
		header := strings.Replace(tensorHeader, old, new, 1)
		assert.MustTrue(t, header != tensorHeader, "%q is not there", old)
		return tensorsFile(header, data)
	}
	huge := fmt.Sprint(int64(math.MaxInt64))
	for name, file := range map[string][]byte{
		"empty":               nil,
		"seven bytes":         make([]byte, 7),
		"pickle":              []byte("\x80\x02}q\x00(X\x08\x00\x00\x00archive"),
		"cut in the header":   tensorsFile(tensorHeader, data)[:50],
		"huge header":         append(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), '{'),
		"header over limit":   append(binary.LittleEndian.AppendUint64(nil, maxSafetensorsHeader+1), make([]byte, maxSafetensorsHeader+100)...),
		"no JSON":             tensorsFile("xxxx", data),
		"a list":              tensorsFile("[]", data),
		"not closed":          tensorsFile(`{"m": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}`, data),
		"something after":     tensorsFile(tensorHeader+"{}", data),
		"twice":               edit(`"scale"`, `"m"`),
		"metadata":            edit(`"pt"`, `1`),
		"another type":        edit(`"I64"`, `"I65"`),
		"no type":             edit(`"dtype": "I64", `, ``),
		"one offset":          edit(`[28, 28]`, `[28]`),
		"no offsets":          edit(`"data_offsets": [28, 28]`, `"x": 1`),
		"before the data":     edit(`[28, 28]`, `[-4, -4]`),
		"after the data":      edit(`[4, 28]`, `[8, 32]`),
		"backwards":           edit(`[28, 28]`, `[28, 20]`),
		"overflow":            edit(`[4, 28]`, `[4, `+huge+`]`),
		"offset of a float":   edit(`[4, 28]`, `[4.5, 28.5]`),
		"shorter":             edit(`[4, 28]`, `[4, 24]`),
		"larger shape":        edit(`[2, 3]`, `[3, 3]`),
		"negative side":       edit(`[2, 3]`, `[-2, -3]`),
		"shape overflow":      edit(`[2, 3]`, `[`+huge+`, `+huge+`]`),
		"shape overflow by 4": edit(`[2, 3]`, `[4611686018427387905, 6]`),
		"many sides":          edit(`[2, 3]`, `[1, 1, 1, 1, 1, 1, 1, 2, 3]`),
	} {
		_, err := readSafetensors(bytes.NewReader(file), int64(len(file)))
		assert.ErrorIs(t, err, ErrSafetensors, "%s", name)
	}
	for name, c := range map[string]struct {
		tensor, says string
		file         []byte
	}{
		"not there":    {"x", "there is no x", tensorsFile(tensorHeader, data)},
		"a number":     {"scale", "want a matrix", tensorsFile(tensorHeader, data)},
		"integers":     {"ids", "of type I64", tensorsFile(tensorHeader, data)},
		"no columns":   {"ids", "want 1 to", edit(`"I64"`, `"F32"`)},
		"not a number": {"m", "row 1, column 2 is NaN", tensorsFile(tensorHeader, npyBytes(9, 1, 2, 3, 4, 5, float32(math.NaN())))},
		"infinite":     {"m", "row 0, column 0 is +Inf", tensorsFile(tensorHeader, npyBytes(9, float32(math.Inf(1)), 2, 3, 4, 5, 6))},
		"half NaN":     {"m", "NaN", tensorsFile(`{"m": {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]}}`, []byte{0, 0x7c})},
	} {
		_, _, _, err := readAll(c.file, c.tensor)
		assert.ErrorSays(t, err, ErrSafetensors, c.says, "%s", name)
	}
	file := tensorsFile(tensorHeader, data) // became shorter than it was
	s := assert.Value(readSafetensors(bytes.NewReader(file[:len(file)-4]), int64(len(file))))
	assert.ErrorIs(t, s.read("m", func([]float32) error { return nil }), ErrSafetensors, "shorter than its size")
}

func FuzzReadSafetensors(f *testing.F) {
	f.Add(tensorsFile(tensorHeader, npyBytes(9, 1, 2, 3, 4, 5, 6)))
	f.Add(tensorsFile(`{"m": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}`, make([]byte, 4)))
	f.Add(tensorsFile(`{"a": {"dtype": "F16", "shape": [0, 9223372036854775807], "data_offsets": [0, 0]}}`, nil))
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := readSafetensors(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		for name := range s.tensors {
			rows, cols, err := s.matrix(name)
			if err != nil {
				continue
			}
			n := 0
			err = s.read(name, func(row []float32) error { n += len(row); return nil })
			assert.MustTrue(t, err != nil || n == rows*cols && n*2 <= len(file), "%d of %d x %d numbers of %d bytes, %v", n, rows, cols, len(file), err)
		}
	})
}
