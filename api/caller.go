package api

import (
	"bytes"
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline/fair"
)

// caller is who the request comes from, for the queues that serve callers in turn: an IPv4
// address or an IPv6 network of 64 bits, which is what one customer gets, and the connection.
func (by *rules) caller(ctx *fasthttp.RequestCtx) fair.Caller {
	nc := connOf(ctx)
	c := fair.Caller{Address: cmp.Or(nc.peer, "local"), Connection: nc.id} // of a socket that knows no addresses
	ip := by.clientAddress(ctx)
	if ip.Is6() {
		c.Address = networkOf(ip).String()
	} else if ip.IsValid() {
		c.Address = ip.String()
	}
	return c
}

// clientAddress is that of who asks, as far as the proxies before it are trusted; zero for a socket that knows no addresses.
func (by *rules) clientAddress(ctx *fasthttp.RequestCtx) netip.Addr {
	ip := addressOf(ctx.RemoteAddr())
	if by.trusts(ip) {
		ip = by.client(ip, ctx.Request.Header.PeekAll(fasthttp.HeaderXForwardedFor))
	}
	return ip
}

// addressOf is the address of a peer; the zero value for one that has none.
func addressOf(peer net.Addr) netip.Addr {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// networkOf is what counts as one client: an IPv4 address or an IPv6 network of 64 bits. Zero for no address.
func networkOf(ip netip.Addr) netip.Prefix {
	network, _ := ip.Prefix(min(ip.BitLen(), 64)) // fails for no address alone
	return network
}

// trusts says that what ip, which is zero at a Unix socket, writes into X-Forwarded-For is true.
func (by *rules) trusts(ip netip.Addr) bool {
	return !ip.IsValid() && by.trustsUnix || slices.ContainsFunc(by.proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// client is the rightmost address in X-Forwarded-For that is no trusted proxy's: what stands left
// of it anybody may have written. Where there is none, or no address, it is the last proxy found.
func (by *rules) client(proxy netip.Addr, forwarded [][]byte) netip.Addr {
	hops := strings.Split(string(bytes.Join(forwarded, []byte(","))), ",")
	for _, hop := range slices.Backward(hops) {
		ip, ok := parseHop(strings.TrimSpace(hop))
		if !ok {
			break
		}
		if proxy = ip; !by.trusts(ip) {
			break
		}
	}
	return proxy
}

// parseHop reads an address with or without brackets and a port.
func parseHop(hop string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(hop); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(hop, "["), "]"))
	return ip.Unmap().WithZone(""), err == nil
}

// proxyUnix in trusted_proxies is a proxy that comes by the Unix socket.
const proxyUnix = "unix"

// parseProxy reads an address or a network, as trusted_proxies has them.
func parseProxy(text string) (netip.Prefix, bool) {
	if ip, err := netip.ParseAddr(text); err == nil {
		ip = ip.Unmap().WithZone("")
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p, err == nil && !p.Addr().Is4In6() // which contains nothing
}
