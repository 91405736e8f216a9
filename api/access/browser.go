package access

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// HostIn says whether a request for host, with or without a port, is for one of names, which may have a port, too. For an address
// or localhost it always is: a page that rebinds a name has that name in its requests.
func HostIn(host string, names []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || strings.EqualFold(name, "localhost") {
		return true
	}
	return slices.ContainsFunc(names, func(own string) bool { return strings.EqualFold(own, name) || strings.EqualFold(own, host) })
}

// SameOrigin says whether pages of an origin, as the header of that name has it, came from host by one of the schemes (http, https).
func SameOrigin(origin, host string, schemes ...string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		return false // such as "null"
	}
	port := ":80"
	if u.Scheme == "https" {
		port = ":443"
	}
	return strings.EqualFold(strings.TrimSuffix(u.Host, port), strings.TrimSuffix(host, port))
}
