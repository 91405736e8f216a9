// Package configs holds what hailo-clip is configured with: the complete, commented default
// file, the manifests of the known models, the systemd unit, and how they are read.
//
// The order is: built-in default, file, environment, flags; each overrides the one before it.
// An unknown key, a wrong type or a value out of bounds stops the start with an error that
// names the file, the line, the field, the value and the bound; all of them are reported at once.
package configs

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"hailoclip/hailo/safefile"
)

// Default is the complete configuration with its comments: the documentation of every key.
//
//go:embed hailo-clip.yaml
var Default []byte

// SystemFile is the configuration that is read when none is named and it exists.
const SystemFile = "/etc/hailo/hailo-clip.yaml"

// envPrefix starts the environment variables: HAILO_CLIP_SERVER_PORT is server.port.
const envPrefix = "HAILO_CLIP_"

// StateVariable has the prefix and sets no key: it names the state folder.
const StateVariable = "HAILO_CLIP_STATE_DIR"

// KeyVariable likewise: it has the key that commands ask a service with.
const KeyVariable = "HAILO_CLIP_KEY"

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Override sets one key from outside the file.
type Override struct {
	Key    string // "server.port"
	Value  string // as it would stand in the file, without quotes
	Source string // for errors: "--port", "HAILO_CLIP_SERVER_PORT"
}

// builtIn is the name of the default file in errors.
const builtIn = "built-in configuration"

// Loaded is a configuration and what it was read from.
type Loaded struct {
	Config
	File  string            // "": there is none
	where map[string]string // by key: "my.yaml: line 3", "HAILO_CLIP_SERVER_PORT", "--port"
	old   map[string]string // by key: the old name that it was given by
}

// Read returns the configuration: the default, then the file, then environ (as os.Environ
// gives it), then the flags. With file "" it reads SystemFile if that exists. The error joins all faults.
func Read(file string, environ []string, flags []Override) (Loaded, error) {
	var c Config
	name := cmp.Or(file, SystemFile)
	text, err := safefile.ReadFile(name, maxFile)
	if file == "" && errors.Is(err, fs.ErrNotExist) {
		name, err = "", nil
	}
	if err != nil {
		return Loaded{File: name}, fmt.Errorf("configuration: %w", err)
	}
	l := newLayers(&c)
	l.file(builtIn, Default)
	l.file(name, text)
	for _, o := range slices.Concat(environment(environ), flags) {
		l.set(o.Key, o.Value, o.Source)
	}
	l.validate()
	return Loaded{c, name, l.where, l.old}, errors.Join(l.faults...)
}

// environment finds the variables that set keys. One that names no key becomes an override of
// a key that does not exist, and so is refused as it would be in the file.
func environment(environ []string) []Override {
	var found []Override
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		key, ours := strings.CutPrefix(name, envPrefix)
		if !ours || name == StateVariable || name == KeyVariable {
			continue
		}
		lower := strings.ToLower(key)
		key = lower
		for _, s := range sections() { // the last one that fits is the innermost
			if rest, ok := strings.CutPrefix(lower, strings.ReplaceAll(s, ".", "_")+"_"); ok {
				key = s + "." + rest
			}
		}
		found = append(found, Override{Key: key, Value: value, Source: name})
	}
	return found
}
