package api

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config is the section "server" of the configuration; New relies on its bounds and on Check.
type Config struct {
	Host string `yaml:"host"`                     // address to listen on, see Listen
	Port int    `yaml:"port" bounds:"0 to 65535"` // 0 means any free one
	TLS  TLS    `yaml:"tls"`                      // for connections by TCP
	// Socket is the path of a Unix socket beside the port, see ListenSocket; "": none.
	Socket string `yaml:"socket"`
	Debug  bool   `yaml:"debug"` // key of the former service; true is refused

	ReadTimeout     time.Duration `yaml:"read_timeout" bounds:"100ms to 1h"`  // for a whole request, first byte to last
	WriteTimeout    time.Duration `yaml:"write_timeout" bounds:"100ms to 1h"` // for a whole answer
	IdleTimeout     time.Duration `yaml:"idle_timeout" bounds:"100ms to 1h"`  // between two requests of a connection
	LameDuck        time.Duration `yaml:"lame_duck" bounds:"0 to 10m"`        // see Server.LameDuck
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" bounds:"0 to 1h"`  // for the requests inside at a stop

	MaxBodyBytes int `yaml:"max_body_bytes" bounds:"1024 to 1073741824"` // 1 KiB to 1 GiB
	// MaxBatchBodyBytes is MaxBodyBytes of the routes that take many images, see batchBody. 1 KiB to 1 GiB.
	MaxBatchBodyBytes int `yaml:"max_batch_body_bytes" bounds:"1024 to 1073741824"`
	// MaxBodyMemoryBytes bounds the buffers of all bodies inside together: at least 2 MiB and twice MaxBodyBytes,
	// because a buffer that grows is there twice for a moment. A request that finds them used up is answered with 429.
	MaxBodyMemoryBytes int `yaml:"max_body_memory_bytes"`

	MaxHeaderBytes int `yaml:"max_header_bytes" bounds:"1024 to 1048576"` // of request line and headers together: the read buffer
	MaxConnections int `yaml:"max_connections" bounds:"1 to 1000000"`     // open at once
	MaxPrompts     int `yaml:"max_prompts" bounds:"1 to 100000"`          // in one request
	MaxPromptBytes int `yaml:"max_prompt_bytes" bounds:"1 to 65536"`      // of one prompt in UTF-8, without white space around it

	// AllowedOrigins are the origins, as "https://example.org" or "https://example.org:8443", whose
	// pages may use the service from a browser; "*" is all, "null" those of files. The service's own
	// always may. AllowedHosts are the names, with or without a port, under which it may be asked;
	// none means any. Addresses and localhost are always allowed.
	AllowedOrigins []string `yaml:"allowed_origins"`
	AllowedHosts   []string `yaml:"allowed_hosts"`

	// TrustedProxies are the addresses and networks (10.0.0.0/8) whose X-Forwarded-For says who asks.
	// Others are taken for callers themselves. "unix" is whoever may connect to a Unix socket.
	TrustedProxies []string `yaml:"trusted_proxies"`
}

// Check calls fault for each rule that c breaks and that the bounds of its fields cannot say, with the key of the
// field and what is wrong.
func (c Config) Check(fault func(field, format string, args ...any)) {
	if c.Debug {
		fault("debug", "true is not supported: for more log lines set logging.level: debug")
	}
	if c.MaxBodyMemoryBytes < max(2*largestPooled, 2*c.MaxBodyBytes) {
		fault("max_body_memory_bytes", "%d is out of bounds: at least %d and twice max_body_bytes",
			c.MaxBodyMemoryBytes, 2*largestPooled)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fault("tls.cert_file", "and key_file must be given together")
	}
	if !validSocket(c.Socket) {
		fault("socket", "%q is out of bounds: a path from the root of at most %d bytes", c.Socket, maxSocketPath)
	}
	texts := func(field string, values []string, valid func(string) bool, bound string) {
		for _, v := range values {
			if !valid(v) {
				fault(field, "%q is out of bounds: %s", v, bound)
			}
		}
	}
	texts("allowed_origins", c.AllowedOrigins, validOrigin, `"https://example.org" or with a port, "null" or "*"`)
	texts("allowed_hosts", c.AllowedHosts, func(h string) bool { return h != "" && !strings.ContainsAny(h, "/ \t@*?#") },
		"a name, or a name and a port")
	texts("trusted_proxies", c.TrustedProxies, func(p string) bool { _, ok := parseProxy(p); return ok || p == proxyUnix },
		`an address, a network such as 10.0.0.0/8, or "unix"`)
}

// batchBody is how long the body of a route that takes many images may be: MaxBatchBodyBytes, but no longer than fits
// twice into what there is for bodies, and no shorter than other bodies.
func (c Config) batchBody() int {
	return max(min(c.MaxBatchBodyBytes, c.MaxBodyMemoryBytes/2), c.MaxBodyBytes)
}

// validOrigin says that a browser may send o as an Origin.
func validOrigin(o string) bool {
	u, err := url.Parse(o)
	return o == anyOrigin || o == "null" ||
		err == nil && u.Scheme != "" && u.Host != "" && strings.EqualFold(o, u.Scheme+"://"+u.Host)
}

// Addr is what to listen on, as net.Listen takes it; see Listen.
func (c Config) Addr() string {
	host := c.Host
	if inside, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inside, "]")
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip == netip.IPv6Unspecified() {
		host = ""
	}
	return net.JoinHostPort(host, strconv.Itoa(c.Port))
}

// Listen opens the configured address. An IPv4 address takes IPv4 alone, also 0.0.0.0, for which
// net.Listen would take both; "" and :: take IPv6 and IPv4. An IPv6 address may be in brackets.
func (c Config) Listen() (net.Listener, error) {
	network := "tcp"
	if ip, err := netip.ParseAddr(c.Host); err == nil && ip.Is4() {
		network = "tcp4"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its sockets know no filter, see dropNewcomers
	return lc.Listen(context.Background(), network, c.Addr())
}

// speaksTLS says that connections of ln do.
func (c Config) speaksTLS(ln net.Listener) bool {
	_, isTCP := ln.Addr().(*net.TCPAddr)
	_, isImmich := ln.(ForImmich)
	return isTCP && !isImmich && c.TLS.On()
}

// URL is where the service can be opened on its own machine.
func (c Config) URL() string { return c.openable(c.Addr()) }

// URLOf is where a service that listens on that address can be opened on its own machine; "unix:" and the path of a Unix socket.
func (c Config) URLOf(listening net.Addr) string {
	if listening.Network() == "unix" {
		return "unix:" + listening.String()
	}
	return c.openable(listening.String())
}

// openable makes a URL of an address to listen on: nobody can open that of all addresses.
func (c Config) openable(addr string) string {
	scheme := "http://"
	if c.TLS.On() {
		scheme = "https://"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return scheme + addr
	}
	switch host {
	case "0.0.0.0":
		host = "127.0.0.1"
	case "", "::":
		host = "localhost"
	}
	return scheme + net.JoinHostPort(host, port)
}
