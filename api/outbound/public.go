package outbound

import (
	"net/netip"
	"slices"
)

// Public says whether an address is one of the internet that anybody may have, and not private, loopback, link-local, multicast,
// unspecified or otherwise special (IANA's special-purpose registries); of an address that wraps one of IPv4, whether that is.
func Public(addr netip.Addr) bool {
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		return !in(addr, special4)
	}
	if nat64.Contains(addr) {
		b := addr.As16()
		return Public(netip.AddrFrom4([4]byte(b[12:])))
	}
	return global6.Contains(addr) && !in(addr, special6)
}

func in(addr netip.Addr, networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

func networks(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

var (
	special4 = networks("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/3")
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	global6 = netip.MustParsePrefix("2000::/3")
	// Protocol assignments with Teredo, 6to4, documentation.
	special6 = networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
