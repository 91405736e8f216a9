package cache

import (
	"errors"
	"fmt"
)

// Modes of Config.Mode.
const (
	// OnDemand encodes prompts when they are first asked for.
	OnDemand = "ondemand"
	// Precomputed also encodes the prompts of PromptFile at start, in the background.
	Precomputed = "precomputed"
)

// Config is the section "text_embedding" of the configuration. The zero Config is not valid.
type Config struct {
	Mode       string `yaml:"mode"`        // "ondemand" or "precomputed"
	PromptFile string `yaml:"prompt_file"` // UTF-8 text, one prompt a line, read in mode precomputed; "": none

	CacheEnabled    bool  `yaml:"cache_enabled"`     // false: nothing is remembered, in memory or on disk
	CacheMaxEntries int   `yaml:"cache_max_entries"` // vectors in memory, 1..1000000
	CacheListBytes  int64 `yaml:"cache_list_bytes"`  // memory for whole lists of prompts, 64 KiB..16 GiB

	CacheFile         string `yaml:"cache_file"`           // in the state folder, or an absolute path; "": memory only
	CacheFileMaxBytes int64  `yaml:"cache_file_max_bytes"` // size at which the file is started anew, 4 MiB..64 GiB

	MaxPending int `yaml:"max_pending"` // prompts that may wait for the encoder, see Get, 1..1000000
}

// Validate says which fields are out of bounds, all of them at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, field string, value any, bound string) {
		if !ok {
			errs = append(errs, fmt.Errorf("text_embedding.%s: %v is out of bounds: %s", field, value, bound))
		}
	}
	if c.Mode != OnDemand && c.Mode != Precomputed {
		errs = append(errs, fmt.Errorf("text_embedding.mode: %q is not known: %s or %s", c.Mode, OnDemand, Precomputed))
	}
	check(c.CacheMaxEntries >= 1 && c.CacheMaxEntries <= 1_000_000, "cache_max_entries", c.CacheMaxEntries, "1 to 1000000")
	check(c.CacheListBytes >= 64<<10 && c.CacheListBytes <= 16<<30,
		"cache_list_bytes", c.CacheListBytes, "65536 (64 KiB) to 17179869184 (16 GiB)")
	check(c.CacheFileMaxBytes >= 4<<20 && c.CacheFileMaxBytes <= 64<<30,
		"cache_file_max_bytes", c.CacheFileMaxBytes, "4194304 (4 MiB) to 68719476736 (64 GiB)")
	check(c.MaxPending >= 1 && c.MaxPending <= 1_000_000, "max_pending", c.MaxPending, "1 to 1000000")
	return errors.Join(errs...)
}
