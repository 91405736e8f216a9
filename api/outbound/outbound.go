// Package outbound dials addresses that callers of the service have named, as far as the configuration allows them: it looks at
// the address after the name is resolved, and dials that address.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Config is the section "fetch" of the configuration.
type Config struct {
	// Allow are hosts that the service may ask on behalf of callers: "camera.local", "camera.local:8080", "*.example.org" (every
	// name below it), "192.168.1.20", "192.168.1.0/24", "[fd00::1]:80"; without a port all of them. None by default. An address
	// in the list may be asked under any name. A name in it must resolve to a public address, or to one that is in the list, too.
	Allow []string `yaml:"allow"`
}

// Check reports entries that cannot be read.
func (c Config) Check(fault func(field, format string, args ...any)) {
	for _, s := range c.Allow {
		if _, err := parse(s); err != nil {
			fault("allow", "%q is out of bounds: %w", s, err)
		}
	}
}

// ErrNotAllowed says that fetch.allow does not have a host, or that it resolves to an address that it must not. What a name
// resolves to is in no error: it is none of the caller's business.
var ErrNotAllowed = errors.New("not in fetch.allow")

// Allowed is what may be dialled: the list, for every address of callers. The zero value allows nothing. Copies share the list.
// Safe for concurrent use.
type Allowed struct {
	list    *atomic.Pointer[[]entry]                                     // nil: nothing
	resolve func(ctx context.Context, host string) ([]netip.Addr, error) // nil: the system's
}

// Any allows every address: for those that the user of a command line has typed.
func Any() Allowed {
	a := Allowed{list: new(atomic.Pointer[[]entry])}
	a.list.Store(&[]entry{{network: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {network: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}})
	return a
}

// New reads the list; Config.Check has found it in order.
func New(c Config) Allowed {
	a := Allowed{list: new(atomic.Pointer[[]entry])}
	a.Apply(c)
	return a
}

// Apply changes the list, of all copies of a, which New has made. What is connected stays so.
func (a Allowed) Apply(c Config) {
	var entries []entry
	for _, s := range c.Allow {
		if e, err := parse(s); err == nil {
			entries = append(entries, e)
		}
	}
	a.list.Store(&entries)
}

func (a Allowed) entries() []entry {
	if a.list == nil {
		return nil
	}
	return *a.list.Load()
}

// None says that the list is empty.
func (a Allowed) None() bool { return len(a.entries()) == 0 }

// entry is one of the list: a network, or a name.
type entry struct {
	network netip.Prefix // of an address: all its bits
	name    string       // in lower case; of "*.example.org": ".example.org"
	port    string       // "": all
}

const form = `a name, "*." and a name, an address, each with or without a port, or a network such as 10.0.0.0/8`

func parse(s string) (e entry, err error) {
	if strings.Contains(s, "/") {
		e.network, err = netip.ParsePrefix(s)
		if err != nil || e.network.Masked() != e.network || e.network.Addr().Is4In6() {
			return e, errors.New(form)
		}
		return e, nil
	}
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if !isPort(port) {
			return e, errors.New(form)
		}
		host, e.port = h, port
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		e.network = netip.PrefixFrom(addr, addr.BitLen())
		return e, nil
	}
	name, wild := strings.CutPrefix(host, "*.")
	if e.name = normal(name); !isName(e.name) {
		return e, errors.New(form)
	}
	if wild {
		e.name = "." + e.name
	}
	return e, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// normal returns a name in lower case, without the dot of the root.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// isName says whether s, in lower case, can be the name of a host; others than ASCII are written as xn--.
func isName(s string) bool {
	letters := 0
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case c >= 'a' && c <= 'z':
				letters++
			case c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return letters > 0 && len(s) <= 253 // digits and dots alone are addresses to some resolvers
}

// named says whether the list has the name.
func (a Allowed) named(name, port string) bool {
	return slices.ContainsFunc(a.entries(), func(e entry) bool {
		return e.name != "" && (e.port == "" || e.port == port) &&
			(name == e.name || e.name[0] == '.' && strings.HasSuffix(name, e.name))
	})
}

// listed says whether the list has the address itself.
func (a Allowed) listed(addr netip.Addr, port string) bool {
	return slices.ContainsFunc(a.entries(), func(e entry) bool {
		return e.network.IsValid() && (e.port == "" || e.port == port) && e.network.Contains(addr)
	})
}

// Check returns ErrNotAllowed for what Resolve would refuse whatever the name resolves to, at once.
func (a Allowed) Check(host, port string) error {
	if !isPort(port) {
		return fmt.Errorf("%.20q is no port: %w", port, ErrNotAllowed)
	}
	allowed := false
	if addr, err := netip.ParseAddr(host); err == nil {
		allowed = addr.Zone() == "" && a.listed(addr.Unmap(), port)
	} else if name := normal(host); !isName(name) {
		return fmt.Errorf("%.80q is no name of a host: %w", host, ErrNotAllowed)
	} else {
		// It may have an address that is in the list under any name.
		allowed = a.named(name, port) || slices.ContainsFunc(a.entries(), func(e entry) bool { return e.network.IsValid() })
	}
	if !allowed {
		return fmt.Errorf("%s is %w", net.JoinHostPort(host, port), ErrNotAllowed)
	}
	return nil
}

// Resolve returns an address (IP and port) of a host that may be dialled. It blocks on the resolver until ctx ends. Errors:
// ErrNotAllowed, or that of the resolver. Whoever dials the result has nothing to check any more; whoever resolves the name again
// has checked nothing.
func (a Allowed) Resolve(ctx context.Context, host, port string) (string, error) {
	addrs, err := a.addresses(ctx, host, port)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(addrs[0].String(), port), nil
}

// addresses returns those of a host that may be dialled, one at least.
func (a Allowed) addresses(ctx context.Context, host, port string) ([]netip.Addr, error) {
	if err := a.Check(host, port); err != nil {
		return nil, err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	name := normal(host)
	named := a.named(name, port)
	resolve := a.resolve
	if resolve == nil {
		resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	found, err := resolve(ctx, name)
	if err != nil && !named { // whether there is such a name is none of the caller's business
		return nil, fmt.Errorf("%s is %w", net.JoinHostPort(host, port), ErrNotAllowed)
	}
	if err != nil {
		return nil, err
	}
	var allowed []netip.Addr
	for _, addr := range found {
		addr = addr.Unmap()
		if addr.Zone() == "" && (a.listed(addr, port) || named && Public(addr)) {
			allowed = append(allowed, addr)
		}
	}
	switch {
	case len(allowed) > 0:
		return allowed, nil
	case named:
		return nil, fmt.Errorf("%s is at a private address, which itself is %w", net.JoinHostPort(host, port), ErrNotAllowed)
	}
	return nil, fmt.Errorf("%s is %w", net.JoinHostPort(host, port), ErrNotAllowed)
}

const dialTimeout = 10 * time.Second

// DialContext is for net.Dialer's place in transports: it dials an address that Resolve would return, or the next one.
func (a Allowed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, fmt.Errorf("network %s: %w", network, ErrNotAllowed)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := a.addresses(ctx, host, port)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var failed error
	for _, addr := range addrs[:min(len(addrs), 4)] {
		d := net.Dialer{Timeout: dialTimeout / 2}
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(addr.String(), port))
		if err == nil {
			return conn, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, failed
}

// Client returns an HTTP client with connections of its own, which its user closes (CloseIdleConnections). It dials by a, uses no
// proxy, follows few redirects, to the same host alone and never from https to http, waits a limited time for the head of an
// answer, and reads a limited one. It does not limit bodies, in size or time.
func (a Allowed) Client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            a.DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			ResponseHeaderTimeout:  15 * time.Second,
			IdleConnTimeout:        90 * time.Second,
			MaxIdleConnsPerHost:    2,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			switch from := via[0].URL; {
			case len(via) > 4:
				return errors.New("too many redirects")
			case !strings.EqualFold(to.URL.Hostname(), from.Hostname()), from.Scheme == "https" && to.URL.Scheme != "https":
				return fmt.Errorf("a redirect to another host is %w", ErrNotAllowed)
			}
			return nil
		},
	}
}
