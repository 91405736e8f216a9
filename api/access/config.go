package access

import (
	"fmt"
	"regexp"
)

// maxKeys are compared with each key that is sent.
const maxKeys = 256

// Config is the section "access" of the configuration.
type Config struct {
	Keys []Key `yaml:"keys"` // at most maxKeys; none: nobody needs one
}

// Key is a key that callers may have.
type Key struct {
	Name          string `yaml:"name"` // who asks, in the log and in the queues; unique
	Hash          Hash   `yaml:"hash"`
	MaxConcurrent int    `yaml:"max_concurrent" bounds:"0 to 100000"` // requests, pushes, WebSockets and listeners at once; 0: no bound
	Priority      string `yaml:"priority" bounds:"normal, bulk"`      // how its images wait, see Grant.Lane
	Manage        bool   `yaml:"manage"`                              // it may change prompt sets, streams and events, and ask /admin
}

// SetDefaults is called for each item of the list before its keys are read.
func (k *Key) SetDefaults() { *k = Key{Priority: "normal", Manage: true} }

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ValidName says whether a key may have that name.
func ValidName(name string) bool { return validName.MatchString(name) }

// Check calls fault for each rule that c breaks and that the bounds of its fields cannot say, with the key of the field and what
// is wrong. Hashes are not in it.
func (c Config) Check(fault func(field, format string, args ...any)) {
	if len(c.Keys) > maxKeys {
		fault("keys", "has %d items, more than %d", len(c.Keys), maxKeys)
	}
	names, hashes := map[string]bool{}, map[Hash]bool{}
	for i, k := range c.Keys {
		at := fmt.Sprintf("keys[%d].", i)
		switch {
		case !ValidName(k.Name):
			fault(at+"name", "%.64q is out of bounds: 1 to 64 of A-Z a-z 0-9 . _ -, the first one a letter or digit", k.Name)
		case names[k.Name]:
			fault(at+"name", "%q stands twice", k.Name)
		}
		switch {
		case k.Hash == Hash{}:
			fault(at+"hash", `is missing: "hailo-clip keys new NAME" makes a key and its hash`)
		case k.Hash == Sum(nil):
			fault(at+"hash", "is that of an empty key")
		case hashes[k.Hash]:
			fault(at+"hash", "stands twice: two names cannot have one key")
		}
		names[k.Name], hashes[k.Hash] = true, true
	}
}
