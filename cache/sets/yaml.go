package sets

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseYAML reads a definition, normalised and validated. Unknown and repeated keys, aliases and tags are refused. The
// errors are Faults with lines, all there are up to maxFaults, or one that says why this is no YAML.
func ParseYAML(text []byte, limits Limits) (Definition, error) {
	n, err := parseNode(text)
	if err != nil {
		return Definition{}, err
	}
	return FromYAML(n, limits)
}

// FromYAML is ParseYAML of a part of a YAML document.
func FromYAML(n *yaml.Node, limits Limits) (d Definition, err error) {
	r := yamlReader{lines: map[string]int{}}
	r.value(n, "", reflect.ValueOf(&d).Elem())
	if len(r.faults) > 0 {
		return Definition{}, errors.Join(r.faults...)
	}
	d = d.Normalized()
	return d, r.locate(d.Validate(limits))
}

// parseNode returns the only document of a YAML text.
func parseNode(text []byte) (*yaml.Node, error) {
	var root, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&root); errors.Is(err, io.EOF) {
		return nil, Fault{Problem: "is empty"}
	} else if err != nil {
		return nil, Fault{Problem: "is not valid YAML: " + brief(strings.TrimPrefix(err.Error(), "yaml: "))}
	} else if !errors.Is(d.Decode(&second), io.EOF) {
		return nil, Fault{Problem: "has more than one YAML document"}
	}
	return root.Content[0], nil
}

// yamlReader reads YAML into Go values by their yaml tags.
type yamlReader struct {
	lines  map[string]int // of each field that was read
	faults []error
}

func (r *yamlReader) fault(n *yaml.Node, field, format string, args ...any) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, Fault{n.Line, field, fmt.Sprintf(format, args...)})
	}
}

// locate gives the faults of a definition that was read the lines of their fields, or of what holds those.
func (r *yamlReader) locate(err error) error {
	var located []error
	for _, f := range Faults(err) {
		field := f.Field
		for r.lines[field] == 0 && field != "" {
			field = field[:max(0, strings.LastIndexAny(field, ".["))]
		}
		f.Line = r.lines[field]
		located = append(located, f)
	}
	return errors.Join(located...)
}

// brief is a text of the file as an error shows it.
func brief(text string) string {
	quoted := strconv.Quote(fmt.Sprintf("%.200s", text))
	return quoted[1 : len(quoted)-1]
}

// value reads n into v, which is zero and stays so for null.
func (r *yamlReader) value(n *yaml.Node, field string, v reflect.Value) {
	r.lines[field] = n.Line
	switch {
	case n.Kind == yaml.AliasNode:
		r.fault(n, field, "must not be an alias, such as *%s", brief(n.Value))
		return
	case n.Style&yaml.TaggedStyle != 0:
		r.fault(n, field, "must not have a tag, such as %s", brief(n.Tag))
		return
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return
	}
	scalar, wrong := n.Kind == yaml.ScalarNode, false
	switch to := v.Addr().Interface().(type) {
	case *Templates:
		to.readYAML(n)
		return
	case *Alpha:
		*to = Alpha(math.NaN())
		if a, err := strconv.ParseFloat(n.Value, 64); n.Value == "auto" {
			*to = 0
		} else if scalar && err == nil && a > 0 {
			*to = Alpha(a)
		}
		return
	case *Bytes:
		b, err := base64.StdEncoding.DecodeString(n.Value)
		*to, wrong = b, !scalar || err != nil
	case *string:
		*to, wrong = n.Value, !scalar
	case *float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		*to, wrong = f, !scalar || err != nil
	case *bool:
		switch strings.ToLower(n.Value) { // as the rest of the configuration has it
		case "true", "yes", "on":
			*to = true
		case "false", "no", "off":
		default:
			wrong = true
		}
	default:
		switch {
		case v.Kind() == reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			r.value(n, field, v.Elem())
		case v.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
			v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
			for i, item := range n.Content {
				r.value(item, fmt.Sprintf("%s[%d]", field, i), v.Index(i))
			}
		case v.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
			r.mapping(n, field, v)
		default:
			wrong = true
		}
	}
	if wrong {
		r.fault(n, field, "must be %s", kindOf(v.Type()))
	}
}

// mapping reads n into the fields of the struct v.
func (r *yamlReader) mapping(n *yaml.Node, field string, v reflect.Value) {
	fields := map[string]reflect.Value{}
	for f, value := range v.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields[name] = value
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		key := strings.TrimPrefix(field+"."+brief(name.Value), ".")
		value, known := fields[name.Value]
		switch {
		case name.Kind != yaml.ScalarNode:
			r.fault(name, field, "has a key that is no text")
		case known && !value.IsValid():
			r.fault(name, key, "stands already in line %d", r.lines[key])
		case !known:
			r.fault(name, key, "is no key of prompt sets")
		default:
			r.value(n.Content[i+1], key, value)
			fields[name.Value] = reflect.Value{}
		}
	}
}
