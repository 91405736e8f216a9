package configs

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// layers sets the keys of a Config, one layer over the other, and collects all faults. A key
// whose value is refused keeps the value it had.
type layers struct {
	fields map[string]reflect.Value
	where  map[string]string // what set the key last, for errors
	faults []error
}

func newLayers(c *Config) *layers {
	l := &layers{fields: map[string]reflect.Value{}, where: map[string]string{}}
	fields("", reflect.ValueOf(c).Elem(), func(key string, field reflect.Value) { l.fields[key] = field })
	return l
}

func (l *layers) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf(format, args...))
}

// set gives the key a value; where says in errors who wants that.
func (l *layers) set(key, value, where string) {
	field, ok := l.fields[key]
	if !ok {
		l.unknown(key, where)
		return
	}
	if err := parse(field, value); err != nil {
		l.fault("%s: %s: %w", where, key, err)
		return
	}
	l.where[key] = where
}

// parse reads text into a field. Where the text comes from makes no difference, nor do quotes in YAML.
func parse(field reflect.Value, text string) error {
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on":
			field.SetBool(true)
		case "false", "no", "off":
			field.SetBool(false)
		default:
			return fmt.Errorf("%#q is neither true nor false", text)
		}
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 0, field.Type().Bits())
		if err != nil {
			return fmt.Errorf("%#q is not a whole number", text)
		}
		field.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%#q is not a number", text)
		}
		field.SetFloat(n)
	case reflect.Slice: // of strings: "a, b", as the environment has them
		var list []string
		for _, item := range strings.Split(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		field.Set(reflect.ValueOf(list))
	default:
		return fmt.Errorf("the program cannot read a %s", field.Type())
	}
	return nil
}

// file sets the keys of a YAML file. Empty files and sections set none; aliases and tags are refused.
func (l *layers) file(name string, text []byte) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var root, second yaml.Node
	switch err := d.Decode(&root); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.fault("%s: %s", name, syntax(err, text))
	case !errors.Is(d.Decode(&second), io.EOF):
		l.fault("%s: has more than one YAML document", name)
	default:
		l.section(name, "", root.Content[0], root.Content[0].Line)
	}
}

// syntax is what the parser says is wrong with text. It leaves out the line where that is the first, which
// shows when the text comes a line later; some faults, of bytes that are no text, have none at all.
func syntax(err error, text []byte) string {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if !strings.HasPrefix(said, "line ") {
		later := yaml.Unmarshal(append([]byte("#\n"), text...), new(yaml.Node))
		if later != nil && strings.HasPrefix(later.Error(), "yaml: line ") {
			return "line 1: " + said
		}
	}
	return said
}

// section sets the keys of the mapping n, which is the section of that name, or the whole file, "".
func (l *layers) section(file, section string, n *yaml.Node, line int) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		where := fmt.Sprintf("%s: line %d", file, line)
		if section != "" {
			where += ": " + section
		}
		l.fault("%s: found %s where a section belongs", where, describe(n))
		return
	}
	first := map[string]int{}
	for pair := range slices.Chunk(n.Content, 2) {
		name, value := pair[0], pair[1]
		where := fmt.Sprintf("%s: line %d", file, name.Line)
		key := name.Value
		if section != "" {
			key = section + "." + key
		}
		_, known := l.fields[key]
		switch {
		case first[key] != 0:
			l.fault("%s: %s: stands already in line %d", where, key, first[key])
		case name.Kind != yaml.ScalarNode:
			l.fault("%s: found %s where a key belongs", where, describe(name))
		case section == "" && slices.Contains(sections(), key):
			l.section(file, key, value, name.Line)
		case !known:
			l.unknown(key, where)
		case section == "":
			l.fault("%s: %s: write the section in a line of its own, and the key indented below", where, key)
		case isNull(value):
			l.fault(`%s: %s: has no value; leave it out for its default, or write "" for empty text`, where, key)
		case value.Kind == yaml.SequenceNode && l.fields[key].Kind() == reflect.Slice:
			l.list(key, value, where)
		case value.Kind != yaml.ScalarNode || value.Style&yaml.TaggedStyle != 0:
			l.fault("%s: %s: found %s where one value belongs", where, key, describe(value))
		default:
			l.set(key, value.Value, where)
		}
		first[key] = name.Line
	}
}

// list sets a key to the texts of a YAML list.
func (l *layers) list(key string, n *yaml.Node, where string) {
	var list []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Style&yaml.TaggedStyle != 0 || isNull(item) {
			l.fault("%s: %s: found %s where a text of the list belongs", where, key, describe(item))
			return
		}
		list = append(list, item.Value)
	}
	l.fields[key].Set(reflect.ValueOf(list))
	l.where[key] = where
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// describe names a node that stands where it does not belong.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return "the alias *" + n.Value
	case n.Style&yaml.TaggedStyle != 0:
		return "a YAML tag"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a section"
	}
	return fmt.Sprintf("%#q", n.Value)
}
