package compat

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
)

// Config is the section "compat" of the configuration: which dialects are spoken.
type Config struct {
	Aliases []string `yaml:"aliases"` // names that the model answers to, beside its own and those of its manifest

	OpenAI        bool   `yaml:"openai"`
	Immich        Immich `yaml:"immich"`
	Frigate       bool   `yaml:"frigate"`
	Weaviate      bool   `yaml:"weaviate"`
	Ollama        bool   `yaml:"ollama"`
	TEI           bool   `yaml:"tei"`
	HuggingFace   bool   `yaml:"huggingface"`
	Cohere        bool   `yaml:"cohere"`
	Voyage        bool   `yaml:"voyage"`
	Roboflow      bool   `yaml:"roboflow"`
	Qdrant        bool   `yaml:"qdrant"`
	CLIPAsService bool   `yaml:"clip_as_service"`
}

// Immich is the section "compat.immich".
type Immich struct {
	Enabled bool `yaml:"enabled"`
	// Listen is the address of one more listener, which serves Immich alone and asks for no key: it sends none; "": there is none.
	Listen string `yaml:"listen"`
	// Upstream is the address, such as http://immich-machine-learning:3003, of the server for the tasks and models that this one
	// does not have, and for all while the encoder is not available; "": there is none.
	Upstream string `yaml:"upstream"`
}

// Speaks says whether the dialect of that name is on.
func (c *Config) Speaks(name string) bool {
	return map[string]bool{
		"openai": c.OpenAI, "immich": c.Immich.Enabled, "frigate": c.Frigate, "weaviate": c.Weaviate, "ollama": c.Ollama, "tei": c.TEI,
		"huggingface": c.HuggingFace, "cohere": c.Cohere, "voyage": c.Voyage, "roboflow": c.Roboflow, "qdrant": c.Qdrant,
		"clip_as_service": c.CLIPAsService,
	}[name]
}

// maxAliases bounds the lists of models, where each name has all others.
const maxAliases = 64

var aliasName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$`)

// Check reports what the bounds of the fields cannot say.
func (c Config) Check(fault func(field, format string, args ...any)) {
	if n := len(c.Aliases); n > maxAliases {
		fault("aliases", "%d names are out of bounds: at most %d", n, maxAliases)
	}
	for _, name := range c.Aliases {
		if !aliasName.MatchString(name) {
			fault("aliases", "%q is out of bounds: 1 to 128 letters, digits and ._:/@-, the first a letter or a digit", name)
		}
	}
	c.Immich.check(fault)
}

func (c Immich) check(fault func(field, format string, args ...any)) {
	host, port, err := net.SplitHostPort(c.Listen)
	_, noIP := netip.ParseAddr(host)
	if c.Listen != "" && (err != nil || !isPort(port, 0) || noIP != nil && host != "" && host != "localhost") {
		fault("immich.listen", `%q is out of bounds: an address and a port such as 0.0.0.0:3003, or ""`, c.Listen)
	}
	u, err := url.Parse(c.Upstream)
	if c.Upstream == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && (u.Port() == "" || isPort(u.Port(), 1)) &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.String() == c.Upstream {
		return
	}
	shown := c.Upstream
	if err == nil {
		shown = u.Redacted()
	}
	fault("immich.upstream", `%q is out of bounds: an address such as http://immich-machine-learning:3003, without credentials and query, or ""`, shown)
}

// isPort says whether text is the number of a port of at least that, as it is written.
func isPort(text string, least uint64) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n >= least && strconv.FormatUint(n, 10) == text
}
