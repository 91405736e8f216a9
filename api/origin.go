package api

import (
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/api/access"
)

const anyOrigin = "*" // in the configuration

// screen refuses what a page of another origin has its browser send (errOrigin), and requests for
// a host that is not ours (errHost). The answers to allowed origins get the headers of CORS; a
// preflight request is answered here, which is what it returns true for.
func (r *request) screen() (answered bool, err error) {
	ctx, by := r.ctx, r.rules
	h, host := &ctx.Request.Header, string(ctx.Host())
	if len(by.AllowedHosts) > 0 && !access.HostIn(host, by.AllowedHosts) {
		return false, fail(errHost, "The host %.100q is not one of this service's, see server.allowed_hosts", host)
	}
	if len(by.AllowedOrigins) > 0 {
		ctx.Response.Header.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	}
	origins := h.PeekAll(fasthttp.HeaderOrigin)
	origin := ""
	if len(origins) > 0 {
		origin = string(origins[0])
	}
	if string(h.Peek("Sec-Fetch-Site")) == "cross-site" && !isPage(ctx) && !by.originListed(origin) {
		return false, fail(errOrigin, "Requests from pages of other sites are refused, see server.allowed_origins")
	}
	if len(origins) == 0 {
		return false, nil
	}
	schemes := []string{"https", "http"} // of our pages: a proxy before us may have the certificate
	if r.conn.tls != nil {
		schemes = schemes[:1]
	}
	if len(origins) > 1 || !by.originListed(origin) && !access.SameOrigin(origin, host, schemes...) {
		return false, fail(errOrigin, "Requests from pages of the origin %.100q are refused, see server.allowed_origins", origin)
	}
	to := &ctx.Response.Header
	to.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	to.Set(fasthttp.HeaderAccessControlExposeHeaders, headerRequestID+", "+headerWarning+", Server-Timing, Retry-After, ETag, Location")
	if !ctx.IsOptions() || len(h.Peek(fasthttp.HeaderAccessControlRequestMethod)) == 0 {
		return false, nil
	}
	to.Set(fasthttp.HeaderAccessControlAllowMethods, "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	to.Set(fasthttp.HeaderAccessControlAllowHeaders, "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, "+
		headerRequestID+", "+headerTimeout+", "+headerFrame)
	to.Set(fasthttp.HeaderAccessControlMaxAge, "600") // seconds; Chromium takes up to 7200
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return true, nil
}

// originListed says whether an origin, as the header of that name has it ("": none), is on the list.
func (c Config) originListed(origin string) bool {
	return slices.ContainsFunc(c.AllowedOrigins, func(allowed string) bool {
		return allowed == anyOrigin || strings.EqualFold(allowed, origin)
	})
}
