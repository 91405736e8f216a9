package sets

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fault says what is wrong with a definition. Errors of ParseJSON, ParseYAML and Validate are faults, joined by errors.Join
// where there are several: errors.As finds the first.
type Fault struct {
	Line    int    // of the YAML; 0: not known
	Field   string // such as labels[3].prompts[0]; "": the definition as a whole
	Problem string // what follows the field in a sentence: "is empty"
}

func (f Fault) Error() string {
	text := f.Problem
	if f.Field != "" {
		text = f.Field + " " + text
	}
	if f.Line > 0 {
		text = fmt.Sprintf("line %d: %s", f.Line, text)
	}
	return text
}

// Findings gathers Faults, at most 20.
type Findings []error

// Want adds a fault unless ok; the others want a value to be one of a few, or a number within bounds or nil.
func (f *Findings) Want(ok bool, field, format string, args ...any) {
	if !ok && len(*f) < maxFaults {
		*f = append(*f, Fault{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
}

func (f *Findings) OneOf(value, field string, allowed ...string) {
	f.Want(slices.Contains(allowed, value), field, "must be one of %s", strings.Join(allowed, ", "))
}

func (f *Findings) Between(n *float64, field string, low, high float64) {
	f.Want(n == nil || *n >= low && *n <= high, field, "must be a number from %v to %v", low, high)
}

// Faults returns the faults that are joined in an error.
func Faults(err error) (all []Fault) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			all = append(all, Faults(err)...)
		}
	} else if f, ok := errors.AsType[Fault](err); ok {
		all = append(all, f)
	}
	return all
}

// MaxValues bounds the values in the JSON of a definition, or of a Record, and so the memory that reading it takes: about 50 MB. The largest set that Validate
// accepts has half as many.
const MaxValues = 250_000

// ParseJSON reads a definition, normalised but not validated. Unknown fields are ignored; of a field that comes twice the
// last counts. The result does not refer to text. The error is a Fault.
func ParseJSON(text []byte) (d Definition, err error) {
	if err := ReadObject(text, MaxValues, false, &d); err != nil {
		return Definition{}, err
	}
	return d.Normalized(), nil
}

// ReadObject reads a JSON object of at most so many values. strict refuses fields that into does not have. The error is a Fault.
func ReadObject(text []byte, limit int, strict bool, into any) error {
	text = bytes.TrimSpace(text)
	switch {
	case !utf8.Valid(text):
		return Fault{Problem: "is not valid UTF-8"}
	case len(text) == 0 || text[0] != '{':
		return Fault{Problem: "must be a JSON object"}
	case values(text) > limit:
		return Fault{Problem: fmt.Sprintf("has more than %d values", limit)}
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var encoding base64.CorruptInputError
	var unknown unknownField
	switch err := unmarshal(text, strict, into); {
	case errors.As(err, &syntax):
		return Fault{Problem: fmt.Sprintf("is not valid JSON: %s, at byte %d", syntax.Error(), syntax.Offset)}
	case errors.As(err, &kind):
		return Fault{Field: kind.Field, Problem: fmt.Sprintf("must be %s, not %s, at byte %d", kindOf(kind.Type), kind.Value, kind.Offset)}
	case errors.As(err, &unknown):
		return Fault{Field: string(unknown), Problem: "is not known"}
	case errors.As(err, &encoding):
		return Fault{Problem: "has an example whose vector or thumbnail is not base64"}
	case err != nil:
		return Fault{Problem: "cannot be read: " + err.Error()}
	}
	return nil
}

// unknownField is the name of a field that there is no place for.
type unknownField string

func (f unknownField) Error() string { return "unknown field " + string(f) }

func unmarshal(text []byte, strict bool, into any) error {
	if !strict {
		return json.Unmarshal(text, into)
	}
	if !json.Valid(text) {
		return json.Unmarshal(text, new(any)) // what is wrong with it
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			name, _ = strconv.Unquote(name)
			return unknownField(fmt.Sprintf("%.64q", name))
		}
	}
	return err
}

// values counts the values of JSON, or some more: one after each comma, colon and opening bracket outside of texts.
func values(text []byte) (n int) {
	for len(text) > 0 {
		c := text[0]
		text = text[1:]
		switch c {
		case ',', '{', '[':
			n++
		case '"':
			for {
				end := bytes.IndexAny(text, `"\`)
				if end < 0 {
					return n
				} else if text[end] == '"' {
					text = text[end+1:]
					break
				}
				text = text[min(end+2, len(text)):]
			}
		}
	}
	return n
}

// kindOf names what belongs where a value of the type stands.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64"
		}
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a text"
}
