package configs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// layers sets the keys of a Config, one layer over the other, and collects all faults. A key
// whose value is refused keeps the value it had.
type layers struct {
	config   *Config
	settings []setting
	where    map[string]string // by key: what set it last, for errors
	old      map[string]string // by key: the old name by which it was set, if it was one
	sets     promptSets
	faults   []error
}

func newLayers(c *Config) *layers {
	return &layers{config: c, settings: settings("", reflect.ValueOf(c).Elem()), where: map[string]string{}, old: map[string]string{}}
}

func (l *layers) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf(format, args...))
}

// find returns the setting of that name.
func (l *layers) find(name string) (setting, bool) {
	i := slices.IndexFunc(l.settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{key: name}, false
	}
	return l.settings[i], true
}

// set gives the setting of that name a value; where says in errors who wants that.
func (l *layers) set(name, value, where string) {
	s, ok := l.find(name)
	if !ok {
		l.unknown(name, where)
		return
	}
	if err := s.set(value); err != nil {
		l.fault("%s: %s: %w", where, name, err)
		return
	}
	l.where[s.key] = where
	if delete(l.old, s.key); name != s.key {
		l.old[s.key] = name
	}
}

// checker is a section with rules that the bounds of its fields cannot say. Check calls fault for each that is
// broken, with the field's key and what is wrong.
type checker interface {
	Check(fault func(field, format string, args ...any))
}

// validate finds all values that are out of bounds.
func (l *layers) validate() {
	l.readPromptSets()
	for _, s := range l.settings {
		if s.name == s.key && !s.within() {
			format := "%s: %s: %v is out of bounds: %s"
			if s.Kind() == reflect.String {
				format = "%s: %s: %q is out of bounds: %s"
			}
			l.fault(format, l.whereOf(s.key), s.key, s.Interface(), s.bounds)
		}
	}
	for f, section := range reflect.ValueOf(*l.config).Fields() {
		if c, ok := section.Interface().(checker); ok {
			c.Check(func(field, format string, args ...any) {
				key := f.Tag.Get("yaml") + "." + field
				l.fault("%s: %s: "+format, append([]any{l.whereOf(key), key}, args...)...)
			})
		}
	}
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
		l.section(name, fmt.Sprintf("%s: line %d", name, root.Content[0].Line), "", root.Content[0])
	}
}

var tabIndent = regexp.MustCompile("(?m)^ *\t")

// syntax is what the parser says is wrong with text. It leaves out the line where that is the first, which
// shows when the text comes a line later; some faults, of bytes that are no text, have none at all.
func syntax(err error, text []byte) string {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.Contains(said, "cannot start any token") || strings.Contains(said, "tab character") {
		if at := tabIndent.FindIndex(text); at != nil {
			return fmt.Sprintf("line %d: begins with a tab: YAML is indented with spaces", 1+bytes.Count(text[:at[0]], []byte("\n")))
		}
	}
	if !strings.HasPrefix(said, "line ") {
		later := yaml.Unmarshal(append([]byte("#\n"), text...), new(yaml.Node))
		if later != nil && strings.HasPrefix(later.Error(), "yaml: line ") {
			return "line 1: " + said
		}
	}
	return said
}

// section sets the keys of the mapping n, which stand behind prefix: "clip.", or "" for the whole file.
func (l *layers) section(file, where, prefix string, n *yaml.Node) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		l.fault("%s: found %s where a section belongs", where, describe(n))
		return
	}
	first := map[string]int{}
	for pair := range slices.Chunk(n.Content, 2) {
		name, value := pair[0], pair[1]
		where, key := fmt.Sprintf("%s: line %d", file, name.Line), prefix+name.Value
		s, known := l.find(key)
		switch {
		case first[s.key] != 0:
			l.fault("%s: %s: stands already in line %d", where, key, first[s.key])
		case name.Kind != yaml.ScalarNode:
			l.fault("%s: found %s where a key belongs", where, describe(name))
		case key == setsKey:
			l.where[key] = where
			l.sets = promptSets{file, value}
		case slices.Contains(sections(), key) && !strings.Contains(name.Value, "."):
			l.section(file, where+": "+key, key+".", value)
		case !known:
			l.unknown(key, where)
		case prefix == "" || strings.Contains(name.Value, "."):
			l.fault("%s: %s: write the section in a line of its own, and the key indented below", where, key)
		case isNull(value):
			l.fault(`%s: %s: has no value; leave it out for its default, or write "" for empty text`, where, key)
		case value.Kind == yaml.SequenceNode && s.Kind() == reflect.Slice:
			l.list(file, s, value, where)
		case value.Kind == yaml.MappingNode && s.Type().ConvertibleTo(reflect.TypeFor[map[string]string]()):
			l.texts(s, value, where)
		case value.Kind != yaml.ScalarNode || value.Style&yaml.TaggedStyle != 0:
			l.fault("%s: %s: found %s where one value belongs", where, key, describe(value))
		default:
			l.set(key, value.Value, where)
		}
		first[s.key] = name.Line
	}
}

// whereOf says what set a key, or the item of a list that it is in.
func (l *layers) whereOf(key string) string {
	item, _, _ := strings.Cut(key, "].")
	return cmp.Or(l.where[key], l.where[item+"]"])
}

// items sets s to a YAML list of sections, whose keys become settings: "notify.webhooks[0].url".
func (l *layers) items(file string, s setting, n *yaml.Node, where string) {
	l.settings = slices.DeleteFunc(l.settings, func(item setting) bool { return strings.HasPrefix(item.key, s.key+"[") })
	s.Set(reflect.MakeSlice(s.Type(), len(n.Content), len(n.Content)))
	l.where[s.key] = where
	for i, node := range n.Content {
		item, key := s.Index(i), fmt.Sprintf("%s[%d]", s.key, i)
		if d, ok := item.Addr().Interface().(interface{ SetDefaults() }); ok {
			d.SetDefaults()
		}
		l.where[key] = fmt.Sprintf("%s: line %d", file, node.Line)
		l.settings = append(l.settings, settings(key+".", item)...)
		if node.Kind == yaml.ScalarNode && len(node.Value) > 20 { // it may be a secret
			l.fault("%s: %s: found a text where a section belongs", l.where[key], key)
			continue
		}
		l.section(file, l.where[key]+": "+key, key+".", node)
	}
}

// texts sets s to the texts of a YAML mapping.
func (l *layers) texts(s setting, n *yaml.Node, where string) {
	texts := map[string]string{}
	for pair := range slices.Chunk(n.Content, 2) {
		name, value := pair[0], pair[1]
		_, twice := texts[name.Value]
		switch {
		case name.Kind != yaml.ScalarNode || name.Style&yaml.TaggedStyle != 0 || twice:
			l.fault("%s: %s: found %s where a key belongs that does not stand there yet", where, s.key, describe(name))
			return
		case value.Kind != yaml.ScalarNode || value.Style&yaml.TaggedStyle != 0 || isNull(value):
			l.fault("%s: %s: found %s where the text of %q belongs", where, s.key, describe(value), name.Value)
			return
		}
		texts[name.Value] = value.Value
	}
	s.Set(reflect.ValueOf(texts).Convert(s.Type()))
	l.where[s.key] = where
}

// list sets s to the texts, or the sections, of a YAML list.
func (l *layers) list(file string, s setting, n *yaml.Node, where string) {
	if s.Type().Elem().Kind() == reflect.Struct {
		l.items(file, s, n, where)
		return
	}
	var list []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Style&yaml.TaggedStyle != 0 || isNull(item) {
			l.fault("%s: %s: found %s where a text of the list belongs", where, s.key, describe(item))
			return
		}
		list = append(list, item.Value)
	}
	s.Set(reflect.ValueOf(list))
	l.where[s.key] = where
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
