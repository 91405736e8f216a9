package api

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hailoclip/pipeline"
)

// Config is the section "server" of the configuration.
type Config struct {
	Host  string `yaml:"host"`  // address to listen on, see Listen
	Port  int    `yaml:"port"`  // 0..65535; 0 means any free one
	Debug bool   `yaml:"debug"` // key of the former service; true is refused

	ReadTimeout     pipeline.Duration `yaml:"read_timeout"`     // for a whole request, first byte to last, 100ms..1h
	WriteTimeout    pipeline.Duration `yaml:"write_timeout"`    // for a whole answer, 100ms..1h
	IdleTimeout     pipeline.Duration `yaml:"idle_timeout"`     // between two requests of a connection, 100ms..1h
	ShutdownTimeout pipeline.Duration `yaml:"shutdown_timeout"` // for the requests inside at a stop, 0..1h

	MaxBodyBytes int `yaml:"max_body_bytes"` // 1 KiB..1 GiB
	// MaxBodyMemoryBytes bounds the buffers of all bodies inside together: at least 2 MiB and twice
	// MaxBodyBytes, because a buffer that grows is there twice for a moment. A request that finds
	// them used up is answered with 429.
	MaxBodyMemoryBytes int `yaml:"max_body_memory_bytes"`

	MaxHeaderBytes int `yaml:"max_header_bytes"` // of request line and headers together, 1 KiB..1 MiB; the read buffer of a connection
	MaxConnections int `yaml:"max_connections"`  // open at once, 1..1000000
	MaxPrompts     int `yaml:"max_prompts"`      // in one request, 1..100000
	MaxPromptBytes int `yaml:"max_prompt_bytes"` // length of a prompt in UTF-8, white space around it not counted, 1..65536

	// AllowedOrigins are the origins, as "https://example.org" or "https://example.org:8443", whose
	// pages may use the service from a browser; "*" is all, "null" those of files. The service's own
	// always may. AllowedHosts are the names, with or without a port, under which it may be asked;
	// none means any. Addresses and localhost are always allowed.
	AllowedOrigins []string `yaml:"allowed_origins"`
	AllowedHosts   []string `yaml:"allowed_hosts"`

	// TrustedProxies are the addresses and networks (10.0.0.0/8) whose X-Forwarded-For says who asks.
	// Others are taken for callers themselves.
	TrustedProxies []string `yaml:"trusted_proxies"`
}

// Validate says which fields are out of bounds, all of them at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, field string, value any, bound string) {
		if !ok {
			errs = append(errs, fmt.Errorf("server.%s: %v is out of bounds: %s", field, value, bound))
		}
	}
	timeout := func(field string, d pipeline.Duration) {
		check(d.Std() >= 100*time.Millisecond && d.Std() <= time.Hour, field, d, "100ms to 1h")
	}
	check(c.Port >= 0 && c.Port <= 65535, "port", c.Port, "0 to 65535")
	if c.Debug {
		errs = append(errs, errors.New("server.debug: true is not supported: for more log lines set logging.level: debug"))
	}
	timeout("read_timeout", c.ReadTimeout)
	timeout("write_timeout", c.WriteTimeout)
	timeout("idle_timeout", c.IdleTimeout)
	check(c.ShutdownTimeout >= 0 && c.ShutdownTimeout.Std() <= time.Hour, "shutdown_timeout", c.ShutdownTimeout, "0 to 1h")
	check(c.MaxBodyBytes >= 1<<10 && c.MaxBodyBytes <= 1<<30, "max_body_bytes", c.MaxBodyBytes, "1024 to 1073741824")
	check(c.MaxBodyMemoryBytes >= max(2*largestPooled, 2*c.MaxBodyBytes), "max_body_memory_bytes", c.MaxBodyMemoryBytes,
		"at least 2097152 and twice max_body_bytes")
	check(c.MaxHeaderBytes >= 1<<10 && c.MaxHeaderBytes <= 1<<20, "max_header_bytes", c.MaxHeaderBytes, "1024 to 1048576")
	check(c.MaxConnections >= 1 && c.MaxConnections <= 1_000_000, "max_connections", c.MaxConnections, "1 to 1000000")
	check(c.MaxPrompts >= 1 && c.MaxPrompts <= 100_000, "max_prompts", c.MaxPrompts, "1 to 100000")
	check(c.MaxPromptBytes >= 1 && c.MaxPromptBytes <= 65536, "max_prompt_bytes", c.MaxPromptBytes, "1 to 65536")
	for _, o := range c.AllowedOrigins {
		check(validOrigin(o), "allowed_origins", strconv.Quote(o), `"https://example.org" or with a port, "null" or "*"`)
	}
	for _, h := range c.AllowedHosts {
		check(h != "" && !strings.ContainsAny(h, "/ \t@*?#"), "allowed_hosts", strconv.Quote(h), `a name, or a name and a port`)
	}
	for _, p := range c.TrustedProxies {
		_, ok := parseProxy(p)
		check(ok, "trusted_proxies", strconv.Quote(p), "an address, or a network such as 10.0.0.0/8")
	}
	return errors.Join(errs...)
}

// validOrigin says that a browser may send o as an Origin.
func validOrigin(o string) bool {
	u, err := url.Parse(o)
	return o == anyOrigin || o == "null" ||
		err == nil && u.Scheme != "" && u.Host != "" && strings.EqualFold(o, u.Scheme+"://"+u.Host)
}
