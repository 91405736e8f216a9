package configs

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Dangers says what is allowed but lets others do what they should not, each with the key and what to write instead.
func (c Config) Dangers() (all []string) {
	s, keys := c.Server, len(c.Access.Keys) > 0
	if reach := reachOf(s.Host); keys && !s.TLS.On() && reach == everywhere && len(s.TrustedProxies) == 0 {
		all = append(all, fmt.Sprintf("access.keys: keys are sent in the clear to %q, and whoever listens on the way can use them; write server.tls, "+
			"or server.host: 127.0.0.1 and put a proxy with TLS in front", s.Host))
	}
	if host, _, err := net.SplitHostPort(c.Admin.Listen); err == nil && reachOf(host) == everywhere {
		all = append(all, fmt.Sprintf("admin.listen: whoever can connect to %q can take profiles and have the configuration reloaded, as no key is needed there; "+
			"write an address of a network that only operators can reach, or admin.listen: main", c.Admin.Listen))
	}
	if host, _, err := net.SplitHostPort(c.Compat.Immich.Listen); keys && err == nil && reachOf(host) == everywhere {
		all = append(all, fmt.Sprintf("compat.immich.listen: whoever can connect to %q can have images and texts encoded, as no key is needed there, and Immich "+
			"sends none; write an address of a network that only Immich can reach", c.Compat.Immich.Listen))
	}
	if !keys && slices.Contains(s.AllowedOrigins, "*") {
		all = append(all, `server.allowed_origins: "*" lets every page that somebody opens in your network use the service, wherever the page is from; `+
			`write the origins that should, or access.keys`)
	}
	if info, err := os.Stat(s.TLS.KeyFile); s.TLS.On() && err == nil && info.Mode().Perm()&0o007 != 0 {
		all = append(all, fmt.Sprintf("server.tls.key_file: every user of this machine can read or change %s; write chmod 640, with the service's group", s.TLS.KeyFile))
	}
	return all
}

// Exposure is a sentence that says who can use the service without a key; "" if only this machine can, or Dangers says it.
func (c Config) Exposure() string {
	if len(c.Access.Keys) > 0 {
		return c.immichExposure()
	}
	const remedy = `; for this machine alone write server.host: 127.0.0.1, for chosen callers "hailo-clip keys new NAME"`
	switch reachOf(c.Server.Host) {
	case thisMachine:
		return c.immichExposure()
	case network:
		return "everybody in the network of " + c.Server.Host + " may use the service" + remedy
	}
	return "everybody who reaches this machine by network may use the service" + remedy
}

// immichExposure is Exposure of Immich's listener.
func (c Config) immichExposure() string {
	host, _, err := net.SplitHostPort(c.Compat.Immich.Listen)
	if reach := reachOf(host); err != nil || reach == thisMachine || reach == everywhere && len(c.Access.Keys) > 0 {
		return ""
	}
	return "everybody who reaches " + c.Compat.Immich.Listen + " (compat.immich.listen) may have images and texts encoded, as Immich does, without a key"
}

// reach says who can connect to an address.
type reach int

const (
	thisMachine reach = iota
	network           // those in a private network
	everywhere        // everybody in every network of the machine
)

// reachOf is the reach of an address to listen on. A host name other than localhost counts as everywhere.
func reachOf(host string) reach {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case err == nil && ip.Unmap().IsLoopback(), strings.EqualFold(host, "localhost"):
		return thisMachine
	case err == nil && (ip.Unmap().IsPrivate() || ip.IsLinkLocalUnicast()):
		return network
	}
	return everywhere
}
