package api

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"
)

const anyOrigin = "*" // in the configuration

// screen refuses what a page of another origin has its browser send (errOrigin), and requests for
// a host that is not ours (errHost). The answers to allowed origins get the headers of CORS; a
// preflight request is answered here, which is what it returns true for.
func (s *Server) screen(ctx *fasthttp.RequestCtx) (answered bool, err error) {
	h, host := &ctx.Request.Header, string(ctx.Host())
	if !s.rules.Load().hostAllowed(host) {
		return false, fail(errHost, "The host %.100q is not one of this service's, see server.allowed_hosts", host)
	}
	if len(s.rules.Load().AllowedOrigins) > 0 {
		ctx.Response.Header.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	}
	origins := h.PeekAll(fasthttp.HeaderOrigin)
	origin := ""
	if len(origins) > 0 {
		origin = string(origins[0])
	}
	if string(h.Peek("Sec-Fetch-Site")) == "cross-site" && !isPage(ctx) && !s.rules.Load().originListed(origin) {
		return false, fail(errOrigin, "Requests from pages of other sites are refused, see server.allowed_origins")
	}
	if len(origins) == 0 {
		return false, nil
	}
	if len(origins) > 1 || !s.rules.Load().originListed(origin) && !ownOrigin(origin, host, connOf(ctx).tls != nil) {
		return false, fail(errOrigin, "Requests from pages of the origin %.100q are refused, see server.allowed_origins", origin)
	}
	r := &ctx.Response.Header
	r.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	r.Set(fasthttp.HeaderAccessControlExposeHeaders, headerRequestID+", "+headerWarning+", Server-Timing, Retry-After, ETag, Location")
	if !ctx.IsOptions() || len(h.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 {
		return false, nil
	}
	r.Set(fasthttp.HeaderAccessControlAllowMethods, "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	r.Set(fasthttp.HeaderAccessControlAllowHeaders, "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, "+headerRequestID+", "+headerTimeout+", "+headerFrame)
	r.Set(fasthttp.HeaderAccessControlMaxAge, "600") // seconds; Chromium takes up to 7200
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return true, nil
}

// originListed says whether an origin, as the header of that name has it ("": none), is on the list.
func (c Config) originListed(origin string) bool {
	return slices.ContainsFunc(c.AllowedOrigins, func(allowed string) bool {
		return allowed == anyOrigin || strings.EqualFold(allowed, origin)
	})
}

// ownOrigin says whether pages of an origin came from host itself, which they cannot have done in the clear where we speak TLS.
func ownOrigin(origin, host string, secure bool) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || secure && u.Scheme != "https" {
		return false // such as "null"
	}
	port := "80"
	if u.Scheme == "https" { // a proxy before us has the certificate
		port = "443"
	}
	return strings.EqualFold(strings.TrimSuffix(u.Host, ":"+port), strings.TrimSuffix(host, ":"+port))
}

// hostAllowed says whether a request for host, with or without a port, is for this service. Addresses
// always are: a page that rebinds a name has that name in its requests.
func (c Config) hostAllowed(host string) bool {
	if len(c.AllowedHosts) == 0 {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || strings.EqualFold(name, "localhost") {
		return true
	}
	return slices.ContainsFunc(c.AllowedHosts, func(allowed string) bool {
		return strings.EqualFold(allowed, name) || strings.EqualFold(allowed, host)
	})
}
