package api

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// Browsers cannot give a WebSocket a header. Their pages offer two subprotocols, subprotocol and one that begins with keyProtocol
// and ends with the key; the answer takes the first, so that it does not have the key.
const (
	subprotocol        = "hailo-clip"
	keyProtocol        = "key."
	headerSubprotocols = "Sec-WebSocket-Protocol"
)

const pathStream = "/v1/stream"

// enter lets a request in: it has a key, where one is needed and the route is not for everybody, of which no more goes on than
// may, and which may do what the route does. leave must follow, unless there is an error.
func (r *request) enter(to *route) error {
	if to.forEverybody() {
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

// leave says that the request is not inside any more.
func (r *request) leave() {
	if r.inside {
		r.inside = false
		r.grant.Leave()
	}
}

// forEverybody says that a route needs no key, by its path as routes has it, not as the client writes it.
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

// manages says that a request changes what others see, or asks for what only who runs the service should.
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

// key returns the key of a request, or what is wrong with it.
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

// whose is who asks: the holder of the key if there is one, else the address.
func (r *request) whose() fair.Caller {
	c := r.rules.caller(r.ctx)
	if r.grant != nil {
		c = r.grant.Caller(c)
	}
	return c
}

// lane is where its images enter the line. r.caller is known by then.
func (r *request) lane() pipeline.Lane {
	if r.grant == nil {
		return pipeline.Lane{Caller: r.caller}
	}
	return r.grant.Lane(r.caller)
}

// keyName is the name of the key that the request was let in by, or "".
func (r *request) keyName() string {
	if r.grant == nil {
		return ""
	}
	return r.grant.Name
}
