// Package outbound dials addresses that callers of the service have named, as far as the configuration allows them: it looks at
// the address after the name is resolved, and dials that address.
package outbound

import (
	"context"
	"errors"
	"net"
	"net/http"
)

// Config is the section "fetch" of the configuration.
type Config struct {
	// Allow are hosts that the service may ask on behalf of callers: "camera.local", "camera.local:8080", "*.example.org",
	// "192.168.1.20", "192.168.1.0/24". None by default. Names that resolve to private, loopback or link-local addresses need those
	// addresses listed, too.
	Allow []string `yaml:"allow"`
}

// ErrNotAllowed says that fetch.allow does not have a host, or that it resolves to an address that it must not.
var ErrNotAllowed = errors.New("not in fetch.allow")

// Allowed is what may be dialled. The zero value allows nothing. Safe for concurrent use.
type Allowed struct{}

// New reads the list; Config.Check has found it in order.
func New(c Config) Allowed { panic("to be built") }

// Resolve returns the address (IP and port) to dial for host and port, or ErrNotAllowed. It blocks on the resolver until ctx ends.
func (a Allowed) Resolve(ctx context.Context, host, port string) (string, error) {
	panic("to be built")
}

// DialContext is for net.Dialer's place in transports: it dials what Resolve returns.
func (a Allowed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	panic("to be built")
}

// Client returns an HTTP client that dials by a and follows redirects to the same host alone.
func (a Allowed) Client() *http.Client { panic("to be built") }
