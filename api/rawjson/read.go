// Package rawjson reads and writes JSON where it lies: what package encoding/json has no words for, or is slow at.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/bytedance/sonic"
	"github.com/segmentio/asm/ascii"
)

// Raw is a value in JSON, not copied: it lies in what was read. It is empty where it is missing, and may be "null", see Given.
type Raw = sonic.NoCopyRawMessage

// ErrInvalid says that something is not JSON, or not a JSON object. The errors that wrap it have texts for clients, which
// quote nothing.
var ErrInvalid = errors.New("invalid JSON")

type invalid string

func (e invalid) Error() string { return string(e) }
func (e invalid) Unwrap() error { return ErrInvalid }

func invalidf(format string, args ...any) error { return invalid(fmt.Sprintf(format, args...)) }

// fast validates strings but does not copy them: those without escapes lie in what was read.
var fast = sonic.Config{ValidateString: true}.Froze()

// Unmarshal reads text, which must be valid JSON, into v. Strings of v without escapes lie in text.
func Unmarshal(text string, v any) error { return fast.UnmarshalFromString(text, v) }

// Object reads a body that must be a JSON object into v, a pointer to a struct, whose fields of type Raw lie in body. Unknown fields
// are ignored; of a field that comes twice the last one counts. Names are matched without regard to case, as encoding/json does. The
// body is UTF-8, with or without a byte order mark. Errors are an ErrInvalid.
func Object(body []byte, v any) error {
	return Read(body, v, func(body []byte) error { return Slowly(body, v) })
}

// Read is Object with another way to read a body that the fast way has refused.
func Read(body []byte, v any, slowly func(body []byte) error) error {
	body, err := UTF8(body)
	if err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 {
		return invalidf("The body is empty: send a JSON object")
	} else if trimmed[0] == '{' && Unmarshal(unsafe.String(unsafe.SliceData(body), len(body)), v) == nil {
		return nil
	}
	return slowly(body)
}

// Slowly is Object for a body that the fast way refused: it finds out why, with errors that are fit for a client, which
// sonic's are not (they quote the body). It accepts what encoding/json accepts, so nested deeper than sonic goes. Its strings and
// fields do not lie in body.
func Slowly(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return invalidf("The body is not valid JSON: %s, at byte %d", syntax.Error(), syntax.Offset)
		}
		return invalidf("The body must be a JSON object")
	}
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return invalidf("The body must be a JSON object")
	}
	return nil
}

// Fields reads a value, which must be valid JSON, into v, a pointer to a struct, whose fields of type Raw lie in raw. It returns
// false where raw is no object.
func Fields(raw Raw, v any) bool {
	return len(raw) > 0 && raw[0] == '{' && Unmarshal(unsafe.String(unsafe.SliceData(raw), len(raw)), v) == nil
}

// String returns what a value, which must be valid JSON, has for a text; false where it is no string. The text may lie in raw.
func String(raw Raw) (s string, ok bool) {
	ok = len(raw) > 0 && raw[0] == '"' && Unmarshal(unsafe.String(unsafe.SliceData(raw), len(raw)), &s) == nil
	return s, ok
}

// Given says that a field is there and not null.
func Given(raw []byte) bool { return len(raw) > 0 && string(raw) != "null" }

// Elements counts the elements of a JSON array; 0 when raw, which must be valid JSON, is none.
func Elements(raw []byte) (n int) {
	EachElement(raw, func([]byte) { n++ })
	return n
}

// EachElement calls do with each element of a JSON array, without white space around it; not at all when raw, which must
// be valid JSON, is none.
func EachElement(raw []byte, do func(element []byte)) { each(raw, '[', do) }

// EachField calls do with the name, a JSON string, and the value of each field of a JSON object, in their order; not at all when raw,
// which must be valid JSON, is none.
func EachField(raw []byte, do func(name, value []byte)) {
	each(raw, '{', func(field []byte) {
		if end := stringEnd(field) + 1; end < len(field) {
			do(field[:end], bytes.TrimLeft(field[end:], ": \t\r\n"))
		}
	})
}

// each calls do with what lies between the commas of an array or of an object, which begins with open.
func each(raw []byte, open byte, do func(element []byte)) {
	if len(raw) < 2 || raw[0] != open {
		return
	}
	begin, depth := 1, 1
	for i := 1; i < len(raw); i++ {
		end := false
		switch raw[i] {
		case '"':
			i += stringEnd(raw[i:])
		case '[', '{':
			depth++
		case ']', '}':
			depth--
			end = depth == 0
		case ',':
			end = depth == 1
		}
		if !end {
			continue
		}
		if element := bytes.TrimSpace(raw[begin:i]); len(element) > 0 {
			do(element)
		}
		begin = i + 1
		if depth == 0 {
			return
		}
	}
}

// stringEnd is where the quote lies that ends the JSON string at the start of raw.
func stringEnd(raw []byte) int {
	for end := 1; end < len(raw); end++ {
		quote := bytes.IndexByte(raw[end:], '"')
		if quote < 0 {
			break
		}
		end += quote
		text := raw[1:end]
		if escapes := len(text) - len(bytes.TrimRight(text, `\`)); escapes%2 == 0 {
			return end
		}
	}
	return len(raw)
}

// Number reads a JSON number, also where a query or a form has it.
func Number(raw []byte) (float64, bool) {
	if c := raw[0]; c != '-' && (c < '0' || c > '9') || len(bytes.Trim(raw, "0123456789.eE+-")) > 0 {
		return 0, false // a string, true, or what only strconv takes for a number
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	return f, err == nil
}

// Floats reads a JSON array of numbers; ok is false where an element is none. It allocates in proportion to raw.
func Floats(raw []byte) (v []float32, ok bool) {
	ok = true
	EachElement(raw, func(element []byte) {
		f, isNumber := Number(element)
		v, ok = append(v, float32(f)), ok && isNumber
	})
	return v, ok
}

// HalfCharacter finds an escape in JSON, which must be valid, that is one half of a surrogate pair without the
// other. Decoders put U+FFFD in its place, and the answer would be for another text.
func HalfCharacter(raw string) string {
	unit := func(raw string) rune {
		if !strings.HasPrefix(raw, `\u`) || len(raw) < 6 {
			return 0
		}
		n, _ := strconv.ParseUint(raw[2:6], 16, 16)
		return rune(n)
	}
	for i := strings.IndexByte(raw, '\\'); i >= 0; i = strings.IndexByte(raw, '\\') {
		raw = raw[i:]
		first, end := unit(raw), min(2, len(raw))
		if utf16.IsSurrogate(first) {
			if utf16.DecodeRune(first, unit(raw[6:])) == utf8.RuneError {
				return raw[:6]
			}
			end = 12
		}
		raw = raw[end:]
	}
	return ""
}

// UTF8 returns the body without its byte order mark. Anything that is not UTF-8 is refused,
// because decoders of JSON put U+FFFD in its place, and the answer would be for another text.
// The look at every byte takes about 4 us for 100 kB of base64 on amd64.
func UTF8(body []byte) ([]byte, error) {
	if name := otherUnicode(body); name != "" {
		return nil, invalidf("The body is %s: send JSON as UTF-8", name)
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !ascii.Valid(body) && !utf8.Valid(body) {
		at, r, size := 0, rune(0), 0
		for ; r != utf8.RuneError || size != 1; at += size {
			r, size = utf8.DecodeRune(body[at:])
		}
		return nil, invalidf("The body is not valid UTF-8, at byte %d", at)
	}
	return body, nil
}

// otherUnicode names the encoding of JSON that is not UTF-8 by its first bytes: a byte order mark, or
// the zeros about its first character, which is one of ASCII.
func otherUnicode(body []byte) string {
	if len(body) < 4 {
		body = append(body[:len(body):len(body)], "    "[len(body):]...)
	}
	a, b, c, d := body[0], body[1], body[2], body[3]
	switch {
	case a == 0 && b == 0, a == 0xff && b == 0xfe && c == 0 && d == 0, a != 0 && b == 0 && c == 0 && d == 0:
		return "UTF-32"
	case a == 0xff && b == 0xfe, a == 0xfe && b == 0xff, a == 0, b == 0:
		return "UTF-16"
	}
	return ""
}
