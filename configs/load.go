// Package configs holds what hailo-clip is configured with: the complete, commented default
// file, the manifests of the known models, the systemd unit, and how they are read.
//
// The order is: built-in default, file, environment, flags; each overrides the one before it.
// An unknown key, a wrong type or a value out of bounds stops the start with an error that
// names the file, the line, the field, the value and the bound.
package configs

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Default is the complete configuration with its comments: the documentation of every key.
//
//go:embed hailo-clip.yaml
var Default []byte

// SystemFile is the configuration that is read when none is named and it exists.
const SystemFile = "/etc/hailo/hailo-clip.yaml"

// envPrefix starts the environment variables: HAILO_CLIP_SERVER_PORT is server.port.
const envPrefix = "HAILO_CLIP_"

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Override sets one key from outside the file.
type Override struct {
	Key    string // "server.port"
	Value  string // as it would stand in the file
	Source string // for errors: "--port", "HAILO_CLIP_SERVER_PORT"
}

// Load returns the configuration: the default, then the file, then environ (as os.Environ
// gives it), then the flags. With file "" it reads SystemFile if that exists. It also returns
// the name of the file that was read, "" if none.
func Load(file string, environ []string, flags []Override) (Config, string, error) {
	var c Config
	if err := decode(Default, &c); err != nil {
		return c, "", fmt.Errorf("built-in configuration: %w", err)
	}
	var source []byte
	if file == "" {
		if _, err := os.Stat(SystemFile); err == nil {
			file = SystemFile
		}
	}
	if file != "" {
		var err error
		if source, err = readFile(file); err != nil {
			return c, file, err
		}
		if err := decode(source, &c); err != nil {
			return c, file, fmt.Errorf("%s: %w", file, err)
		}
	}
	fromEnv, err := environment(environ)
	if err != nil {
		return c, file, err
	}
	overrides := slices.Concat(fromEnv, flags)
	for _, o := range overrides {
		if err := set(&c, o); err != nil {
			return c, file, err
		}
	}
	if err := c.Validate(); err != nil {
		return c, file, locate(err, file, source, overrides)
	}
	return c, file, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("configuration: %s is larger than %d bytes", name, maxFile)
	}
	return b, nil
}

// decode reads YAML on top of c: keys that are missing keep their value, unknown keys are errors.
func decode(text []byte, c *Config) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty file, or one of comments
		}
		return plain(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("has more than one YAML document")
	}
	return nil
}

// plain turns the YAML library's errors, which name Go types, into sentences for people.
func plain(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]error, len(te.Errors))
	for i, e := range te.Errors {
		if line, rest, ok := strings.Cut(e, ": field "); ok {
			key, _, _ := strings.Cut(rest, " not found")
			e = fmt.Sprintf("%s: unknown key %q", line, key)
		}
		e = strings.NewReplacer("!!str", "text", "!!int", "a number", "!!float", "a number",
			"!!bool", "true or false", "!!seq", "a list", "!!map", "a section", "!!null", "nothing",
			"into int", "where a whole number belongs", "into float64", "where a number belongs",
			"into bool", "where true or false belongs", "into string", "where text belongs",
		).Replace(e)
		e = strings.Replace(e, "cannot unmarshal ", "found ", 1)
		if before, _, ok := strings.Cut(e, " into "); ok { // a section's Go type
			e = before + " where a section belongs"
		}
		lines[i] = errors.New(e)
	}
	return errors.Join(lines...)
}

// environment finds the variables that set keys. One that starts like a section's but has no
// such key is an error, as an unknown key in the file is.
func environment(environ []string) ([]Override, error) {
	known := map[string]string{}
	for _, key := range Keys() {
		known[envName(key)] = key
	}
	var found []Override
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if key, ok := known[name]; ok {
			found = append(found, Override{Key: key, Value: value, Source: name})
			continue
		}
		for _, s := range sections() {
			if strings.HasPrefix(name, envName(s)+"_") {
				return nil, fmt.Errorf("environment: %s is not a known setting of section %s", name, s)
			}
		}
	}
	slices.SortFunc(found, func(a, b Override) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// set applies an override as if it stood in the file.
func set(c *Config, o Override) error {
	section, key, _ := strings.Cut(o.Key, ".")
	var value yaml.Node
	value.Kind, value.Value = yaml.ScalarNode, o.Value
	doc := yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: section},
		{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: key}, &value}},
	}}
	text, err := yaml.Marshal(&doc)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Source, err)
	}
	if err := decode(text, c); err != nil {
		_, message, _ := strings.Cut(err.Error(), ": ") // without the line, which is ours
		return fmt.Errorf("%s: %s", o.Source, message)
	}
	return nil
}

// locate adds to every error of Validate where its value came from.
func locate(err error, file string, source []byte, overrides []Override) error {
	var root yaml.Node
	_ = yaml.Unmarshal(source, &root) // it decoded before; without it only the lines are missing
	var located []error
	for _, e := range flatten(err) {
		key, _, _ := strings.Cut(e.Error(), ": ")
		where := "built-in configuration"
		if line := lineOf(&root, strings.Split(key, ".")); line > 0 {
			where = fmt.Sprintf("%s: line %d", file, line)
		}
		for _, o := range overrides {
			if o.Key == key {
				where = o.Source
			}
		}
		located = append(located, fmt.Errorf("%s: %w", where, e))
	}
	return errors.Join(located...)
}

// flatten undoes errors.Join, in depth.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// lineOf finds a key in a YAML document, 0 if it is not there.
func lineOf(n *yaml.Node, path []string) int {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		return lineOf(n.Content[0], path)
	}
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		if n.Content[i].Value != path[0] {
			continue
		}
		if len(path) == 1 {
			return n.Content[i].Line
		}
		return lineOf(n.Content[i+1], path[1:])
	}
	return 0
}
