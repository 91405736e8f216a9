package api

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// Pages in browsers cannot set headers of a WebSocket. They offer two subprotocols instead: subprotocol, and keyProtocol followed
// by the key. The answer selects the first, so it does not repeat the key.
const (
	subprotocol        = "hailo-clip"
	keyProtocol        = "key."
	headerSubprotocols = "Sec-WebSocket-Protocol"
)

const pathStream = "/v1/stream"

// enter sets r.grant from the key of the request. It refuses a request whose key is missing or unknown, may not use the route, or has
// max_concurrent requests inside already. Routes for everybody need no key. leave must follow, unless there is an error.
func (r *request) enter(to *route) error {
	open := to.forEverybody()
	if r.dialects != nil { // whose paths are those of other systems, such as POST /
		open = r.dialects.open
	}
	if open {
		return nil
	}
	keys := r.server.svc.Access
	key, problem := "", ""
	if keys.Needed() {
		if key, problem = to.key(&r.ctx.Request.Header); problem != "" {
			return fail(errUnauthorized, "%s", problem)
		}
	}
	grant := keys.Find([]byte(key))
	if grant == nil {
		return fail(errUnauthorized, "This key is not one of the service's")
	}
	if r.grant = grant; !grant.Manage && to.manages(r.ctx) {
		return fail(errMayNot, "The key %q may not change anything, see access.keys", grant.Name)
	}
	if r.inside = grant.Enter(); !r.inside {
		return errKeyBusy
	}
	return nil
}

// leave ends what enter has begun, unless that has passed to a lasting connection.
func (r *request) leave() {
	if r.inside {
		r.inside = false
		r.grant.Leave()
	}
}

// forEverybody says whether a route needs no key. It goes by the path in routes, not by what the client has sent.
func (to *route) forEverybody() bool {
	switch to.path {
	case "/", "/health", "/healthz", "/readyz", "/docs":
		return true
	}
	for _, prefix := range [...]string{"/console/", "/docs/", "/openapi."} {
		if strings.HasPrefix(to.path, prefix) {
			return true
		}
	}
	return false
}

// manages says whether a request needs a key with "manage": it changes what other callers see, or asks for /admin.
func (to *route) manages(ctx *fasthttp.RequestCtx) bool {
	switch {
	case ctx.IsPut(), ctx.IsDelete():
		return true
	case !ctx.IsPost():
		return strings.HasPrefix(to.path, "/admin/")
	}
	return strings.HasPrefix(to.path, "/admin/") || strings.HasSuffix(to.path, "/examples") ||
		strings.HasSuffix(to.path, "/evaluate") && len(ctx.QueryArgs().Peek("apply")) > 0
}

// key returns the key that a request was sent with, or the text of the error if there is none, more than one or another scheme.
func (to *route) key(h *fasthttp.RequestHeader) (key, problem string) {
	sent := h.PeekAll(fasthttp.HeaderAuthorization)
	if len(sent) == 0 && to.path == pathStream {
		for _, list := range h.PeekAll(headerSubprotocols) {
			for offered := range bytes.SplitSeq(list, []byte(",")) {
				if k, ok := bytes.CutPrefix(bytes.TrimSpace(offered), []byte(keyProtocol)); ok {
					sent = append(sent, append([]byte("Bearer "), k...))
				}
			}
		}
	}
	switch len(sent) {
	case 0:
		return "", `A key is needed: send the header "Authorization: Bearer KEY"`
	case 1:
	default:
		return "", "There is more than one key"
	}
	scheme, rest, _ := strings.Cut(string(sent[0]), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", `A key is sent as "Authorization: Bearer KEY"`
	}
	return strings.Trim(rest, " "), ""
}

// whose returns the caller: the holder of the key if a key was needed, or else the address.
func (r *request) whose() fair.Caller {
	c := r.rules.caller(r.ctx)
	if r.grant != nil {
		c = r.grant.Caller(c)
	}
	return c
}

// lane is where the images of the request enter the line. r.caller must be set.
func (r *request) lane() pipeline.Lane {
	if r.grant == nil {
		return pipeline.Lane{Caller: r.caller}
	}
	return r.grant.Lane(r.caller)
}

// keyName is the name of the key of the request; "" if none was needed.
func (r *request) keyName() string {
	if r.grant == nil {
		return ""
	}
	return r.grant.Name
}
