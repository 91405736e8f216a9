package model

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
)

// ErrNpy says that a .npy file is damaged or not of a kind that ReadNpy reads.
var ErrNpy = errors.New("bad .npy file")

const (
	npyMagic      = "\x93NUMPY"
	maxNpyHeader  = 64 << 10
	maxNpyElement = 1 << 27 // 512 MB of float32; CLIP's largest table has 38 million
)

// The header is a Python dict, as numpy writes it: the keys sorted, nothing else in it.
var npyHeader = regexp.MustCompile(`^\{'descr': '([^']{1,8})', 'fortran_order': (True|False), 'shape': \((\d{1,9}), (\d{1,9})\), \} *\n$`)

// ReadNpy reads a matrix of float32 or float16 from a numpy file of the given size in bytes
// (format versions 1 to 3, little-endian). data has it row by row, also where the file has it
// column by column. It allocates no more than the size allows, and at most 512 MB. It refuses
// anything else with ErrNpy: other types and shapes, a file too short or too long, values that are
// not finite.
func ReadNpy(r io.Reader, size int64) (rows, cols int, data []float32, err error) {
	rows, cols, data, err = readNpy(bufio.NewReaderSize(r, 64<<10), size)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("%w: %w", ErrNpy, err)
	}
	return rows, cols, data, nil
}

func readNpy(r io.Reader, size int64) (rows, cols int, data []float32, err error) {
	var start [8]byte // magic, major, minor
	if _, err := io.ReadFull(r, start[:]); err != nil || string(start[:6]) != npyMagic {
		return 0, 0, nil, errors.New("it does not begin as a numpy file")
	}
	lengthBytes := 4
	if start[6] == 1 {
		lengthBytes = 2
	} else if start[6] != 2 && start[6] != 3 {
		return 0, 0, nil, fmt.Errorf("format version %d, want 1 to 3", start[6])
	}
	var length [4]byte
	if _, err := io.ReadFull(r, length[:lengthBytes]); err != nil {
		return 0, 0, nil, fmt.Errorf("header: %w", err)
	}
	n := int64(binary.LittleEndian.Uint32(length[:]))
	if n > maxNpyHeader || n > size {
		return 0, 0, nil, fmt.Errorf("header of %d bytes, at most %d", n, maxNpyHeader)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, 0, nil, fmt.Errorf("header: %w", err)
	}
	f := npyHeader.FindSubmatch(header)
	if f == nil {
		return 0, 0, nil, fmt.Errorf("header %.120q: want a matrix", header)
	}
	rows, _ = strconv.Atoi(string(f[3])) // at most nine digits
	cols, _ = strconv.Atoi(string(f[4]))
	if rows < 1 || cols < 1 || int64(rows)*int64(cols) > maxNpyElement {
		return 0, 0, nil, fmt.Errorf("shape [%d, %d]: want 1 to %d elements", rows, cols, maxNpyElement)
	}
	width := map[string]int{"<f4": 4, "<f2": 2}[string(f[1])]
	if width == 0 {
		return 0, 0, nil, fmt.Errorf("type %q, want <f4 or <f2 (little-endian float32 or float16)", f[1])
	}
	want := int64(len(start)+lengthBytes) + n + int64(rows)*int64(cols)*int64(width)
	if size != want {
		return 0, 0, nil, fmt.Errorf("%d bytes, want %d for a matrix of %d x %d", size, want, rows, cols)
	}
	data = make([]float32, rows*cols)
	fortran := string(f[2]) == "True"
	buf := make([]byte, width*min(len(data), 16<<10))
	for i := 0; i < len(data); {
		part := buf[:width*min(len(data)-i, 16<<10)]
		if _, err := io.ReadFull(r, part); err != nil {
			return 0, 0, nil, fmt.Errorf("element %d: %w", i, err)
		}
		for ; len(part) > 0; part, i = part[width:], i+1 {
			var v float32
			if width == 4 {
				v = math.Float32frombits(binary.LittleEndian.Uint32(part))
			} else {
				v = float16(binary.LittleEndian.Uint16(part))
			}
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return 0, 0, nil, fmt.Errorf("element %d is %v", i, v)
			}
			at := i
			if fortran {
				at = i%rows*cols + i/rows
			}
			data[at] = v
		}
	}
	return rows, cols, data, nil
}

// float16 is the value of an IEEE 754 half: sign, 5 bits of exponent with a bias of 15, 10 of fraction. It
// is NaN for all that are not finite.
func float16(h uint16) float32 {
	if h&0x7C00 == 0x7C00 {
		return float32(math.NaN())
	}
	bits := uint32(h&0x8000)<<16 | uint32(h&0x7FFF)<<13
	return math.Float32frombits(bits) * 0x1p112 // the bias of a float32 is 127; exact, also for subnormals
}
