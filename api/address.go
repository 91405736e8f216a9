package api

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

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

// URL is where the service can be opened on its own machine.
func (c Config) URL() string { return openable(c.Addr()) }

// URL is where a service that listens on that address can be opened on its own machine.
func URL(listening net.Addr) string { return openable(listening.String()) }

// openable makes a URL of an address to listen on: nobody can open that of all addresses.
func openable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	switch host {
	case "0.0.0.0":
		host = "127.0.0.1"
	case "", "::":
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
