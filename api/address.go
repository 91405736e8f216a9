package api

import (
	"fmt"
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
	return net.Listen(network, c.Addr())
}

// URL is where a service that listens on that address can be opened on this machine.
func URL(listening net.Addr) string {
	tcp, ok := listening.(*net.TCPAddr)
	switch {
	case !ok:
		return "http://" + listening.String()
	case !tcp.IP.IsUnspecified() && len(tcp.IP) != 0:
		return "http://" + tcp.String()
	case tcp.IP.To4() != nil:
		return fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	default:
		return fmt.Sprintf("http://localhost:%d", tcp.Port)
	}
}
