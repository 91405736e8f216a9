package rawjson

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// AppendFloat appends the shortest number that reads back as f, which must be finite.
func AppendFloat(b []byte, f float64) []byte { return strconv.AppendFloat(b, f, 'g', -1, 64) }

// AppendNumbers appends a JSON array of numbers, each the shortest that reads back as the same float32; they must be finite.
func AppendNumbers(b []byte, numbers []float32) []byte {
	b = append(b, '[')
	for i, v := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(v), 'g', -1, 32)
	}
	return append(b, ']')
}

// AppendBase64 appends a JSON string: the base64 of the numbers as float32, little-endian.
func AppendBase64(b []byte, numbers []float32) []byte {
	b = append(b, '"')
	var raw [3 << 8]byte // in groups of three no padding is due
	for chunk := range slices.Chunk(numbers, len(raw)/4) {
		for i, v := range chunk {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		}
		b = base64.StdEncoding.AppendEncode(b, raw[:4*len(chunk)])
	}
	return append(b, '"')
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD; U+2028 and
// U+2029 are escaped, because JavaScript once took them for line ends.
func AppendString(b []byte, s string) []byte {
	isASCII := true
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c == '"', c == '\\':
			return appendEscaped(b, s)
		case c >= utf8.RuneSelf:
			isASCII = false
		}
	}
	if !isASCII && (!utf8.ValidString(s) || strings.ContainsAny(s, "\u2028\u2029")) {
		return appendEscaped(b, s)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendEscaped is AppendString for the few that need it.
func appendEscaped(b []byte, s string) []byte {
	quoted := bytes.NewBuffer(b)
	e := json.NewEncoder(quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(s)                        // strings always work
	return quoted.Bytes()[:quoted.Len()-1] // without the line's end
}
