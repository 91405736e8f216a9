package api

import (
	"net/netip"
	"time"

	"github.com/fasthttp/router"

	"hailoclip/api/compat"
)

// rules are the settings that can change while the server serves. They are immutable: Apply makes new ones, and a request keeps
// those with which it has begun.
type rules struct {
	Config
	one, many time.Duration  // see Service.RequestTimeout and BatchTimeout
	proxies   []netip.Prefix // trusted ones
	// trustsUnix says that a proxy that comes by a Unix socket is trusted, too.
	trustsUnix bool
	compat     compat.Config
	router     *router.Router
	immich     *router.Router // of its own listener
}

// LiveSettings are the fields of Config that Apply changes.
var LiveSettings = []string{"allowed_origins", "allowed_hosts", "trusted_proxies", "max_prompts", "max_prompt_bytes", "lame_duck"}

// AllowedHosts returns Config.AllowedHosts as last applied. The caller must not change it.
func (s *Server) AllowedHosts() []string { return s.rules.Load().AllowedHosts }

// Apply changes LiveSettings, the dialects that are spoken, and the time limits of requests (see Service), for requests that begin
// afterwards. It ignores the other fields of cfg. cfg and dialects must have passed Check.
func (s *Server) Apply(cfg Config, dialects compat.Config, request, batch time.Duration) {
	by := &rules{Config: s.cfg, compat: dialects, one: request, many: batch}
	by.AllowedOrigins, by.AllowedHosts, by.TrustedProxies = cfg.AllowedOrigins, cfg.AllowedHosts, cfg.TrustedProxies
	by.MaxPrompts, by.MaxPromptBytes, by.LameDuck = cfg.MaxPrompts, cfg.MaxPromptBytes, cfg.LameDuck
	for _, text := range cfg.TrustedProxies {
		if text == proxyUnix {
			by.trustsUnix = true
			continue
		}
		p, _ := parseProxy(text) // checked by Check
		by.proxies = append(by.proxies, p)
	}
	by.router, by.immich = s.newRouter(by, ""), s.newRouter(by, "immich")
	s.rules.Store(by)
}

// routerOf finds the routes of what is served on a connection.
func (by *rules) routerOf(c *conn) *router.Router {
	if c.listener != nil && c.listener.immich {
		return by.immich
	}
	return by.router
}
