package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"hailoclip/api/client"
	"hailoclip/cache/sets"
	"hailoclip/hailo/safefile"
)

// setsSection is the key of a file with several sets; in a configuration it is one of others.
const setsSection = "prompt_sets"

// maxSetsFile bounds a file of prompt sets, which has the thumbnails of all examples.
const maxSetsFile = 256 << 20

// setLimits leave to the service what only its configuration knows.
var setLimits = sets.Limits{PromptBytes: 64 << 10}

// translated is a definition as the client has it for one of package sets, or the other way round: both are the same JSON.
func translated[To, From sets.Definition | client.Definition](from From) (to To, err error) {
	b, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(b, &to)
	}
	return to, err
}

// formatOf is yaml or json: as it was said, else by the suffix of the file.
func formatOf(file, said string) string {
	if said == "" && strings.EqualFold(filepath.Ext(file), ".json") {
		return "json"
	}
	return cmp.Or(said, "yaml")
}

// readFile reads a file of prompt sets, or standard input for "-".
func readSetsFile(name string) ([]byte, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = safefile.OpenRegular(name); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSetsFile+1))
	if err == nil && len(b) > maxSetsFile {
		err = fmt.Errorf("%s: larger than %d bytes", name, maxSetsFile)
	}
	return b, err
}

// readDefinition reads the definition of one set. What is wrong with it, or unknown, is a mistake of the user.
func (c *changes) readDefinition(name string) (d sets.Definition, err error) {
	b, err := readSetsFile(name)
	if err != nil {
		return d, err
	}
	if formatOf(name, c.Format) == "json" {
		err = strictly(b, &d)
		if d = d.Normalized(); err == nil {
			err = d.Validate(setLimits)
		}
	} else {
		d, err = sets.ParseYAML(b, setLimits)
	}
	return d, mistake(name, "", err)
}

func mistake(name, set string, err error) error {
	if err == nil {
		return nil
	}
	if set != "" {
		name += ": " + setsSection + "." + set
	}
	return usageError{fmt.Errorf("%s: %w", name, err)}
}

// strictly reads one JSON value whose keys are all known.
func strictly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the end of the JSON")
	}
	return nil
}

// readSets reads a file with the section prompt_sets: the sets by their names, in the order of the file.
func (c *changes) readSets(name string) (all []namedSet, err error) {
	b, err := readSetsFile(name)
	if err != nil {
		return nil, err
	}
	var section []namedSet
	if formatOf(name, c.Format) == "json" {
		section, err = jsonSets(b)
	} else {
		section, err = yamlSets(b)
	}
	var of setError
	switch {
	case errors.As(err, &of):
		return nil, mistake(name, of.name, of.error)
	case err != nil:
		return nil, mistake(name, "", err)
	case section == nil:
		return nil, mistake(name, "", errors.New("it has no prompt_sets; a file with the definition of one set is read by put"))
	}
	return section, nil
}

// setError is what is wrong with a set in a file.
type setError struct {
	name string
	error
}

// jsonSets returns nil for a file without the section, as yamlSets does; it may be empty.
func jsonSets(b []byte) (all []namedSet, err error) {
	var file map[string]json.RawMessage
	if err := strictly(b, &file); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(file[setsSection]))
	if len(file[setsSection]) == 0 {
		return nil, nil
	}
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("prompt_sets must be an object")
	}
	all = []namedSet{}
	for d.More() {
		var text json.RawMessage
		var one sets.Definition
		key, err := d.Token()
		if err == nil {
			err = d.Decode(&text)
		}
		if err != nil {
			return nil, err
		}
		name := key.(string) // or More had been false
		if err = strictly(text, &one); err == nil {
			one = one.Normalized()
			err = one.Validate(setLimits)
		}
		if all, err = appendSet(all, name, one, err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func yamlSets(b []byte) (all []namedSet, err error) {
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return nil, nil
	}
	for i, key := range root.Content[0].Content {
		if i%2 != 0 || key.Value != setsSection {
			continue
		}
		section := root.Content[0].Content[i+1]
		if section.Kind != yaml.MappingNode {
			return nil, errors.New("prompt_sets must be a mapping")
		}
		all = []namedSet{}
		for n := 0; n+1 < len(section.Content); n += 2 {
			one, err := sets.FromYAML(section.Content[n+1], setLimits)
			if all, err = appendSet(all, section.Content[n].Value, one, err); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func appendSet(all []namedSet, name string, d sets.Definition, err error) ([]namedSet, error) {
	if err == nil && !sets.ValidName(name) {
		err = errors.New("that is no name of a set")
	}
	for _, other := range all {
		if err == nil && other.name == name {
			err = errors.New("it is there twice")
		}
	}
	if err != nil {
		return nil, setError{name, err}
	}
	return append(all, namedSet{name: name, definition: d}), nil
}

// writeYAML writes v as people write YAML. An error of w is as w has it, which the encoder's is not.
func writeYAML(w io.Writer, v any) error {
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(v), e.Close()); err != nil {
		return err
	}
	_, err := w.Write(text.Bytes())
	return err
}
