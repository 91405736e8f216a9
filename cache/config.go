package cache

// Modes of Config.Mode.
const (
	// OnDemand encodes prompts when they are first asked for.
	OnDemand = "ondemand"
	// Precomputed also encodes the prompts of PromptFile at start, in the background.
	Precomputed = "precomputed"
)

// Config is the section "text_embedding" of the configuration; OpenStore relies on its bounds.
type Config struct {
	Mode       string `yaml:"mode" bounds:"ondemand, precomputed"`
	PromptFile string `yaml:"prompt_file"` // UTF-8 text, one prompt a line, read in mode precomputed; "": none

	CacheEnabled    bool `yaml:"cache_enabled"`                           // false: nothing is remembered, in memory or on disk
	CacheMaxEntries int  `yaml:"cache_max_entries" bounds:"1 to 1000000"` // vectors in memory
	// CacheListBytes is the memory for whole lists of prompts, 64 KiB to 16 GiB.
	CacheListBytes int64 `yaml:"cache_list_bytes" bounds:"65536 to 17179869184"`

	CacheFile string `yaml:"cache_file"` // in the state folder, or an absolute path; "": memory only
	// CacheFileMaxBytes is the size at which the file is started anew, 4 MiB to 64 GiB.
	CacheFileMaxBytes int64 `yaml:"cache_file_max_bytes" bounds:"4194304 to 68719476736"`

	MaxPending int `yaml:"max_pending" bounds:"1 to 1000000"` // prompts that may wait for the encoder, see Get; those of Await do not count
}
