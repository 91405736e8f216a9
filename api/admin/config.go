package admin

import (
	"net"
	"net/netip"
	"strconv"
)

// OnMain is the value of Config.Listen for the service's own port.
const OnMain = "main"

// Config is the section "admin" of the configuration.
type Config struct {
	// Listen is the address of a listener for operators: /metrics, /admin/*, /debug/pprof/. OnMain: the first two are on
	// the service's own port, and there are no profiles. "": there is none of it, and nothing is recorded.
	Listen string `yaml:"listen"`
}

// Check reports what the bounds of the fields cannot say.
func (c Config) Check(fault func(field, format string, args ...any)) {
	if c.Listen == "" || c.Listen == OnMain {
		return
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if n, bad := strconv.ParseUint(port, 10, 16); err == nil && bad == nil && strconv.FormatUint(n, 10) == port {
		if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" {
			return
		}
	}
	fault("listen", `%q is out of bounds: an address and a port such as 127.0.0.1:5001, "main" for the service's own port, or ""`, c.Listen)
}
