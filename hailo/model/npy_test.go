package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo/internal/assert"
)

// npyFile writes a numpy file with this header and these bytes after it.
func npyFile(version byte, header string, data []byte) []byte {
	b := append([]byte(npyMagic), version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), data...)
}

func npyBytes(values ...float32) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

const header23 = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }    \n"

func TestReadNpy(t *testing.T) {
	rows := npyBytes(1, 2, 3, 4, 5, 6)
	var half []byte
	for _, h := range []uint16{0x3c00, 0x4000, 0x4200, 0xc400, 0x0001, 0x7bff} {
		half = binary.LittleEndian.AppendUint16(half, h)
	}
	large := make([]float32, 2*105_000)
	for i := range large {
		large[i] = float32(i)
	}
	for name, c := range map[string]struct {
		file []byte
		want []float32
	}{
		"version 1":        {npyFile(1, header23, rows), []float32{1, 2, 3, 4, 5, 6}},
		"version 2":        {npyFile(2, header23, rows), []float32{1, 2, 3, 4, 5, 6}},
		"version 3":        {npyFile(3, header23, rows), []float32{1, 2, 3, 4, 5, 6}},
		"column by column": {npyFile(1, strings.Replace(header23, "False", "True", 1), npyBytes(1, 4, 2, 5, 3, 6)), []float32{1, 2, 3, 4, 5, 6}},
		"half":             {npyFile(1, strings.Replace(header23, "f4", "f2", 1), half), []float32{1, 2, 3, -4, 5.9604645e-8, 65504}},
		"large":            {npyFile(1, strings.Replace(header23, "(2, 3)", "(2, 105000)", 1), npyBytes(large...)), large}, // more than one read
	} {
		r, cols, got, err := ReadNpy(bytes.NewReader(c.file), int64(len(c.file)))
		assert.True(t, err == nil && r == 2 && cols == len(c.want)/2, "%s: %d x %d, %v", name, r, cols, err)
		assert.True(t, slices.Equal(got, c.want), "%s: other numbers, %d of them", name, len(got))
	}
}

func TestReadNpyRefuses(t *testing.T) {
	rows := npyBytes(1, 2, 3, 4, 5, 6)
	edit := func(old, new string) []byte { return npyFile(1, strings.Replace(header23, old, new, 1), rows) }
	for name, file := range map[string][]byte{
		"empty":          nil,
		"error page":     []byte("<?xml version='1.0'?><Error/>"),
		"magic only":     []byte(npyMagic),
		"version 4":      npyFile(4, header23, rows),
		"no header":      npyFile(1, header23, rows)[:20],
		"huge header":    append([]byte(npyMagic), 2, 0, 0xff, 0xff, 0xff, 0xff),
		"float64":        edit("<f4", "<f8"),
		"big-endian":     edit("<f4", ">f4"),
		"objects":        edit("<f4", "|O"),
		"one dimension":  edit("(2, 3)", "(6,)"),
		"three":          edit("(2, 3)", "(1, 2, 3)"),
		"no rows":        edit("(2, 3)", "(0, 3)"),
		"negative":       edit("(2, 3)", "(-2, -3)"),
		"huge shape":     edit("(2, 3)", "(999999999, 999999999)"),
		"overflow":       edit("(2, 3)", "(4294967296, 4294967296)"),
		"larger shape":   edit("(2, 3)", "(20000, 5000)"),
		"cut":            npyFile(1, header23, rows[:23]),
		"one byte more":  npyFile(1, header23, append(slices.Clone(rows), 0)),
		"not a number":   npyFile(1, header23, npyBytes(1, 2, 3, float32(math.NaN()), 5, 6)),
		"infinite":       npyFile(1, header23, npyBytes(1, 2, 3, 4, 5, float32(math.Inf(-1)))),
		"no end of line": npyFile(1, strings.TrimSpace(header23), rows),
	} {
		_, _, data, err := ReadNpy(bytes.NewReader(file), int64(len(file)))
		assert.True(t, errors.Is(err, ErrNpy) && data == nil, "%s: %v, error %v", name, data, err)
	}
	whole := npyFile(1, header23, rows) // a file that became shorter than it was
	_, _, _, err := ReadNpy(bytes.NewReader(whole[:len(whole)-4]), int64(len(whole)))
	assert.ErrorIs(t, err, ErrNpy, "shorter than its size")
}

func FuzzReadNpy(f *testing.F) {
	f.Add(npyFile(1, header23, npyBytes(1, 2, 3, 4, 5, 6)))
	f.Add(npyFile(2, strings.Replace(header23, "<f4", "<f2", 1), make([]byte, 12)))
	f.Add(npyFile(3, strings.Replace(header23, "False", "True", 1), npyBytes(1, 2, 3, 4, 5, 6)))
	f.Fuzz(func(t *testing.T, file []byte) {
		rows, cols, data, err := ReadNpy(bytes.NewReader(file), int64(len(file)))
		assert.MustTrue(t, err != nil || rows >= 1 && cols >= 1 && len(data) == rows*cols, "%d x %d with %d", rows, cols, len(data))
	})
}
